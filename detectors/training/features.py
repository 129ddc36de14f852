"""Training on the feature maps of a frozen backbone, computed once or at every step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..base import FitContext
from ..nn.calibration import calibration_parts, recalibrate
from .devices import moved
from .images import ImageSet
from .schedules import Schedule
from .task import TRAINING, BatchSource, Draw, LossTask, Optimisation
from .trainer import Trainer

Features = tuple[Tensor, ...]


class FeatureSource(BatchSource[Features]):
    """Batches by the indices of their images."""

    def __getitem__(self, draw: Draw) -> Features:
        return self.at(draw.indices)

    @abstractmethod
    def at(self, indices: Tensor) -> Features:
        """Return what a batch holds of the images at indices int64 (B,): one float32 tensor (B, …) per kind."""


@final
class CachedFeatures(FeatureSource):
    """Batches of features that lie in memory, or in a file mapped into memory.

    Args:
        features: one float32 tensor (num_images, …) per kind of feature, on the CPU.
    """

    def __init__(self, features: Sequence[Tensor]) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features[0])

    def at(self, indices: Tensor) -> Features:
        """Return the features of the images at indices int64 (B,): one float32 tensor (B, …) per kind."""
        return tuple(item[indices] for item in self._features)


@final
class PlainImages(FeatureSource):
    """Batches of good images as they are, whose features are computed at every step.

    Args:
        images: images to fit on, or held-out ones.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def at(self, indices: Tensor) -> Features:
        """Return the normalised images at indices int64 (B,), float32 (B, 3, H, W), alone in a tuple."""
        return (self._images.batch(indices.tolist()),)


def mean_loss(loss: Callable[[Features], Tensor], holdout_features: FeatureSource, *, batch_size: int) -> float:
    """Mean over images of a loss that is itself a mean over the images of a batch; without gradients.

    Args:
        loss: maps the features of a batch, on the CPU, to a scalar.
        holdout_features: features of the held-out good images.
        batch_size: images per batch.
    """
    with torch.no_grad():
        parts = torch.arange(len(holdout_features)).split(batch_size)
        return sum(float(loss(holdout_features.at(part))) * len(part) for part in parts) / len(holdout_features)


def train_on_features(  # noqa: PLR0913 (what a training needs, by name)
    module: nn.Module,
    optimisation: Optimisation,
    *,
    loss: Callable[[Features], Tensor],
    fit_features: Sequence[Tensor],
    holdout_features: Sequence[Tensor],
    schedule: Schedule,
    context: FitContext,
    name: str = TRAINING,
) -> dict[str, Any]:
    """Minimise a loss over cached features.

    Args:
        module: see ``train_on_batches``.
        optimisation: see there.
        loss: maps the features of a batch, on the module's device, to the mean loss over its images.
        fit_features: features of the images to fit on, float32 (num_images, …) each, on the CPU.
        holdout_features: features of the held-out good images, of the same shapes and on the CPU.
        schedule: see ``train_on_batches``.
        context: see there.
        name: see there.

    Returns:
        See ``Trainer.run``.
    """
    return train_on_batches(
        module,
        optimisation,
        loss=loss,
        source=CachedFeatures(fit_features),
        holdout_source=CachedFeatures(holdout_features),
        schedule=schedule,
        context=context,
        name=name,
    )


def train_on_batches(  # noqa: PLR0913 (what a training needs, by name)
    module: nn.Module,
    optimisation: Optimisation,
    *,
    loss: Callable[[Features], Tensor],
    source: FeatureSource,
    holdout_source: FeatureSource,
    schedule: Schedule,
    context: FitContext,
    name: str = TRAINING,
) -> dict[str, Any]:
    """Minimise a loss over batches of features or of images.

    Before each validation the statistics of batch normalisations are computed anew for the weights of that epoch.

    Args:
        module: the module that is trained, on the device of the training.
        optimisation: optimiser of its parameters, with scheduler and clipping.
        loss: maps a batch, on the module's device, to the mean loss over its images.
        source: source of the images to fit on.
        holdout_source: source of the held-out good images.
        schedule: length and batches of the training.
        context: seed, device, progress, run folder.
        name: name of the training, where a fit has several.

    Returns:
        See ``Trainer.run``.
    """
    device = next(module.parameters()).device
    is_normalised = any(isinstance(item, nn.BatchNorm2d) for item in module.modules())

    def moved_loss(features: Features) -> Tensor:
        return loss(moved(features, device))

    def holdout_loss() -> float:
        if is_normalised:
            parts = calibration_parts(len(source), schedule.batch_size)
            recalibrate(module, moved_loss, batches=(source.at(part) for part in parts))
        return mean_loss(moved_loss, holdout_source, batch_size=schedule.batch_size)

    task = LossTask(module, optimisation, source=source, loss=moved_loss, holdout_loss=holdout_loss, name=name)
    return Trainer(task, schedule=schedule, context=context).run()
