"""Where a pixel of the frame lies on the anomaly map: the geometry of resize and centre crop, written once.

Positions are continuous, in pixels, from the first pixel's outer edge: pixel i reaches from i to i + 1, its centre is
i + 0.5 (half-pixel centres, ``align_corners=False``). The graph resizes the frame, then cuts out the centre crop at a
whole row and column (``centre_crop_offset``); the map covers that crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from .linear import Matrix, antialias_matrix


def centre_crop_offset(size: int, crop: int) -> int:
    """First row of a centre crop, or of an image in a larger frame: half the margin, rounded to even (torchvision)."""
    return round((size - crop) / 2.0)


def nearest_pixels(num: int, size: int) -> NDArray[np.int64]:
    """Which of ``size`` pixels lies under the centre of each of ``num``: floor((i + 1/2) size / num), whole numbers.

    Args:
        num: number of pixels after a nearest-neighbour resize.
        size: number of pixels before it.

    Returns:
        int64 (num,), each from 0 to ``size`` − 1.
    """
    return np.asarray((2 * np.arange(num, dtype=np.int64) + 1) * size // (2 * num))


@final
@dataclass(frozen=True)
class Axis:
    """One axis of the preprocessing.

    Attributes:
        frame_px: size of the camera frame.
        resized_px: size after the resize.
        crop_px: size of the centre crop of the resized frame.
    """

    frame_px: int
    resized_px: int
    crop_px: int

    @property
    def is_unchanged(self) -> bool:
        """Whether the frame is neither resized nor cropped along this axis."""
        return self.frame_px == self.resized_px == self.crop_px

    @property
    def offset_px(self) -> int:
        """First pixel of the resized image that the crop keeps."""
        return centre_crop_offset(self.resized_px, self.crop_px)

    @property
    def matrix(self) -> Matrix:
        """Antialiased resize and crop as one matrix: float64 (crop_px, frame_px)."""
        return antialias_matrix(self.frame_px, self.resized_px)[self.offset_px : self.offset_px + self.crop_px]

    @property
    def edges_px(self) -> tuple[float, float]:
        """Both edges of the cropped region, in pixels of the frame."""
        ends = (self.offset_px, self.offset_px + self.crop_px)
        return ends[0] * self.frame_px / self.resized_px, ends[1] * self.frame_px / self.resized_px

    @property
    def seen(self) -> slice:
        """Pixels of the frame whose centres lie in the cropped region, its edges included.

        It is computed in whole numbers: (2 i + 1) · resized lies between twice the edges · frame.
        """
        low, high = 2 * self.offset_px * self.frame_px, 2 * (self.offset_px + self.crop_px) * self.frame_px
        first = -(-(low - self.resized_px) // (2 * self.resized_px))
        last = (high - self.resized_px) // (2 * self.resized_px)
        return slice(max(first, 0), min(last + 1, self.frame_px))

    def to_map(self, positions_px: NDArray[Any], num_map: int) -> NDArray[np.float64]:
        """Positions on the frame as positions on a map of ``num_map`` pixels."""
        resized = np.asarray(positions_px, np.float64) * self.resized_px / self.frame_px
        return np.asarray((resized - self.offset_px) * num_map / self.crop_px)

    def to_frame(self, positions: NDArray[Any], num_map: int) -> NDArray[np.float64]:
        """Positions on a map of ``num_map`` pixels as positions on the frame; undoes ``to_map``."""
        resized = np.asarray(positions, np.float64) * self.crop_px / num_map + self.offset_px
        return np.asarray(resized * self.frame_px / self.resized_px)


class Placed(Protocol):
    """Anything that says where its map lies on its frames: the preprocessing of any kind of input."""

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns."""
        ...


def seen_part(spec: Placed) -> tuple[slice, slice]:
    """Rows and columns of the frame that the detector sees, see ``Axis.seen``."""
    rows, columns = spec.axes
    return rows.seen, columns.seen


def enlarge_map(anomaly_map: NDArray[np.float32], spec: Placed) -> NDArray[np.float32]:
    """The anomaly map at the pixels of the frame: bilinear, half-pixel centres, held constant beyond the outer centres.

    Without a crop that is ``torch.nn.functional.interpolate(…, mode="bilinear", align_corners=False)``; with one, each
    seen pixel of the frame takes the value at its own centre, wherever that falls between the centres of the map.
    Computed in float64 and rounded once, so that equal values stay equal.

    Args:
        anomaly_map: float32 (h, w), covering the crop.
        spec: preprocessing of the bundle.

    Returns:
        float32, as many rows and columns as ``seen_part`` selects.
    """
    rows, columns = spec.axes
    values = np.asarray(anomaly_map)
    sides = zip((rows, columns), values.shape, strict=True)
    if all(side.frame_px == side.resized_px == side.crop_px == num_map for side, num_map in sides):
        return values
    taller = _interpolate(values.astype(np.float64), rows, axis=0)
    return _interpolate(taller, columns, axis=1).astype(np.float32)


def _interpolate(values: NDArray[np.float64], axis_px: Axis, *, axis: int) -> NDArray[np.float64]:
    """Values along one axis at the centres of the seen pixels."""
    num_map = values.shape[axis]
    centres = np.arange(axis_px.seen.start, axis_px.seen.stop) + 0.5
    at = np.clip(axis_px.to_map(centres, num_map) - 0.5, 0.0, num_map - 1.0)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, num_map - 1)
    fraction = (at - low)[:, None] if axis == 0 else at - low
    below = np.take(values, low, axis=axis)
    step = np.take(values, high, axis=axis) - below
    step *= fraction
    step += below
    return np.asarray(step)


def mask_on_map(mask: NDArray[np.bool_], spec: Placed, *, map_shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Each pixel of the map takes the mask at its centre: nearest, so that the mask stays a mask.

    Args:
        mask: bool (H, W) at the frame's size.
        spec: preprocessing of the bundle.
        map_shape: (h, w) of the map, which covers the crop.

    Returns:
        bool (h, w). What the crop cuts away counts nowhere.
    """
    places = []
    for axis_px, num_map in zip(spec.axes, map_shape, strict=True):
        centres = axis_px.to_frame(np.arange(num_map) + 0.5, num_map)
        places.append(np.clip(np.floor(centres).astype(np.int64), 0, axis_px.frame_px - 1))
    return np.asarray(mask[np.ix_(*places)])
