"""Deviations of scans from those trained on: what an autoencoder restores in place of the values themselves.

Values of good scans differ most where a part has an edge, and by more there than a fault changes elsewhere.
So values are first taken as the variation model takes them (see ``variation``): minus their mean, whitened place by
place. What an autoencoder leaves of them is counted in units of what it leaves of the training scans. Both are ours;
the paper restores values, and compares them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from ..training.scans import Scans
from .variation import Centre, Moments, Whiten, whitened


def without_lost_depths(values: Tensor, measured: Tensor) -> Tensor:
    """Return values (N, C, h, w) whose first channel is 0 where nothing was measured, (N, 1, h, w)."""
    depth = values[:, :1] * measured
    return torch.cat([depth, values[:, 1:]], 1) if values.shape[1] > 1 else depth


@final
class Deviations(nn.Module):
    """What a detector takes → the same, with whitened deviations from the training scans in place of values.

    Args:
        channels: number C of channels.
        is_masked: whether a depth that was not measured is at its mean; of depth images alone.

    Attributes:
        mean: float32 (C, *places), of the training scans and their copies.
        factors: float32 (C (C + 1) / 2, *places), see ``whitening``.
        weights: float32 (C, *places), by which what is not restored is multiplied before it is judged.
    """

    mean: Tensor
    factors: Tensor
    weights: Tensor

    def __init__(self, channels: int, *, is_masked: bool) -> None:
        super().__init__()
        self._is_masked = is_masked
        for name, rows in (("mean", channels), ("factors", channels * (channels + 1) // 2), ("weights", channels)):
            self.register_buffer(name, torch.empty(rows, 0))

    def forward(self, scans: Scans) -> Scans:
        """See the class."""
        centred = scans[0] - self.mean
        if self._is_masked:
            centred = without_lost_depths(centred, scans[1])
        return whitened(self.factors, centred), scans[1]

    def learn(self, batches: Iterable[Scans], smallest: Sequence[float]) -> None:
        """Learn mean and whitening from training scans.

        Args:
            batches: the scans and their copies, once.
            smallest: smallest deviation that each channel is taken to have, in units of its values.
        """
        moments = None
        for values, beside in batches:
            if moments is None:
                moments, places = Moments(values.shape[1], values[0, 0].numel()), values.shape[2:]
            moments.add(values.flatten(2), beside.flatten(2) if self._is_masked else None)
        if moments is None:
            raise ValueError("There are no scans to learn deviations from.")
        factors = moments.factors(torch.tensor(smallest, dtype=torch.float64), is_full=True)
        self.mean, self.factors = moments.mean().float().unflatten(1, places), factors.unflatten(1, places)
        self.weights = torch.ones_like(self.mean)

    def weigh(self, batches: Iterable[Scans], restored: Callable[[Tensor], Tensor], *, smallest: float) -> float:
        """Learn how much is left of training scans where they are restored.

        Args:
            batches: the scans and their copies, once, on the module's device.
            restored: from deviations to what an autoencoder makes of them.
            smallest: root mean square of what is left, at least; its square is added.

        Returns:
            Which share of the training scans' squared deviations is restored.
        """
        left, counts, before = torch.zeros_like(self.mean), torch.zeros_like(self.mean), 0.0
        with torch.no_grad():
            for batch in batches:
                deviations, beside = self(batch)
                apart, known = deviations - restored(deviations), torch.ones_like(deviations)
                if self._is_masked:
                    apart, known = without_lost_depths(apart, beside), without_lost_depths(known, beside)
                left += apart.square().sum(0)
                counts += known.sum(0)
                before += float(deviations.square().sum())
        self.weights = (left / counts.clamp(min=1.0) + smallest**2).rsqrt()
        return 1.0 - float(left.sum()) / max(before, torch.finfo(torch.float32).tiny)

    def lowered(self) -> nn.Module:
        """Return the same function by multiplications and additions of whole maps."""
        return _Whitened(Centre(self.mean), Whiten(self.factors, len(self.mean)), is_masked=self._is_masked)


class _Whitened(nn.Module):
    def __init__(self, centre: Centre, whiten: Whiten, *, is_masked: bool) -> None:
        super().__init__()
        self.centre, self.whiten, self._is_masked = centre, whiten, is_masked

    def forward(self, scans: Scans) -> Scans:
        centred = self.centre(scans[0])
        return self.whiten(without_lost_depths(centred, scans[1]) if self._is_masked else centred), scans[1]
