"""Pairs of patches that Patch SVDD learns from: neighbours, and two patches side by side in a known direction.

All patches of a batch are cut by one gather per kind. What is random comes from the draw's generator alone.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from ..training.images import ImageSet
from ..training.task import BatchSource, Draw
from .patch_svdd_networks import BIG_PX, NUM_DIRECTIONS, SMALL_PX

#: Steps in rows and columns towards each direction.
DIRECTIONS = torch.tensor([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column])
#: Neighbours lie at most this share of their side apart on each axis.
_NEAR_SHARE = 32


@final
class PatchPairs(NamedTuple):
    """Pairs of patches of one size, one pair of each kind per image drawn.

    Attributes:
        near: neighbours, a pixel or two apart: float32 (2, B, 3, side, side).
        apart: two patches with noise, the second in a known direction: float32 (2, B, 3, side, side).
        direction: row of ``DIRECTIONS`` in which the second patch lies, int64 (B,).
    """

    near: Tensor
    apart: Tensor
    direction: Tensor


@final
class PairSource(BatchSource[tuple[PatchPairs, PatchPairs]]):
    """Pairs of big and of small patches of good images, drawn anew in every step.

    Args:
        images: good images.
        centre: images float32 (N, 3, H, W) → the same, centred; on the CPU.
        patches_per_image: number of draws of every image in an epoch.
        colour_shift: standard deviation of what is added to patches whose direction is asked for, one value per patch
            and colour, where the largest pixel value is 1.
        noise: standard deviation of what is added to them beside it, one value per pixel and colour.
    """

    def __init__(
        self, images: ImageSet, centre: nn.Module, *, patches_per_image: int, colour_shift: float, noise: float
    ) -> None:
        self._images = images
        self._centre = centre
        self._patches_per_image = patches_per_image
        self._colour_shift = colour_shift
        self._noise = noise

    def __len__(self) -> int:
        return len(self._images) * self._patches_per_image

    def __getitem__(self, draw: Draw) -> tuple[PatchPairs, PatchPairs]:
        generator = draw.generator()
        chosen, item_of = torch.unique(draw.indices % len(self._images), return_inverse=True)
        images = self._centre(self._images.batch(chosen.tolist()))
        return self._pairs(images, item_of, BIG_PX, generator), self._pairs(images, item_of, SMALL_PX, generator)

    def _pairs(self, images: Tensor, item_of: Tensor, side: int, generator: torch.Generator) -> PatchPairs:
        """Cut one pair of each kind per item, from the images at ``item_of`` int64 (B,)."""
        size = torch.tensor(images.shape[2:])
        near = torch.stack(near_corners(len(item_of), size, side, generator))
        first, second, direction = apart_corners(len(item_of), size, side, generator)
        apart = torch.stack((first, second))
        patches = cut(images, item_of, apart, side)
        shift = self._colour_shift * torch.randn((*patches.shape[:3], 1, 1), generator=generator)
        patches = patches + shift + self._noise * torch.randn(patches.shape, generator=generator)
        return PatchPairs(near=cut(images, item_of, near, side), apart=patches, direction=direction)


def near_corners(num: int, size: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the upper left corners of patches, and of neighbours that are moved by 1/32 of the side at most.

    A neighbour that would reach over the border is moved back inside.

    Args:
        num: number of pairs.
        size: height and width of the images, int64 (2,).
        side: side of the patches in pixels.
        generator: generator of all draws.

    Returns:
        Rows and columns of the first and of the second corners, int64 (num, 2) each.
    """
    first = _corners(num, size, side, generator)
    reach = side // _NEAR_SHARE
    across = 2 * reach + 1
    # All moves but none, each as likely as the others.
    move = torch.randint(across**2 - 1, (num,), generator=generator)
    move += move >= across**2 // 2
    moved = torch.stack((move // across, move % across), 1) - reach
    return first, _inside(first + moved, size, side)


def apart_corners(num: int, size: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the upper left corners of patches, and of others three quarters of a side or more away in some direction.

    A second patch that would reach over the border is moved back inside, its direction stays as it was drawn.

    Args:
        num: number of pairs.
        size: height and width of the images, int64 (2,).
        side: side of the patches in pixels.
        generator: generator of all draws.

    Returns:
        Rows and columns of the first and of the second corners, int64 (num, 2) each, and rows of ``DIRECTIONS``, int64
        (num,).
    """
    first = _corners(num, size, side, generator)
    direction = torch.randint(NUM_DIRECTIONS, (num,), generator=generator)
    distance = side * 3 // 4 + torch.randint(side // 4, (num, 2), generator=generator)
    return first, _inside(first + DIRECTIONS[direction] * distance, size, side), direction


def _corners(num: int, size: Tensor, side: int, generator: torch.Generator) -> Tensor:
    height, width = (int(length) - side + 1 for length in size)
    rows, columns = (torch.randint(length, (num,), generator=generator) for length in (height, width))
    return torch.stack((rows, columns), 1)


def _inside(corners: Tensor, size: Tensor, side: int) -> Tensor:
    return torch.minimum(corners.clamp(min=0), size - side)


def cut(images: Tensor, item_of: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut patches out of images.

    Args:
        images: float32 (N, 3, H, W).
        item_of: image of each patch, int64 (B,).
        corners: rows and columns of the upper left corners, int64 (…, B, 2).
        side: side of the patches in pixels.

    Returns:
        float32 (…, B, 3, side, side).
    """
    windows = images.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
    return windows[item_of, corners[..., 0], corners[..., 1]]
