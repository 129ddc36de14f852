"""From cells to pixels: what each pixel's ray goes through, and the map that follows from it.

A pixel with a measurement looks at its own cell. Every pixel, with a measurement or without, also looks along its ray:
its score is the largest of the cells that the ray crosses. The largest and not the mean, since empty cells before and
behind what is wrong score nothing and would thin it out. Rays are followed on a coarser grid of pixels, between which
the map is interpolated; cells that fall between two rays belong to the nearest, so that none is overlooked. MVTec
3D-AD's paper says that scores are projected by the calibrated camera; all of this is our guess at how.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.camera import DivisionCamera
from ...core.inputs import VoxelPreprocessing
from ...core.size import Size
from ..nn.graph import SmoothUpsample

_NEAREST_M = 1e-6


def coarse_size(frame: Size, stride_px: int) -> Size:
    """Rows and columns of the grid of rays."""
    return -(-frame[0] // stride_px), -(-frame[1] // stride_px)


def ray_table(spec: VoxelPreprocessing, camera: DivisionCamera, *, stride_px: int) -> NDArray[np.int32]:
    """The cells that each ray of a coarse grid of pixels sees.

    Args:
        spec: the grid.
        camera: the camera, as it sees frames.
        stride_px: distance of the rays in pixels of the frame, at most.

    Returns:
        int32 (h · w, K): cells as ``VoxelPreprocessing.frames`` numbers them, in ascending order, each once; the number
        of cells, which is no cell, fills up. K is the largest number that a ray sees, 1 at least.
    """
    side, (height, width) = spec.num_cells, coarse_size(spec.frame_shape[:2], stride_px)
    rows = (np.arange(height) + 0.5) * spec.frame_height_px / height - 0.5
    columns = (np.arange(width) + 0.5) * spec.frame_width_px / width - 0.5
    rays = camera.unproject(*np.meshgrid(rows, columns, indexing="ij")).reshape(-1, 3)
    crossed = [_crossed(spec, ray_part, first) for first, ray_part in _in_parts(rays)]
    between = _centres(spec, camera, (height, width))
    keys = np.unique(np.concatenate([*crossed, between]))
    ray, cell = np.divmod(keys, side**3)
    counts = np.bincount(ray, minlength=height * width)
    table = np.full((height * width, max(1, int(counts.max(initial=0)))), side**3, np.int32)
    table[ray, np.arange(len(ray)) - np.repeat(np.cumsum(counts) - counts, counts)] = cell
    return table


def _in_parts(rays: NDArray[np.float64], num: int = 4096) -> list[tuple[int, NDArray[np.float64]]]:
    return [(first, rays[first : first + num]) for first in range(0, len(rays), num)]


def _cell_of(spec: VoxelPreprocessing, points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Number of the cell that holds each point, and whether the point lies in the grid."""
    side = spec.num_cells
    places = np.floor((points - spec.origin_m) * (side / spec.edge_m))
    is_inside = np.asarray(((places >= 0) & (places < side)).all(axis=-1))
    x, y, z = np.moveaxis(np.where(is_inside[..., None], places, 0).astype(np.int64), -1, 0)
    return (z * side + y) * side + x, is_inside


def _crossed(spec: VoxelPreprocessing, rays: NDArray[np.float64], first: int) -> NDArray[np.int64]:
    """Ray · G³ + cell of every cell that rays cross: from each plane between cells to the next a ray is in one."""
    side = spec.num_cells
    planes = spec.origin_m + np.arange(side + 1)[:, None] * (spec.edge_m / side)
    with np.errstate(divide="ignore", invalid="ignore"):
        depths = planes[None] / rays[:, None, :]
    depths = np.where(np.isfinite(depths) & (depths > _NEAREST_M), depths, _NEAREST_M)
    depths = np.sort(depths.reshape(len(rays), -1), axis=1)
    middles = (depths[:, 1:] + depths[:, :-1]) / 2.0
    cells, is_inside = _cell_of(spec, rays[:, None, :] * middles[..., None])
    # Between two planes that meet in a point nothing is crossed.
    is_inside &= depths[:, 1:] > depths[:, :-1]
    ray, place = np.nonzero(is_inside)
    return np.unique((first + ray) * side**3 + cells[ray, place])


def _centres(spec: VoxelPreprocessing, camera: DivisionCamera, size: Size) -> NDArray[np.int64]:
    """Ray · G³ + cell of every cell, for the ray nearest to where its centre appears."""
    side = spec.num_cells
    z, y, x = np.mgrid[:side, :side, :side].reshape(3, -1)
    centres = spec.origin_m + (np.stack([x, y, z], axis=1) + 0.5) * (spec.edge_m / side)
    rows, columns = camera.project(centres)
    row = np.floor((rows + 0.5) * size[0] / spec.frame_height_px)
    column = np.floor((columns + 0.5) * size[1] / spec.frame_width_px)
    is_seen = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    cell = np.flatnonzero(is_seen)
    return np.asarray((row[cell] * size[1] + column[cell]).astype(np.int64) * side**3 + cell)


@final
class CellsToPixels(nn.Module):
    """Scores of cells → anomaly map of pixels, and its maximum as the image's score.

    Args:
        table: int32 (h · w, K), see ``ray_table``.
        coarse: height and width of the grid of rays.
        frame: height and width of the frame, in pixels.

    Attributes:
        table: the table.
    """

    table: Tensor

    def __init__(self, table: Tensor, coarse: Size, frame: Size) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.upsample = SmoothUpsample(coarse, frame, sigma=0.0, align_corners=False)
        self._coarse, self._frame = coarse, frame

    def forward(self, scores: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """See from pixels.

        Args:
            scores: float32 (N, G, G, G), not negative.
            cells: int64 (N, H · W): each pixel's cell, G³ where nothing was measured.

        Returns:
            score float32 (N,), anomaly_map float32 (N, H, W).
        """
        # One cell more than there are, for what sees none: it scores nothing.
        padded = torch.nn.functional.pad(scores.flatten(1), (0, 1))
        seen = padded.index_select(1, self.table.flatten()).unflatten(1, tuple(self.table.shape)).amax(2)
        along = self.upsample(seen.unflatten(1, self._coarse))
        anomaly_map = torch.maximum(along, padded.gather(1, cells).unflatten(1, self._frame))
        return anomaly_map.amax((1, 2)), anomaly_map
