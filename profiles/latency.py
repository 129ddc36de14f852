"""Time samples to figures: every sample counts, nothing is clipped, percentiles are samples that occurred.

A percentile here is the nearest rank: the p-th percentile of R samples is the smallest of them that at least p % of
all are not above, which is sample number ceil(p R / 100) in ascending order. It is never interpolated, so it is a
latency that was really seen. With fewer than 1000 samples the 99.9th is therefore the maximum.
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
        min: the fastest.
        mean: arithmetic mean, outliers included.
        p50: the median by nearest rank; p90, p95, p99, p999 (99.9 %) likewise.
        max: the slowest.
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
    """The percentile of sorted samples (R,) by nearest rank; ``per_mille`` 500 is the median, 999 is p99.9."""
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
    """Every timed call in ns, in the order in which they were taken; ``device_ns`` is null without device events."""

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
        stages_ns: int64 (R, 3): upload, execute, download.
        device_ns: int64 (R,): ``execute`` by the device's own events; None where the device has none.
    """

    stages_ns: NDArray[np.int64]
    device_ns: NDArray[np.int64] | None

    @property
    def total_ns(self) -> NDArray[np.int64]:
        """int64 (R,): from before the upload to after the download."""
        return np.asarray(self.stages_ns.sum(axis=1))

    def stage(self, name: str) -> Latency:
        """Figures of one of STAGES."""
        return summarise(self.stages_ns[:, STAGES.index(name)])

    def to_dict(self) -> SamplesJson:
        """Plain JSON values: the samples in ns, in the order in which they were taken."""
        upload, execute, download = (self.stages_ns[:, i].tolist() for i in range(len(STAGES)))
        device = None if self.device_ns is None else self.device_ns.tolist()
        return {"upload_ns": upload, "execute_ns": execute, "download_ns": download, "device_ns": device}


@final
@dataclass(frozen=True)
class Deadline:
    """How often a call took longer than the line allows.

    Attributes:
        deadline_ms: time allowed for one call, copies included, whatever its batch.
        num_missed: calls that took longer.
        num_runs: calls timed.
    """

    deadline_ms: float
    num_missed: int
    num_runs: int

    @property
    def miss_rate(self) -> float:
        """Share of calls that missed, 0 to 1."""
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
        raise UsageError(f"--deadline-ms is {deadline_ms}; expected a time above 0, such as the takt of the line.")


def count_missed(samples: Samples, deadline_ms: float) -> Deadline:
    """Count the calls that took longer than ``deadline_ms``.

    Raises:
        UsageError: the deadline is not a positive time.
    """
    check_deadline_ms(deadline_ms)
    total_ns = samples.total_ns
    return Deadline(deadline_ms, int((total_ns > deadline_ms * _NS_PER_MS).sum()), len(total_ns))
