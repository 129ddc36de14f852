"""Synthetic anomalies: textures pasted into good images where Perlin noise is high.

Zavrtanik, Kristan, Skočaj, "DRAEM", arXiv 2108.07610, section 3.3. Everything follows from a generator that the caller
seeds, so that equal seeds give equal bits. Images are float32 (3, H, W), RGB in [0, 1].

Noise is drawn on the square over the longer side, of which a rectangle takes the middle: anomalies and textures are as
long as wide on the average, whatever the image's shape.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...core.geometry import centre_crop_offset
from ...core.size import Size

Image = NDArray[np.float32]
Rng = np.random.Generator

_LUMA = np.array([0.299, 0.587, 0.114], np.float32).reshape(3, 1, 1)
_NUM_AUGMENTATIONS = 3
_MASK_LEVEL = 0.5
_LARGEST_OCTAVE = 6


@dataclass(frozen=True, eq=False)
class Pair:
    """A training image, its original, and the mask of its anomaly.

    Attributes:
        image: image with or without an anomaly, float32 (3, H, W).
        original: the same image without the anomaly, float32 (3, H, W).
        mask: 1 where the anomaly is, float32 (H, W).
    """

    image: Image
    original: Image
    mask: Image


def perlin_noise(size: int, periods: tuple[int, int], rng: Rng) -> Image:
    """Gradient noise.

    Args:
        size: height and width S in pixels.
        periods: cells of the lattice along rows and columns.
        rng: generator that draws the gradients.

    Returns:
        float32 (S, S), about −1 … 1.
    """
    angles = rng.uniform(0.0, 2.0 * math.pi, (periods[0] + 1, periods[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)])
    rows, columns = (np.arange(size) * (count / size) for count in periods)
    low_r, low_c = rows.astype(int), columns.astype(int)
    part_r, part_c = (rows - low_r)[:, None], (columns - low_c)[None, :]

    def corner(down: int, right: int) -> NDArray[np.float64]:
        near = gradients[:, low_r + down][:, :, low_c + right]
        return np.asarray(near[0] * (part_r - down) + near[1] * (part_c - right))

    fade_r, fade_c = (t**3 * (t * (6.0 * t - 15.0) + 10.0) for t in (part_r, part_c))
    upper = corner(0, 0) + fade_c * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + fade_c * (corner(1, 1) - corner(1, 0))
    return np.asarray(math.sqrt(2.0) * (upper + fade_r * (lower - upper)), np.float32)


def rotate(image: Image, degrees: float) -> Image:
    """Rotate float32 (C, H, W) about its centre within its frame, bilinearly; what comes from outside is 0."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # affine_grid measures each axis in halves of its own length.
    aspect = image.shape[1] / image.shape[2]
    turned = torch.tensor([[[cosine, -sine * aspect, 0.0], [sine / aspect, cosine, 0.0]]])
    source = torch.from_numpy(np.ascontiguousarray(image))[None]
    grid = F.affine_grid(turned, list(source.shape), align_corners=False)
    return np.asarray(F.grid_sample(source, grid, align_corners=False)[0].numpy())


def _middle(image: Image, size: Size) -> Image:
    """The middle of float32 (…, S, S), float32 (…, *size)."""
    top, left = (centre_crop_offset(image.shape[-1], side) for side in size)
    return image[..., top : top + size[0], left : left + size[1]]


def anomaly_mask(size: Size, rng: Rng) -> Image:
    """Rotated Perlin noise of random scale, cut at 0.5: float32 (*size) of 0 and 1, possibly empty."""
    octaves = 2 ** rng.integers(0, _LARGEST_OCTAVE, 2)
    noise = perlin_noise(max(size), (int(octaves[0]), int(octaves[1])), rng)
    turned = _middle(rotate(noise[None], rng.uniform(-90.0, 90.0))[0], size)
    return np.asarray(turned > _MASK_LEVEL, np.float32)


def procedural_texture(size: Size, rng: Rng) -> Image:
    """A coloured texture from noise: a few octaves, sometimes banded, mapped along a random colour axis.

    Returns:
        float32 (3, *size) in [0, 1].
    """
    side = max(size)
    field = np.zeros((side, side), np.float32)
    first = int(rng.integers(0, 5))
    for octave in range(first, min(first + 3, 7)):
        stretch = int(rng.integers(0, 3))
        field += 0.6 ** (octave - first) * perlin_noise(side, (2**octave, 2 ** min(octave + stretch, 7)), rng)
    if rng.random() < 0.4:
        field = np.sin(rng.uniform(2.0, 12.0) * math.pi * field)
    field = _middle(field, size)
    grain = rng.normal(0.0, rng.uniform(0.0, 0.15), (3, *size)).astype(np.float32)
    base, axis = rng.uniform(0.0, 1.0, (3, 1, 1)), rng.uniform(-0.6, 0.6, (3, 1, 1))
    return np.clip(base + axis * field + grain, 0.0, 1.0).astype(np.float32)


def _gamma(image: Image, rng: Rng) -> Image:
    return image ** rng.uniform(0.5, 2.0, (3, 1, 1)).astype(np.float32)


def _brightness(image: Image, rng: Rng) -> Image:
    gain, offset = np.float32(rng.uniform(0.8, 1.2)), np.float32(rng.uniform(-30.0, 30.0) / 255.0)
    return np.asarray(image * gain + offset)


def _sharpness(image: Image, rng: Rng) -> Image:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = image.shape[1:]
    windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    blurred = np.asarray(sum(windows[1:], windows[0]) / np.float32(9.0))
    return image + np.float32(rng.uniform(0.5, 2.0)) * (image - blurred)


def _hue_saturation(image: Image, rng: Rng) -> Image:
    """Turn the colours about the grey axis and scale their distance from it."""
    angle, gain = rng.uniform(-math.pi / 3.0, math.pi / 3.0), rng.uniform(0.8, 1.2)
    grey = np.full((3, 3), 1.0 / 3.0)
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    turn = grey + gain * (math.cos(angle) * (np.eye(3) - grey) + math.sin(angle) * cross)
    return np.asarray(np.einsum("ij,jhw->ihw", turn.astype(np.float32), image))


def _solarise(image: Image, rng: Rng) -> Image:
    return np.where(image > np.float32(rng.uniform(32.0, 128.0) / 255.0), 1.0 - image, image)


def _posterise(image: Image, rng: Rng) -> Image:
    levels = np.float32(2 ** rng.integers(1, 6))
    return np.asarray(np.floor(image * levels) / levels)


def _invert(image: Image, rng: Rng) -> Image:  # noqa: ARG001
    return 1.0 - image


def _autocontrast(image: Image, rng: Rng) -> Image:  # noqa: ARG001
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    return np.asarray((image - low) / np.maximum(high - low, np.float32(1e-6)))


def _equalise(image: Image, rng: Rng) -> Image:  # noqa: ARG001
    """Every channel's levels spread evenly over [0, 1]."""
    levels = np.rint(image * 255.0).astype(int)
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in levels])
    shares = (counts.cumsum(1) / image[0].size).astype(np.float32)
    return np.stack([table[channel] for table, channel in zip(shares, levels, strict=True)])


def _turn(image: Image, rng: Rng) -> Image:
    return rotate(image, rng.uniform(-45.0, 45.0))


AUGMENTATIONS: tuple[Callable[[Image, Rng], Image], ...] = (
    _gamma, _brightness, _sharpness, _hue_saturation, _solarise,
    _posterise, _invert, _autocontrast, _equalise, _turn,
)  # fmt: skip


def augment(texture: Image, rng: Rng) -> Image:
    """Three different augmentations of ten, in random order: float32 (3, H, W) in [0, 1] → the same."""
    for index in rng.permutation(len(AUGMENTATIONS))[:_NUM_AUGMENTATIONS]:
        texture = np.clip(AUGMENTATIONS[index](texture, rng), 0.0, 1.0).astype(np.float32)
    return texture


def make_pair(
    original: Image, *, texture: Callable[[Rng], Image], rng: Rng, rotation_share: float, clean_share: float
) -> Pair:
    """Rotate some good images, and put an anomaly into some.

    Args:
        original: good image, float32 (3, H, W).
        texture: draws an anomaly's texture, float32 (3, H, W).
        rng: generator of this image and epoch.
        rotation_share: share of images that are rotated by up to 90°.
        clean_share: share of images that stay without an anomaly.
    """
    if rng.random() < rotation_share:
        original = rotate(original, rng.uniform(-90.0, 90.0))
    mask = anomaly_mask((original.shape[1], original.shape[2]), rng)
    if rng.random() < clean_share:
        return Pair(original, original, np.zeros_like(mask))
    pasted = augment(texture(rng), rng)
    keep = np.float32(rng.uniform(0.0, 0.8))
    blended = (1.0 - keep) * pasted + keep * original
    return Pair(np.where(mask[None] > 0.0, blended, original).astype(np.float32), original, mask)


def stack_pairs(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Images float32 (N, 3, H, W), originals float32 (N, 3, H, W), masks float32 (N, H, W)."""
    stacked = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("image", "original", "mask"))
    images, originals, masks = (torch.from_numpy(item) for item in stacked)
    return images, originals, masks
