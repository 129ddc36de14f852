"""What autoencoders and GANs of scans share: parameters, a score by what was not restored, and their lowered form."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..base import Deployed, FitContext, TrainedConfig
from ..ranges import Count, CountOrZero, Degrees
from ..training.devices import moved
from ..training.scans import Scans, ScanSet
from ..training.schedules import Schedule
from ..training.task import TRAINING, LossTask, Optimisation
from ..training.trainer import Trainer
from .base import ScanConfig
from .copies import Copies, CopySource
from .deviations import without_lost_depths
from .projection import CellsToPixels

#: Values, what stands beside them (what was measured, or each pixel's cell), and a code or the restored values.
Carried = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class RestoringConfig(ScanConfig, TrainedConfig):
    """Parameters of every detector of scans that restores what it saw.

    Attributes:
        copies: turned copies of each training scan, besides itself; the paper's 20.
        rotation_deg: largest angle of the copies, in degrees; the paper's 5.
        latent: length of the vector between encoder and decoder. A guess: the paper's appendix compares several.
        batch_size: scans per step. A guess.
        error: what is not restored counts by its square or by its absolute value, summed over channels. A guess.
    """

    copies: CountOrZero = 20
    rotation_deg: Degrees = 5.0
    latent: Count = 256
    batch_size: Count = 8
    error: Literal["squared", "absolute"] = "squared"

    def drawn(self, scans: ScanSet, seed: int, *, largest_shift_m: float = 0.0) -> CopySource:
        """Return the batches of a training: scans and their turned copies, see ``Copies``."""
        copies = Copies(num=self.copies, largest_deg=self.rotation_deg, largest_shift_m=largest_shift_m)
        return CopySource(scans, copies, seed=seed)


def held_out_batches(scans: ScanSet, batch_size: int) -> list[Scans]:
    """Return the held-out scans in batches, without copies."""
    return [scans.batch(part.tolist()) for part in torch.arange(len(scans)).split(batch_size)]


def _mean_over(loss: Callable[[Scans], Tensor], batches: list[Scans]) -> float:
    """Mean over the scans of some batches of a loss that is a mean over those of one; without gradients."""
    with torch.no_grad():
        total = sum(float(loss(batch)) * len(batch[0]) for batch in batches)
    return total / sum(len(batch[0]) for batch in batches)


def train_restoring(  # noqa: PLR0913 (what a training needs, by name)
    module: nn.Module,
    optimisation: Optimisation,
    *,
    loss: Callable[[Scans], Tensor],
    epochs: int,
    config: RestoringConfig,
    source: CopySource,
    held_out: list[Scans],
    context: FitContext,
    name: str = TRAINING,
) -> dict[str, Any]:
    """Minimise a loss over scans and their copies; see ``Trainer.run``.

    Args:
        module: what is trained, on the context's device.
        optimisation: optimiser of its parameters.
        loss: maps what a detector takes, on that device, to the mean over its scans.
        epochs: passes over the source.
        config: size of the batches, and which epoch is kept.
        source: batches to learn from.
        held_out: held-out scans in batches.
        context: seed, device, progress, run folder.
        name: name of the training, where a fit has several.
    """

    def moved_loss(batch: Scans) -> Tensor:
        return loss(moved(batch, context.device))

    task = LossTask(
        module,
        optimisation,
        source=source,
        loss=moved_loss,
        holdout_loss=lambda: _mean_over(moved_loss, held_out),
        name=name,
    )
    schedule = Schedule(epochs=epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep)
    return Trainer(task, schedule=schedule, context=context).run()


def differences(values: Tensor, restored: Tensor, error: str, weights: Tensor | None = None) -> Tensor:
    """What was not restored, channel by channel: (N, C, …); weights (C, …) multiply it before it is squared."""
    apart = values - restored if weights is None else (values - restored) * weights
    return apart * apart if error == "squared" else apart.abs()


@final
class DepthScore(nn.Module):
    """What was not restored of depth images, summed over channels, and its largest pixel as the score.

    Args:
        error: see ``RestoringConfig``.
        is_masked: whether the depth of a pixel without a measurement counts nothing.
        weights: float32 (C, h, w), see ``differences``; None for none.
    """

    weights: Tensor | None

    def __init__(self, error: str, *, is_masked: bool, weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self._error, self._is_masked = error, is_masked

    def forward(self, carried: Carried) -> tuple[Tensor, Tensor]:
        """Return score float32 (N,), anomaly_map float32 (N, h, w)."""
        images, measured, restored = carried
        apart = differences(images, restored, self._error, self.weights)
        if self._is_masked:
            apart = without_lost_depths(apart, measured)
        anomaly_map = apart.sum(1)
        return anomaly_map.amax((1, 2)), anomaly_map


@final
class VoxelScore(nn.Module):
    """What was not restored of grids, summed over channels and seen from pixels.

    Args:
        error: see ``RestoringConfig``.
        to_pixels: the way from cells to pixels.
        weights: float32 (C, G, G, G), see ``differences``; None for none.
    """

    weights: Tensor | None

    def __init__(self, error: str, to_pixels: CellsToPixels, weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.to_pixels = to_pixels
        self._error = error

    def forward(self, carried: Carried) -> tuple[Tensor, Tensor]:
        """Return score float32 (N,), anomaly_map float32 (N, H, W)."""
        grids, cells, restored = carried
        score, anomaly_map = self.to_pixels(differences(grids, restored, self._error, self.weights).sum(1), cells)
        return score, anomaly_map


def restore(encoder: nn.Module, decoder: nn.Module, scans: Scans) -> Carried:
    """Return values, what stands beside them, and the restored values."""
    return scans[0], scans[1], decoder(encoder(scans[0]))


class Restoring(ABC):
    """The part of a detector that judges by what is not restored; it stands before the detector's own base class.

    Attributes:
        encoder: network from values to a vector.
        decoder: network back.
        half_scopes: the two networks of the lowered form.
    """

    encoder: nn.Module
    decoder: nn.Module
    half_scopes: tuple[str, ...] = ("backbone.network", "head.network")

    @abstractmethod
    def score(self) -> DepthScore | VoxelScore:
        """Return the module from what was restored to score and anomaly map."""

    def taken(self, scans: Scans) -> Scans:
        """Return what is restored: of itself, the values as they are."""
        return scans

    def taken_lowered(self) -> nn.Module:
        """Return the module that computes ``taken`` in the lowered form."""
        return nn.Identity()

    def judge(self, scans: Scans) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        score, anomaly_map = self.score()(restore(self.encoder, self.decoder, self.taken(scans)))
        return score, anomaly_map

    def lower(self) -> Deployed:
        """Encoder and decoder, normalisations folded into the convolutions before them, then the differences."""
        encoded = _Encoded(self.taken_lowered(), folded(self.encoder))
        return Deployed(encoded, _Decoded(folded(self.decoder)), self.score())


class _Encoded(nn.Module):
    def __init__(self, taken: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.taken, self.network = taken, network

    def forward(self, scans: Scans) -> Carried:
        values, beside = self.taken(scans)
        return values, beside, self.network(values)


class _Decoded(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, carried: Carried) -> Carried:
        return carried[0], carried[1], self.network(carried[2])


def folded(network: nn.Module) -> nn.Module:
    """Return a frozen copy in which each normalisation right after a convolution is part of it, folded in float64."""
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for chain in [item for item in copied.modules() if isinstance(item, nn.Sequential)]:
        for first, second in zip(list(chain), list(chain)[1:], strict=False):
            if isinstance(second, nn.BatchNorm2d | nn.BatchNorm3d):
                _fold_pair(chain, first, second)
    return copied


def _fold_pair(chain: nn.Sequential, conv: nn.Module, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    is_transposed = isinstance(conv, nn.ConvTranspose2d | nn.ConvTranspose3d)
    if not is_transposed and not isinstance(conv, nn.Conv2d | nn.Conv3d):
        return
    names = {id(item): name for name, item in chain.named_children()}
    fused: Any = fuse_conv_bn_eval(conv.double(), norm.double(), transpose=is_transposed)  # type: ignore[type-var]
    chain.set_submodule(names[id(conv)], fused.float())
    chain.set_submodule(names[id(norm)], nn.Identity())
