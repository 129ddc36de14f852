"""Batches of good images with natural synthetic anomalies, drawn as NSA learns from them."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from ..nn.calibration import calibration_parts
from ..training.images import ImageSet
from ..training.task import BatchSource, Draw
from .natural import STEPS, Image, Rng, ViewRule, add_anomaly, furthest_step, view
from .natural_rules import PatchRule

#: Images float32 (B, 3, H, W), normalised, and labels float32 (B, H, W) in [0, 1].
Batch = tuple[Tensor, Tensor]

#: Streams of random numbers: images to train on, those held out, and those that statistics are taken over.
_TRAINING = 0
_HELD_OUT = 1
_CALIBRATION = 2


@final
class AnomalyMaker:
    """Draws images with anomalies; each follows from (seed, stream, epoch, index) alone.

    Args:
        patches: rule by which patches are drawn.
        views: rule by which images are shifted, rotated and flipped.
        normalisation: mean and standard deviation of the network's input, per RGB channel in [0, 1].
        seed: seed of the training.
    """

    def __init__(
        self,
        patches: PatchRule,
        views: ViewRule,
        *,
        normalisation: tuple[tuple[float, float, float], tuple[float, float, float]],
        seed: int,
    ) -> None:
        self._patches = patches
        self._views = views
        self._mean, self._std = (torch.tensor(item)[:, None, None] for item in normalisation)
        self._seed = seed

    def source(self, images: ImageSet, *, draws_per_image: int) -> BatchSource[Batch]:
        """Return the source of the batches to train on; every image is drawn so many times in an epoch."""
        return _Drawn(self, images.plain(), draws_per_image)

    def held_out(self, images: ImageSet, batch_size: int) -> list[Batch]:
        """Return every held-out image once, with anomalies that never change."""
        plain = images.plain()
        parts = torch.arange(len(images)).split(batch_size)
        return [self.batch(plain, part, stream=_HELD_OUT) for part in parts]

    def calibration(self, images: ImageSet, batch_size: int) -> list[Batch]:
        """Return batches over which the statistics of batch normalisations are taken, the same at every call."""
        plain = images.plain()
        return [self.batch(plain, part, stream=_CALIBRATION) for part in calibration_parts(len(images), batch_size)]

    def batch(self, plain: ImageSet, indices: Tensor, *, stream: int, epoch: int = 0) -> Batch:
        """Return images with anomalies, and their labels.

        Args:
            plain: good images as ``ImageSet.plain`` gives them; patches come from another image of them.
            indices: int64 (B,); those past the last image begin again at the first, with other anomalies.
            stream: number of the stream of random numbers, one for each purpose.
            epoch: number of the epoch; another one draws other anomalies.
        """
        images, labels = [], []
        for index in map(int, indices):
            good, source, rng = self._pair(plain, index, stream=stream, epoch=epoch)
            changed, label = add_anomaly(good, source, self._patches, rng)
            images.append(torch.from_numpy(changed))
            labels.append(torch.from_numpy(label))
        drawn = torch.stack(images).permute(0, 3, 1, 2).contiguous().float() / 255.0
        return (drawn - self._mean) / self._std, torch.stack(labels)

    def missing_step(self, images: ImageSet, batch_size: int) -> str:
        """The one of ``STEPS`` that no patch takes in any image of ``calibration``."""
        plain = images.plain()
        indices = (int(index) for part in calibration_parts(len(images), batch_size) for index in part)
        pairs = (self._pair(plain, index, stream=_CALIBRATION, epoch=0) for index in indices)
        return STEPS[max(furthest_step(good, source, self._patches, rng) for good, source, rng in pairs)]

    def _pair(self, plain: ImageSet, index: int, *, stream: int, epoch: int) -> tuple[Image, Image, Rng]:
        """Views of an image and of the one that patches come from, and the generator that goes on."""
        rng = np.random.default_rng([self._seed, stream, epoch, index])
        here = index % len(plain)
        other = (here + int(rng.integers(1, len(plain)))) % len(plain) if len(plain) > 1 else here
        good, source = (view(_levels(plain, item), self._views, rng) for item in (here, other))
        return good, source, rng


@final
class _Drawn(BatchSource[Batch]):
    """Images to train on, drawn anew in every epoch."""

    def __init__(self, maker: AnomalyMaker, plain: ImageSet, draws_per_image: int) -> None:
        self._maker = maker
        self._plain = plain
        self._draws_per_image = draws_per_image

    def __len__(self) -> int:
        return len(self._plain) * self._draws_per_image

    def __getitem__(self, draw: Draw) -> Batch:
        return self._maker.batch(self._plain, draw.indices, stream=_TRAINING, epoch=draw.epoch)


def _levels(plain: ImageSet, index: int) -> Image:
    """An image in whole levels, uint8 (H, W, 3): seamless cloning knows no other."""
    levels = (plain.batch([index])[0] * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())
