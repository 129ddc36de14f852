"""Training on features that were computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from ..nn.calibration import calibration_parts, recalibrate
from .task import BatchSource, Draw, LossTask, Optimisation

Features = tuple[Tensor, ...]


@final
class CachedFeatures(BatchSource[Features]):
    """Batches of features that lie in memory, or in a file mapped into memory.

    Args:
        known: one float32 (num_images, …) per kind of feature, on the CPU.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        self._known = known

    def __len__(self) -> int:
        return len(self._known[0])

    def __getitem__(self, draw: Draw) -> Features:
        return self.at(draw.indices)

    def at(self, indices: Tensor) -> Features:
        """Features of the images at indices int64 (B,): one float32 (B, …) per kind."""
        return tuple(item[indices] for item in self._known)


def mean_loss(loss: Callable[[Features], Tensor], kept: CachedFeatures, *, batch_size: int) -> float:
    """Mean over images of a loss that is itself a mean over the images of a batch; without gradients.

    Args:
        loss: features of a batch, on the CPU → scalar.
        kept: features of the held-out good images.
        batch_size: images at once.
    """
    with torch.no_grad():
        parts = torch.arange(len(kept)).split(batch_size)
        return sum(float(loss(kept.at(part))) * len(part) for part in parts) / len(kept)


def feature_task(
    module: nn.Module,
    optimisation: Optimisation,
    *,
    loss: Callable[[Features], Tensor],
    known: Sequence[Tensor],
    kept: Sequence[Tensor],
    batch_size: int,
) -> LossTask[Features]:
    """Minimise a loss of cached features; batch normalisations get the statistics of each evaluated epoch's weights.

    Args:
        module: what is trained, on the device of the training.
        optimisation: over its parameters.
        loss: features of a batch, on the module's device → mean loss over its images.
        known: features of the images to fit on, float32 (num_images, …) each, on the CPU.
        kept: features of the held-out good images.
        batch_size: images per step.
    """
    source, held_out = CachedFeatures(known), CachedFeatures(kept)
    device = next(module.parameters()).device
    is_normalised = any(isinstance(item, nn.BatchNorm2d) for item in module.modules())

    def moved(features: Features) -> Tensor:
        return loss(tuple(item.to(device) for item in features))

    def holdout_loss() -> float:
        if is_normalised:
            parts = calibration_parts(len(source), batch_size)
            recalibrate(module, moved, batches=(source.at(part) for part in parts))
        return mean_loss(moved, held_out, batch_size=batch_size)

    return LossTask(module, optimisation, source=source, loss=moved, holdout_loss=holdout_loss)
