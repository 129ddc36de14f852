"""Views of images that DifferNet learns from: drawn among fixed ones, or at random angles."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..training.images import ImageSet
from ..training.task import BatchSource, Draw

#: Features float32 (B · views, D) and no angles, or images float32 (B, 3, H, W) and float64 (B, views) in degrees.
DrawnViews = tuple[Tensor, Tensor | None]


@final
class FixedViews(BatchSource[DrawnViews]):
    """Features of some of the fixed views, drawn anew at every step.

    Args:
        features: features of all fixed views, float32 (num_images, num_rotations, D), on the CPU.
        num_drawn: number of views per image and step.
    """

    def __init__(self, features: Tensor, num_drawn: int) -> None:
        self._features = features
        self._num_drawn = num_drawn

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, draw: Draw) -> DrawnViews:
        order = torch.rand(len(draw.indices), self._features.shape[1], generator=draw.generator()).argsort(1)
        pairs = zip(draw.indices.tolist(), order[:, : self._num_drawn], strict=True)
        return torch.cat([self._features[image][views] for image, views in pairs]), None


@final
class RandomViews(BatchSource[DrawnViews]):
    """Images, and angles of [0°, 360°) to turn each by, drawn anew at every step.

    Args:
        images: good images to fit on.
        num_drawn: number of angles per image and step.
    """

    def __init__(self, images: ImageSet, num_drawn: int) -> None:
        self._images = images
        self._num_drawn = num_drawn

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> DrawnViews:
        shape = len(draw.indices), self._num_drawn
        angles = 360.0 * torch.rand(*shape, generator=draw.generator(), dtype=torch.float64)
        return self._images.batch(draw.indices.tolist()), angles
