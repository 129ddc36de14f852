"""Training scans: decoded, prepared as on the line, passed through the graph's own part, and batched by index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.errors import BadInputError
from ...core.inputs import DepthPreprocessing, ScanRule, VoxelPreprocessing
from ...data.inputs.scan import AbstractScanInput, read_scan
from ...data.inputs.table import input_of
from ..nn.graph import graph_part

_MEMORY_LIMIT_BYTES = 1 << 30

#: What a detector of scans takes: scaled depth images and what was measured, or filled grids and each pixel's cell.
Scans = tuple[Tensor, Tensor]


@final
class ScanSet:
    """Scans by path, delivered as the graph's part hands them to a detector.

    Args:
        paths: scans, see ``data.inputs.scan``.
        rule: how scans become what the detector takes.

    Attributes:
        paths: the scans.
        rule: how scans become what the detector takes.
        num_tiles: 1, as an ``ImageSet`` has it: scans are not cut.

    Raises:
        BadInputError: there are no paths.
    """

    num_tiles = 1

    def __init__(self, paths: Sequence[Path], rule: ScanRule) -> None:
        if not paths:
            raise BadInputError("There is no scan to train on. Expected good scans under train/good/xyz and rgb.")
        self.paths, self.rule = tuple(paths), rule
        self._reader = cast(AbstractScanInput[DepthPreprocessing | VoxelPreprocessing], input_of(rule.spec))
        self._part = graph_part(rule.spec)
        self._kept: dict[int, NDArray[np.float32]] = {}
        channels = 6 if rule.spec.has_rgb else 3
        self._may_keep = 4 * channels * math.prod(self._reader.frame_size) * len(paths) <= _MEMORY_LIMIT_BYTES

    def __len__(self) -> int:
        return len(self.paths)

    def cloud(self, index: int) -> NDArray[np.float32]:
        """The scan at an index, brought to the frame: float32 (H, W, 3), with RGB (H, W, 6), see ``read_scan``."""
        if index in self._kept:
            return self._kept[index]
        scan, _ = read_scan(self.paths[index], has_rgb=self.rule.spec.has_rgb)
        cloud = np.asarray(self._reader.fit(scan), np.float32)
        if self._may_keep:
            self._kept[index] = cloud
        return cloud

    def batch(self, indices: Sequence[int]) -> Scans:
        """Return what a detector takes of the scans at these indices."""
        return self.parts([self.cloud(index) for index in indices])

    def parts(self, clouds: Sequence[NDArray[np.float32]]) -> Scans:
        """Return what a detector takes of clouds as ``cloud`` gives them, also of turned copies."""
        frames = np.stack([self._reader.of_cloud(cloud) for cloud in clouds])
        with torch.no_grad():
            values, places = self._part(torch.from_numpy(np.ascontiguousarray(self._reader.prepare(frames))))
        return values, places
