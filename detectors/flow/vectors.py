"""The feature vectors that CFlow learns from: standardised, dealt out of batches of images, learned in portions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from ...core.size import Size
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.task import TRAINING, BatchSource, Draw, Optimisation, TrainingTask
from .rotations import Rotate

#: Per level the vectors of a batch of images, float32 (B, h·w, C), or the images alone, float32 (B, 3, H, W); and per
#: level the indices into its B · h·w vectors, int64 (steps, vectors per step).
DrawnVectors = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


class StandardiseLevels(nn.Module):
    """``(x − centre) · scale`` per channel of each level; in fp32, as a channel may hardly vary."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        for level, count in enumerate(channels):
            self.register_buffer(f"centre{level}", torch.zeros(count, 1, 1))
            self.register_buffer(f"scale{level}", torch.ones(count, 1, 1))

    def learn(self, features: list[Tensor]) -> None:
        """Learn mean and deviation from vectors (num_images, h·w, C) per level, and standardise them in place."""
        for level, vectors in enumerate(features):
            deviation, mean = torch.std_mean(vectors.flatten(0, 1), 0)
            # A channel that never varies, as behind a dead ReLU, is only centred.
            scale = torch.where(deviation > 1e-6, 1.0 / deviation, torch.ones(()))
            self.get_buffer(f"centre{level}").copy_(mean[:, None, None])
            self.get_buffer(f"scale{level}").copy_(scale[:, None, None])
            vectors.sub_(mean).mul_(scale)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """float32 (N, C, h, w) per level → the same shapes."""
        return tuple(
            (item - self.get_buffer(f"centre{level}")) * self.get_buffer(f"scale{level}")
            for level, item in enumerate(maps)
        )


def deal(counts: Sequence[int], per_step: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Deal out the vectors of each level at random: int64 (steps, vectors per step), no index twice.

    What is left over is in no step, as in the authors' code; of a level with too few for one all are in one.

    Args:
        counts: number of vectors of each level.
        per_step: vectors of a step.
        generator: generator that draws the order.
    """
    dealt = []
    for count in counts:
        size = min(count, per_step)
        steps = count // size
        dealt.append(torch.randperm(count, generator=generator)[: steps * size].view(steps, size))
    return tuple(dealt)


def num_steps(num_images: int, batch_size: int, *, counts: Sequence[int], per_step: int) -> int:
    """Return the number of steps of an epoch.

    Args:
        num_images: number of images.
        batch_size: images per batch.
        counts: number of vectors of each level in one image.
        per_step: vectors of a step.
    """
    full, rest = divmod(num_images, batch_size)

    def steps(images: int) -> int:
        return sum(max(1, images * count // per_step) for count in counts)

    return full * steps(batch_size) + (steps(rest) if rest else 0)


@final
class CachedVectors(BatchSource[DrawnVectors]):
    """Vectors that were computed once, dealt out anew in every epoch.

    Args:
        features: vectors per level, float32 (num_images, h·w, C).
        per_step: vectors of a step.
    """

    def __init__(self, features: Sequence[Tensor], per_step: int) -> None:
        self._features = features
        self._per_step = per_step

    def __len__(self) -> int:
        return len(self._features[0])

    def __getitem__(self, draw: Draw) -> DrawnVectors:
        counts = [len(draw.indices) * item.shape[1] for item in self._features]
        return tuple(item[draw.indices] for item in self._features), deal(counts, self._per_step, draw.generator())


@final
class TurnedImages(BatchSource[DrawnVectors]):
    """Images, each turned by an angle that is drawn anew in every epoch; nearest pixel, black outside.

    Args:
        images: good images to fit on.
        crop_px: height and width of the images.
        largest_deg: largest angle in degrees, to either side.
        black: value of a black pixel after normalisation, per channel.
        sizes: height and width of the map of each level.
        per_step: vectors of a step.
    """

    def __init__(
        self,
        images: ImageSet,
        crop_px: Size,
        *,
        largest_deg: float,
        black: list[float],
        sizes: Sequence[Size],
        per_step: int,
    ) -> None:
        self._images = images
        self._crop_px = crop_px
        self._largest_deg = largest_deg
        self._black = black
        self._counts = [math.prod(size) for size in sizes]
        self._per_step = per_step

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> DrawnVectors:
        generator, count = draw.generator(), len(draw.indices)
        angles = self._largest_deg * (2.0 * torch.rand(count, generator=generator, dtype=torch.float64) - 1.0)
        images = self._images.batch(draw.indices.tolist())
        turned = [
            Rotate(self._crop_px, angle, black=self._black)(image)
            for image, angle in zip(images.split(1), angles.split(1), strict=True)
        ]
        counts = [count * positions for positions in self._counts]
        return (torch.cat(turned),), deal(counts, self._per_step, generator)


@final
class VectorTask(TrainingTask[DrawnVectors]):
    """One step per portion of vectors: a batch of images gives many.

    Args:
        flows: flows of all levels.
        optimisation: optimiser of their parameters.
        source: source of the batches.
        features: maps images, float32 (B, 3, H, W), to vectors per level; None where the batches hold vectors.
        loss: maps a level, its vectors float32 (V, C) and positions int64 (V,) to a scalar.
        holdout_loss: returns the mean loss of the held-out good images.
    """

    def __init__(
        self,
        flows: nn.Module,
        optimisation: Optimisation,
        *,
        source: BatchSource[DrawnVectors],
        features: Callable[[Tensor], tuple[Tensor, ...]] | None,
        loss: Callable[[int, Tensor, Tensor], Tensor],
        holdout_loss: Callable[[], float],
    ) -> None:
        super().__init__(flows, source)
        self._optimisation = optimisation
        self._features = features
        self._loss = loss
        self._holdout_loss = holdout_loss

    def optimisers(self) -> Mapping[str, Optimisation]:
        """Return the only optimiser."""
        return {TRAINING: self._optimisation}

    def step(self, batch: DrawnVectors) -> Iterator[tuple[str, Tensor]]:
        """Yield the loss of each portion, level by level."""
        levels, orders = moved(batch, next(self.module.parameters()).device)
        if self._features:
            with torch.no_grad():
                levels = self._features(levels[0])
        for level, (vectors, order) in enumerate(zip(levels, orders, strict=True)):
            flat, positions = vectors.flatten(0, 1), vectors.shape[1]
            for indices in order:
                yield TRAINING, self._loss(level, flat[indices], indices % positions)

    def validate(self) -> float:
        """Return the value of ``holdout_loss``."""
        return self._holdout_loss()
