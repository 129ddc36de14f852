"""Training scans with their turned copies, drawn when they are needed: the same seed draws the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.errors import UsageError
from ...core.progress import Progress
from ...data.inputs.scan import is_measured
from ..training.scans import Scans, ScanSet
from ..training.task import BatchSource, Draw
from .turning import Plane, background_plane, turned_scan

_MEMORY_LIMIT_BYTES = 1 << 30


class Draws(NamedTuple):
    """How the copies of one scan are moved: the background, angles float64 (num,), shifts in metres (num, 3)."""

    plane: Plane
    angles: NDArray[np.float64]
    shifts: NDArray[np.float64]


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
        draws = self.draw(cloud, seed=seed, index=index)
        return [cloud, *(self.copy(cloud, scans, draws, number) for number in range(self.num))]

    def draw(self, cloud: NDArray[np.float32], *, seed: int, index: int) -> Draws:
        """Draw how the copies of a scan are moved."""
        rng = np.random.default_rng([seed, index])
        plane = background_plane(cloud[..., :3], rng)
        angles = np.deg2rad(rng.uniform(-self.largest_deg, self.largest_deg, self.num))
        return Draws(plane, angles, rng.uniform(-self.largest_shift_m, self.largest_shift_m, (self.num, 3)))

    def copy(self, cloud: NDArray[np.float32], scans: ScanSet, draws: Draws, number: int) -> NDArray[np.float32]:
        """Return one copy of a scan by its number, from 0."""
        copy = turned_scan(cloud, scans.rule.camera, draws.plane, angle_rad=float(draws.angles[number]))
        copy[..., :3] += np.where(is_measured(copy[..., :3])[..., None], draws.shifts[number], 0.0)
        return copy

    def every(self, scans: ScanSet, *, seed: int, progress: Progress) -> Iterator[Scans]:
        """Yield what a detector takes of every scan and its copies, one scan's at a time."""
        for index in range(len(scans)):
            yield scans.parts(self.of(scans, index, seed=seed))
            progress("statistics", index + 1, len(scans))


@final
class CopySource(BatchSource[Scans]):
    """Batches of scans and of their turned copies; an epoch has every one of them once.

    A copy is made when it is drawn; where all of them take less than a gibibyte, they are kept.

    Args:
        scans: the scans.
        copies: how they are multiplied; the same copies in every epoch.
        seed: seed of the draws.
    """

    def __init__(self, scans: ScanSet, copies: Copies, *, seed: int) -> None:
        self._scans, self._copies, self._seed = scans, copies, seed
        self._draws: dict[int, Draws] = {}
        self._kept: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._scans) * (self._copies.num + 1)

    def __getitem__(self, draw: Draw) -> Scans:
        return self.at(draw.indices)

    def at(self, indices: Tensor) -> Scans:
        """Return what a detector takes of the items at indices int64 (B,)."""
        return self._scans.parts([self._cloud(item) for item in indices.tolist()])

    def once(self, batch_size: int) -> Iterator[Scans]:
        """Yield every item once, in batches."""
        for part in torch.arange(len(self)).split(batch_size):
            yield self.at(part)

    def _cloud(self, item: int) -> NDArray[np.float32]:
        index, number = divmod(item, self._copies.num + 1)
        cloud = self._scans.cloud(index)
        if number == 0:
            return cloud
        if index not in self._draws:
            self._draws[index] = self._copies.draw(cloud, seed=self._seed, index=index)
        if item not in self._kept:
            copy = self._copies.copy(cloud, self._scans, self._draws[index], number - 1)
            if copy.nbytes * len(self) > _MEMORY_LIMIT_BYTES:
                return copy
            self._kept[item] = copy
        return self._kept[item]
