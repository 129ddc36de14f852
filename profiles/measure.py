"""Profiling from the command line's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.progress import Progress, silent
from ..runtime.engine import EngineOptions
from .profiler import keep_profiles, profile_many
from .report import ProfileComparison, check_deadlines
from .table import latency_table, method_table
from .timing import Schedule


@dataclass(frozen=True, kw_only=True)
class ProfileRequest:
    """How much to measure.

    Attributes:
        batches: batch sizes.
        num_runs: timed calls per batch size.
        num_warmup: untimed calls before them.
        num_cold_starts: fresh processes.
        deadline_ms: takt time, or None.
        with_samples: whether a report's to_dict() holds every timed call.
    """

    batches: tuple[int, ...] = (1,)
    num_runs: int = 200
    num_warmup: int = 20
    num_cold_starts: int = 1
    deadline_ms: float | None = None
    with_samples: bool = False


@dataclass(frozen=True)
class ProfileResult:
    """Profiles of one bundle on one or several engines, not yet filed.

    Attributes:
        bundle: what was measured.
        comparison: the engines side by side.
        with_samples: whether to_dict() holds every timed call.
    """

    bundle: Bundle
    comparison: ProfileComparison
    with_samples: bool

    def keep(self, *, record: Path | None = None) -> tuple[str, ...]:
        """File the reports in the bundle, or in the folder ``record``; returns warnings where that was not possible."""
        return keep_profiles(self.bundle, self.comparison.reports, record=record)

    def check(self) -> None:
        """Raise BudgetError where a call missed the deadline."""
        check_deadlines(self.comparison.reports)

    def to_dict(self) -> Mapping[str, Any]:
        """The one report, or {"profiles": …, "ratios": …} where several engines were measured."""
        reports = self.comparison.reports
        if len(reports) == 1:
            return reports[0].to_dict(with_samples=self.with_samples)
        return self.comparison.to_dict(with_samples=self.with_samples)

    def summary_lines(self) -> tuple[str, ...]:
        """The figures for people."""
        reports = self.comparison.reports
        lines = [line for report in reports for line in report.summary_lines()]
        return (*lines, "", latency_table(self.comparison), "", method_table(reports))


def measure(
    bundle: Bundle,
    engines: Sequence[str],
    *,
    request: ProfileRequest,
    options: EngineOptions,
    progress: Progress = silent,
) -> ProfileResult:
    """Profile a bundle on one or several engines, see ``profiles.profiler.profile_many``; ``keep`` files them."""
    comparison = profile_many(
        bundle,
        engines,
        options=options,
        batches=request.batches,
        schedule=Schedule(num_runs=request.num_runs, num_warmup=request.num_warmup),
        num_cold_starts=request.num_cold_starts,
        deadline_ms=request.deadline_ms,
        record=False,
        progress=progress,
    )
    return ProfileResult(bundle, comparison, request.with_samples)
