"""Training scans with their turned copies, drawn when they are needed: the same seed draws the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ...core.progress import Progress
from ...data.inputs.scan import is_measured
from ..training.scans import Scans, ScanSet
from .turning import background_plane, turned_scan


@final
@dataclass(frozen=True, kw_only=True)
class Copies:
    """How training scans are multiplied.

    Attributes:
        num: copies of each scan besides itself.
        largest_deg: angles are drawn evenly from minus this to this, in degrees.
        largest_shift_m: copies are then moved along x, y and z, each drawn evenly from minus this to this, in metres.
            Only for voxels: a pixel of a moved cloud sees another point.

    Raises:
        UsageError: a value is out of its range.
    """

    num: int
    largest_deg: float
    largest_shift_m: float = 0.0

    def __post_init__(self) -> None:
        if self.num < 0 or not 0.0 <= self.largest_deg <= 180.0 or not self.largest_shift_m >= 0.0:
            raise UsageError(
                f"copies is {self.num}, rotation_deg {self.largest_deg}, the largest shift {self.largest_shift_m} m; "
                "expected 0 or more copies, 0 to 180 degrees, and a shift from 0."
            )

    def of(self, scans: ScanSet, index: int, *, seed: int) -> list[NDArray[np.float32]]:
        """Return a scan and its copies, as ``ScanSet.cloud`` gives it; each scan has draws of its own."""
        cloud = scans.cloud(index)
        if not self.num:
            return [cloud]
        rng = np.random.default_rng([seed, index])
        plane = background_plane(cloud[..., :3], rng)
        angles = np.deg2rad(rng.uniform(-self.largest_deg, self.largest_deg, self.num))
        shifts = rng.uniform(-self.largest_shift_m, self.largest_shift_m, (self.num, 3))
        clouds = [cloud]
        for angle, shift in zip(angles, shifts, strict=True):
            copy = turned_scan(cloud, scans.rule.camera, plane, angle_rad=float(angle))
            copy[..., :3] += np.where(is_measured(copy[..., :3])[..., None], shift, 0.0)
            clouds.append(copy)
        return clouds

    def every(self, scans: ScanSet, *, seed: int, progress: Progress) -> Iterator[Scans]:
        """Yield what a detector takes of every scan and its copies, one scan's at a time."""
        for index in range(len(scans)):
            yield scans.parts(self.of(scans, index, seed=seed))
            progress("statistics", index + 1, len(scans))
