"""Latency figures from time samples. Every sample counts, nothing is clipped, and percentiles are not interpolated.

A percentile here is the nearest rank: the p-th percentile of R samples is sample number ceil(p R / 100) in ascending
order, the smallest one that at least p % of all samples do not exceed. It is therefore a latency that really
occurred. With fewer than 1000 samples the 99.9th percentile is the maximum.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypedDict, final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError

#: Parts of a call, in order: copy to the device, compute, copy back.
STAGES = ("upload", "execute", "download")

_NS_PER_MS = 1e6


@final
@dataclass(frozen=True, kw_only=True)
class Latency:
    """Figures of one series of samples, in ms.

    Attributes:
        min: the fastest sample.
        mean: arithmetic mean, outliers included.
        p50: median by nearest rank.
        p90: 90th percentile by nearest rank.
        p95: 95th percentile by nearest rank.
        p99: 99th percentile by nearest rank.
        p999: 99.9th percentile by nearest rank.
        max: the slowest sample.
    """

    min: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def nearest_rank(ascending: NDArray[np.int64], *, per_mille: int) -> int:
    """A percentile by nearest rank.

    Args:
        ascending: samples (R,) in ascending order, at least one.
        per_mille: percentile in thousandths: 500 is the median, 999 the 99.9th percentile.
    """
    rank = -(-per_mille * len(ascending) // 1000)
    return int(ascending[max(rank, 1) - 1])


def summarise(samples_ns: NDArray[np.int64]) -> Latency:
    """Reduce samples (R,) in ns to figures in ms.

    Raises:
        UsageError: there is no sample.
    """
    if not len(samples_ns):
        raise UsageError("There is no time sample to summarise; expected at least one. Ask for one run or more.")
    ascending = np.sort(samples_ns)
    ranks = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}
    figures = {name: nearest_rank(ascending, per_mille=rank) / _NS_PER_MS for name, rank in ranks.items()}
    return Latency(
        min=int(ascending[0]) / _NS_PER_MS,
        mean=float(ascending.mean()) / _NS_PER_MS,
        max=int(ascending[-1]) / _NS_PER_MS,
        **figures,
    )


class SamplesJson(TypedDict):
    """Times of every call in ns, in the order of the calls; ``device_ns`` is null where the device has no events."""

    upload_ns: list[int]
    execute_ns: list[int]
    download_ns: list[int]
    device_ns: list[int] | None


class DeadlineJson(TypedDict):
    """How often a call took longer than the line allows."""

    deadline_ms: float
    num_missed: int
    num_runs: int
    miss_rate: float


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """Every timed call of one engine at one batch size.

    Attributes:
        stages_ns: times of upload, execute and download in ns, int64 (R, 3) for R calls.
        device_ns: time of ``execute`` in ns by the device's own events, int64 (R,); None where the device has none.
    """

    stages_ns: NDArray[np.int64]
    device_ns: NDArray[np.int64] | None

    @property
    def total_ns(self) -> NDArray[np.int64]:
        """Time of each call in ns from before the upload to after the download, int64 (R,)."""
        return np.asarray(self.stages_ns.sum(axis=1))

    def stage(self, name: str) -> Latency:
        """Figures of one stage, named as in ``STAGES``."""
        return summarise(self.stages_ns[:, STAGES.index(name)])

    def to_dict(self) -> SamplesJson:
        """The samples in ns as plain JSON values, in the order of the calls."""
        upload, execute, download = (self.stages_ns[:, i].tolist() for i in range(len(STAGES)))
        device = None if self.device_ns is None else self.device_ns.tolist()
        return {"upload_ns": upload, "execute_ns": execute, "download_ns": download, "device_ns": device}


@final
@dataclass(frozen=True)
class Deadline:
    """How often a call took longer than the line allows.

    Attributes:
        deadline_ms: time in ms that a call may take, copies included, whatever its batch size.
        num_missed: number of calls that took longer.
        num_runs: number of timed calls.
    """

    deadline_ms: float
    num_missed: int
    num_runs: int

    @property
    def miss_rate(self) -> float:
        """Share of the calls that missed the deadline, 0 to 1."""
        return self.num_missed / self.num_runs

    def to_dict(self) -> DeadlineJson:
        """Plain JSON values."""
        return {
            "deadline_ms": self.deadline_ms,
            "num_missed": self.num_missed,
            "num_runs": self.num_runs,
            "miss_rate": self.miss_rate,
        }


def check_deadline_ms(deadline_ms: float) -> None:
    """Raise UsageError unless the deadline is a positive time."""
    if not deadline_ms > 0:
        raise UsageError(
            f"deadline_ms (--deadline-ms) is {deadline_ms}; expected a time above 0, such as the takt of the line."
        )


def count_missed(samples: Samples, deadline_ms: float) -> Deadline:
    """Count the calls that took longer than ``deadline_ms``.

    Raises:
        UsageError: the deadline is not a positive time.
    """
    check_deadline_ms(deadline_ms)
    total_ns = samples.total_ns
    return Deadline(deadline_ms, int((total_ns > deadline_ms * _NS_PER_MS).sum()), len(total_ns))
