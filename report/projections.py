"""Where a detector of voxels finds a scan anomalous, seen along the three axes of its grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import enlarge_map
from ..core.inputs import InputSpec, VoxelPreprocessing
from ..core.spec import Frames
from ..data.inputs.scan import UNMEASURED_RGB
from ..data.inputs.voxel import VoxelInput
from .overlays import Tile, heat_map

#: What is seen along each axis of the grid, which are z, y and x.
_SIDES = (
    "along z, as the camera looks (x to the right, y down)",
    "along y, from the front (x to the right, z down)",
    "along x, from the side (y to the right, z down)",
)
#: The three of them in a sentence.
SIDES_WORDS = f"From top to bottom: {'; '.join(_SIDES)}"
_SMALLEST_PX, _GAP_PX = 192, 6
#: What projections are, in words.
PROJECTED = (
    "the map's scores placed at the points of their pixels, the largest along each axis of the grid; blue where no "
    "point is"
)


def projections(
    frame: Frames, anomaly_map: NDArray[np.float32], spec: InputSpec, *, limits: tuple[float, float]
) -> list[Tile]:
    """Maximum projections of an anomaly map along z, y and x; none where the input is no grid.

    A graph gives no scores of cells. What is projected are those of its map: each measured pixel's score is placed at
    its point's cell, and of all cells along the axis the largest is shown. A score that a pixel has from another cell
    along its ray, or without a measurement, is therefore shown where the pixel's point is, or not at all.

    Args:
        frame: float32 (H, W, 3 or 6), x, y, z in metres first.
        anomaly_map: float32 (h, w), the scan's.
        spec: the bundle's preprocessing.
        limits: map values shown as cold and as hot.

    Returns:
        Three images with their captions, cut down to the box of the grid, a cell being several pixels.
    """
    if not isinstance(spec, VoxelPreprocessing):
        return []
    grid = np.full(spec.num_cells**3, -np.inf)
    cells = VoxelInput(spec).cells(np.asarray(frame[..., :3], np.float32))
    is_measured = cells >= 0
    np.maximum.at(grid, cells[is_measured], enlarge_map(anomaly_map, spec)[is_measured])
    part = grid.reshape((spec.num_cells,) * 3)[_box(spec)]
    scale = -(-_SMALLEST_PX // max(part.shape))
    tiles = []
    for axis, words in enumerate(_SIDES):
        largest = part.max(axis=axis)
        has_point = np.isfinite(largest)
        shown = heat_map(np.where(has_point, largest, limits[0]), low=limits[0], high=limits[1])
        shown[~has_point] = UNMEASURED_RGB
        tiles.append((shown.repeat(scale, axis=0).repeat(scale, axis=1), words))
    return tiles


def projections_in_one(tiles: Sequence[Tile]) -> Tile:
    """Projections one above the other, on white."""
    width = max(image.shape[1] for image, _ in tiles)
    height = sum(image.shape[0] + _GAP_PX for image, _ in tiles) - _GAP_PX
    paper, top = np.full((height, width, 3), 255, np.uint8), 0
    for image, _ in tiles:
        paper[top : top + image.shape[0], : image.shape[1]] = image
        top += image.shape[0] + _GAP_PX
    return paper, "largest along z, y and x"


def _box(spec: VoxelPreprocessing) -> tuple[slice, ...]:
    """The cells of the grid, along z, y and x, that the box of the training set reaches into."""
    scale = spec.num_cells / spec.edge_m
    low, high = ((np.array(ends) - spec.origin_m) * scale for ends in (spec.box_low_m, spec.box_high_m))
    first = np.clip(np.floor(low), 0, spec.num_cells - 1).astype(int)
    last = np.clip(np.ceil(high), first + 1, spec.num_cells).astype(int)
    return tuple(slice(*ends) for ends in zip(first[::-1], last[::-1], strict=True))
