"""Patches, positions and stains that Glance learns from, drawn at random."""

import math
from typing import final

import torch
from torch import Tensor

from ..training.images import ImageSet
from ..training.task import BatchSource, Draw
from .glance_networks import PATCH_PX, cut

_NUM_WAVES = 4


def draw_positions(count: int, image_px: int, *, generator: torch.Generator) -> Tensor:
    """First row and column of patches anywhere in a square image: int64 (count, 2)."""
    return torch.randint(0, image_px - PATCH_PX + 1, (count, 2), generator=generator)


def stain(patches: Tensor, *, black: Tensor, white: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a part of each patch by an ellipse with an irregular edge, in one colour.

    Half of the stains are opaque, half let up to 70 % of the patch through.

    Args:
        patches: float32 (B, 3, h, w).
        black: normalised value of a black pixel, float32 (3, 1, 1).
        white: the same of a white pixel.
        generator: generator of all that is random.

    Returns:
        float32 (B, 3, h, w).
    """
    count, _, height, width = patches.shape

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *size), generator=generator)

    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None, :] + 0.5
    centre = uniform(0.1, 0.9, 2, 1, 1)
    down, right = rows - centre[:, 0] * height, columns - centre[:, 1] * width
    turn = uniform(0.0, math.pi, 1, 1)
    along = (turn.cos() * right + turn.sin() * down) / uniform(0.05 * width, 0.35 * width, 1, 1)
    across = (turn.cos() * down - turn.sin() * right) / uniform(0.05 * height, 0.35 * height, 1, 1)
    angle = torch.atan2(across, along)
    radius = torch.ones(count, 1, 1)
    for wave in range(2, 2 + _NUM_WAVES):
        radius = radius + uniform(0.0, 0.2, 1, 1) * (wave * angle + uniform(0.0, 2.0 * math.pi, 1, 1)).cos()
    covered = (torch.hypot(along, across) < radius)[:, None].float()
    colour = black + (white - black) * uniform(0.0, 1.0, 3, 1, 1)
    opacity = torch.where(uniform(0.0, 1.0, 1, 1, 1) < 0.5, 1.0, uniform(0.3, 1.0, 1, 1, 1))
    return patches + covered * opacity * (colour - patches)


@final
class HiddenPatches(BatchSource[tuple[Tensor, ...]]):
    """Images with one position each, the patch there, and the same patch with a stain.

    A batch is images float32 (B·K, 3, S, S), positions int64 (B·K, 2), patches and stained patches float32
    (B·K, 3, 33, 33).

    Args:
        images: good images.
        patches_per_image: number K of positions of every image in a step.
        image_px: side S of the images.
        black: normalised value of a black pixel, float32 (3, 1, 1).
        white: the same of a white pixel.
    """

    def __init__(
        self, images: ImageSet, patches_per_image: int, *, image_px: int, black: Tensor, white: Tensor
    ) -> None:
        self._images = images
        self._patches_per_image = patches_per_image
        self._image_px = image_px
        self._black, self._white = black, white

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, ...]:
        generator = draw.generator()
        images = self._images.batch(draw.indices.tolist()).repeat_interleave(self._patches_per_image, 0)
        positions = draw_positions(len(images), self._image_px, generator=generator)
        patches = cut(images, positions)
        stained = stain(patches, black=self._black, white=self._white, generator=generator)
        return images, positions, patches, stained
