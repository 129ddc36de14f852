"""Natural synthetic anomalies: patches of one good image, cloned seamlessly into another, and labels of their pixels.

Schlüter, Tan, Hou, Kainz, "Natural Synthetic Anomalies", arXiv 2109.15222, section 3; where the paper leaves a choice,
it is that of the authors' code. Images are uint8 (H, W, 3), masks uint8 (H, W) of 0 and 1. Everything follows from a
generator that the caller seeds.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...core.geometry import centre_crop_offset
from ...core.size import Size
from .natural_rules import GAMMA_OFFSET, GAMMA_SCALE, GAMMA_SHAPE, PatchRule, shows

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Label = NDArray[np.float32]
Rng = np.random.Generator

_RESIZE_DEVIATION = 0.5
_NUM_ATTEMPTS = 200
_OBJECT_MEDIAN_PX = 7
_LABEL_MEDIAN_PX = 5
_DISK_RADIUS_PX = 5
_DISK = np.hypot(*np.mgrid[-5:6, -5:6]) <= _DISK_RADIUS_PX
#: A pixel whose channels' mean changes by no more than this many of 255 levels is as it was.
_CHANGED_LEVELS = 1.0

#: What a patch needs, in order: an object to be cut from, a share of it, a place on the other image's, an effect there.
STEPS = ("object", "patch", "place", "change")

# Batches are made side by side by processes, which must not wait for each other's threads.
cv2.setNumThreads(1)


@dataclass(frozen=True, kw_only=True)
class ViewRule:
    """How training images are shifted, rotated and flipped.

    Attributes:
        crop_px: height and width of the view.
        shift_px: a view is cut at random out of the middle that is larger than it by this many pixels on each axis.
        rotation_degrees: largest rotation, either way, about the image's centre.
        flips_vertically: whether every other view is turned upside down.
    """

    crop_px: Size
    shift_px: int
    rotation_degrees: float
    flips_vertically: bool


class _Patch(NamedTuple):
    image: Image
    foreground: Mask


def view(image: Image, rule: ViewRule, rng: Rng) -> Image:
    """Cut a random view out of an image: uint8 (h, w, 3) → (*crop_px, 3); beyond its border an image is mirrored."""
    angle = math.radians(rng.uniform(-rule.rotation_degrees, rule.rotation_degrees))
    starts = [
        centre_crop_offset(size, crop + rule.shift_px) + int(rng.integers(rule.shift_px + 1))
        for size, crop in zip(image.shape[:2], rule.crop_px, strict=True)
    ]
    centre = np.array([(image.shape[1] - 1) / 2.0, (image.shape[0] - 1) / 2.0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    from_view = np.column_stack([turn, centre + turn @ (np.array(starts[::-1]) - centre)])
    height, width = rule.crop_px
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(image, from_view, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    is_flipped = rule.flips_vertically and rng.random() < 0.5
    return np.ascontiguousarray(seen[::-1] if is_flipped else seen, dtype=np.uint8)


def foreground(image: Image, background: tuple[int, int] | None) -> Mask:
    """Return 1 where a pixel's mean differs from the background's by more than the threshold, without its grain."""
    if background is None:
        return np.ones(image.shape[:2], np.uint8)
    level, threshold = background
    differs = np.abs(image.mean(axis=2) - level) > threshold
    return np.asarray(cv2.medianBlur(differs.astype(np.uint8), _OBJECT_MEDIAN_PX), np.uint8)


def add_anomaly(image: Image, source: Image, rule: PatchRule, rng: Rng) -> tuple[Image, Label]:
    """Clone patches of another good image into an image.

    Args:
        image: good image, uint8 (H, W, 3).
        source: another one of the same size, from which the patches come.
        rule: rule that draws them.
        rng: generator of this image and epoch.

    Returns:
        The image with its anomalies, uint8 (H, W, 3), and how anomalous each pixel is, float32 (H, W) in [0, 1]. Where
        no patch finds its place the image is unchanged, and the label 0.
    """
    objects = foreground(image, rule.background)
    changed, pasted = image, np.zeros(image.shape[:2], np.uint8)
    source_objects = foreground(source, rule.background)
    for number in range(rule.num_patches):
        if number > 0 and rng.random() < 0.5:
            continue
        patch = _draw_patch(source, source_objects, rule, rng)
        place = None if patch is None else _draw_place(patch, objects, rule, rng)
        if patch is None or place is None:
            continue
        changed = clone(patch.image, changed, place, mixes=rule.mixes)
        pasted[place] |= patch.foreground | objects[place]
    return changed, label(image, changed, pasted, rule)


def furthest_step(image: Image, source: Image, rule: PatchRule, rng: Rng) -> int:
    """How far a patch of an image gets on its way into another one, as an index into ``STEPS``.

    Args:
        image: see ``add_anomaly``.
        source: see there.
        rule: see there.
        rng: see there.
    """
    objects, source_objects = (foreground(item, rule.background) for item in (image, source))
    if not (objects.any() or source_objects.any()):
        return STEPS.index("object")
    patches = [_draw_patch(source, source_objects, rule, rng) for _ in range(rule.num_patches)]
    if not any(patches):
        return STEPS.index("patch")
    places = [_draw_place(patch, objects, rule, rng) for patch in patches if patch]
    return STEPS.index("change" if any(places) else "place")


def _draw_patch(source: Image, objects: Mask, rule: PatchRule, rng: Rng) -> _Patch | None:
    """Cut a patch with enough of an object, resized; None where none was found."""
    size = (source.shape[0], source.shape[1])
    limits = rule.limits_px(size)
    shares = GAMMA_OFFSET + rng.gamma(GAMMA_SHAPE, GAMMA_SCALE, 2)
    halves = [int(np.clip(share * min(size), *limit)) for share, limit in zip(shares, limits, strict=True)]
    for _ in range(_NUM_ATTEMPTS):
        centres = [int(rng.integers(low, side - low)) for side, (low, _) in zip(size, limits, strict=True)]
        window = tuple(
            slice(max(centre - half, 0), min(centre + half, side))
            for centre, half, side in zip(centres, halves, size, strict=True)
        )
        if objects[window].mean() > rule.object_share or rule.background is None:
            return _resized(_Patch(source[window], objects[window]), size, rule=rule, rng=rng)
    return None


def _resized(patch: _Patch, image_size: Size, *, rule: PatchRule, rng: Rng) -> _Patch:
    height, width = patch.foreground.shape
    new_height, new_width = rule.resized_px((height, width), rng.normal(1.0, _RESIZE_DEVIATION), image_size=image_size)
    resized = (cv2.resize(np.ascontiguousarray(item), (new_width, new_height)) for item in patch)
    image, objects = (np.asarray(item, np.uint8) for item in resized)
    return _Patch(image, objects)


def _draw_place(patch: _Patch, objects: Mask, rule: PatchRule, rng: Rng) -> tuple[slice, slice] | None:
    """Draw where a patch goes, so that its object lies on the image's; None where no place was found."""
    num_object = int(patch.foreground.sum())
    if rule.background is not None and not num_object > rule.object_share * patch.foreground.size:
        return None
    for _ in range(_NUM_ATTEMPTS):
        starts = [
            int(rng.integers(length // 2 + 1, side - length // 2 - 1)) - length // 2
            for length, side in zip(patch.foreground.shape, objects.shape, strict=True)
        ]
        rows, columns = (
            slice(start, start + length) for start, length in zip(starts, patch.foreground.shape, strict=True)
        )
        overlap = int((objects[rows, columns] & patch.foreground).sum())
        if rule.background is None or overlap > rule.overlap_share * num_object:
            return rows, columns
    return None


def clone(patch: Image, image: Image, place: tuple[slice, slice], *, mixes: bool) -> Image:
    """Blend a patch into an image by Poisson's equation, its outermost pixels left out.

    Args:
        patch: uint8 (h, w, 3).
        image: uint8 (H, W, 3).
        place: rows and columns of the image, h and w of them.
        mixes: keep the stronger gradient of patch and image at every pixel, rather than the patch's.

    Returns:
        The blended image; the image itself where the patch is too small to show.
    """
    if not shows((patch.shape[0], patch.shape[1])):
        return image
    height, width = patch.shape[0] - 2, patch.shape[1] - 2
    inside = np.zeros(patch.shape[:2], np.uint8)
    inside[1:-1, 1:-1] = 255
    # OpenCV puts the middle of the mask's bounding box there.
    centre = (place[1].start + 1 + width // 2, place[0].start + 1 + height // 2)
    mode = cv2.MIXED_CLONE if mixes else cv2.NORMAL_CLONE
    return np.asarray(cv2.seamlessClone(patch, image, inside, centre, mode), np.uint8)


def label(image: Image, changed: Image, pasted: Mask, rule: PatchRule) -> Label:
    """Return how anomalous each pixel is by how much it changed: the logistic labels of NSA, float32 (H, W)."""
    change = np.asarray(cv2.absdiff(image, changed)).sum(axis=2, dtype=np.float32) * pasted / 3.0
    is_changed = cv2.medianBlur((change > _CHANGED_LEVELS).astype(np.uint8), _LABEL_MEDIAN_PX)
    rows, columns = np.nonzero(is_changed)
    padded = np.pad(change * is_changed, _DISK_RADIUS_PX, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, _DISK.shape)[rows, columns][:, _DISK]
    middle = around.shape[1] // 2
    smooth = np.partition(around, middle, axis=1)[:, middle]
    labels = np.zeros(image.shape[:2], np.float32)
    # The logistic function, in a form that never overflows.
    labels[rows, columns] = 0.5 + 0.5 * np.tanh(0.5 * rule.steepness * (smooth - rule.middle))
    return labels
