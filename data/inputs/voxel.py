"""Voxels, from organised point clouds; RGB beside the points where the specification says so.

A frame is the cloud itself. Which cell each point lies in, and the mean colour of each cell, are computed here on the
host: cells in float64, so that no engine's rounding moves a point over an edge, and means because TensorRT RTX refuses
every scatter that adds. The graph then fills the grid by a scatter in which points of one cell write one value.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset", VISAPP 2022: a cell without a point is −1 in every
channel, an occupied one 1, or with RGB its points' mean colour in [0, 1]. That cells are cubes, and that points outside
the box count in the nearest cell, is our reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...core.inputs import VoxelPreprocessing
from ...core.spec import Frames
from .scan import AbstractScanInput, is_measured


@final
@dataclass(frozen=True)
class VoxelInput(AbstractScanInput[VoxelPreprocessing]):
    """x, y, z in metres, float32 (H, W, 3), (0, 0, 0) for none; with RGB (H, W, 6), colours from 0 to 255."""

    @property
    def orders(self) -> tuple[str, ...]:
        """``"xyz"``; with colours ``"xyz+rgb"`` or ``"xyz+bgr"``."""
        return ("xyz+rgb", "xyz+bgr") if self.spec.has_rgb else ("xyz",)

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """The box's along z."""
        return self.spec.box_low_m[2], self.spec.box_high_m[2]

    def depths(self, frame: Frames) -> NDArray[np.float32]:
        """Z."""
        return np.asarray(frame[:, :, 2], np.float32)

    def prepare(self, frames: Frames) -> Frames:
        """The cell of each pixel's point, and with RGB the mean colour of all points in that cell of the frame.

        Args:
            frames: float32 (N, H, W, 3 or 6).

        Returns:
            float32 (N, H, W, 1 or 4): the cell, counted from 0 as (z · G + y) · G + x, or −1 where nothing was
            measured; then colours in [0, 1], 0 where nothing was measured.
        """
        cells = self.cells(np.asarray(frames[..., :3], np.float32))
        parts = [cells[..., None].astype(np.float32)]
        if self.spec.has_rgb:
            colours = np.asarray(frames[..., 3:], np.float64) / 255.0
            parts.append(np.stack([self._means(*pair) for pair in zip(cells, colours, strict=True)]).astype(np.float32))
        return np.concatenate(parts, axis=-1)

    def cells(self, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """The cell of each point: float32 (…, 3) → int64 (…), −1 where nothing was measured."""
        num = self.spec.num_cells
        places = np.floor((points.astype(np.float64) - self.spec.origin_m) * (num / self.spec.edge_m))
        x, y, z = np.moveaxis(np.clip(places, 0, num - 1).astype(np.int64), -1, 0)
        return np.where(is_measured(points), (z * num + y) * num + x, -1)

    def _means(self, cells: NDArray[np.int64], colours: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean colour of each pixel's cell: int64 (H, W), float64 (H, W, 3) → float64 (H, W, 3)."""
        valid = cells >= 0
        index, num = cells[valid], self.spec.num_cells**3
        counts = np.bincount(index, minlength=num)
        means = np.zeros_like(colours)
        for channel in range(colours.shape[2]):
            sums = np.bincount(index, weights=colours[..., channel][valid], minlength=num)
            means[..., channel][valid] = sums[index] / counts[index]
        return means

    def of_cloud(self, cloud: NDArray[np.float32]) -> Frames:
        """The cloud itself."""
        return cloud

    def _distorted(self, patch: Frames) -> Frames:
        """Measured points mirrored at the middle of the box's depth, colours inverted."""
        turned = patch.copy()
        turned[..., 3:] = 255.0 - patch[..., 3:]
        ends = self.spec.box_low_m[2] + self.spec.box_high_m[2]
        turned[..., 2] = np.where(is_measured(np.asarray(patch[..., :3], np.float32)), ends - patch[..., 2], 0.0)
        return turned
