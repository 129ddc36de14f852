"""Depth images, from organised point clouds; RGB beside the depth where the specification says so.

A pixel without a measurement has depth 0: in the file, in a frame, and in what ``pad`` adds. ``stretch`` takes the
nearest pixel, depth and colour alike, so that no depth is invented between a measurement and a hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...core.inputs import DepthPreprocessing
from ...core.spec import Frames
from .scan import AbstractScanInput


@final
@dataclass(frozen=True)
class DepthInput(AbstractScanInput[DepthPreprocessing]):
    """Depth in metres, float32 (H, W, 1), 0 for none; with RGB (H, W, 4), colours from 0 to 255."""

    @property
    def orders(self) -> tuple[str, ...]:
        """``"depth"``; with colours ``"depth+rgb"`` or ``"depth+bgr"``."""
        return ("depth+rgb", "depth+bgr") if self.spec.has_rgb else ("depth",)

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """The specification's, in its quantity."""
        return self.spec.near_m, self.spec.far_m

    def depths(self, frame: Frames) -> NDArray[np.float32]:
        """The first channel."""
        return np.asarray(frame[:, :, 0], np.float32)

    def of_cloud(self, cloud: NDArray[np.float32]) -> Frames:
        """The depth of each point, in the specification's quantity, then its colours."""
        points = cloud[:, :, :3].astype(np.float64)
        depth = np.sqrt(np.square(points).sum(axis=2)) if self.spec.quantity == "range" else points[:, :, 2]
        return np.concatenate([depth[:, :, None].astype(np.float32), cloud[:, :, 3:]], axis=2)

    def _distorted(self, patch: Frames) -> Frames:
        """Measured depths mirrored between near and far, colours inverted."""
        turned = np.asarray(255.0 - patch, np.float32)
        depth = patch[:, :, 0]
        turned[:, :, 0] = np.where(depth == 0.0, 0.0, self.spec.near_m + self.spec.far_m - depth)
        return turned
