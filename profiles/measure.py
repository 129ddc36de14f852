"""The request and the result of the command ``profile``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.progress import Progress, silent
from ..runtime.engine import EngineOptions
from ..runtime.ranking import AUTO
from .profiler import keep_profiles, profile_many
from .report import ProfileComparison, check_deadlines
from .table import latency_table, method_table
from .timing import Schedule


@dataclass(frozen=True, kw_only=True)
class ProfileRequest:
    """What is measured, on which engines, and how often.

    Attributes:
        engines: names of the engines; the first is the baseline of the ratios. ``"auto"`` is allowed.
        options: choices about the engines, shared out as ``runtime.ranking.share_options`` says.
        batches: batch sizes.
        num_runs: number of timed calls per batch size.
        num_warmup: number of untimed calls before them.
        num_cold_starts: number of fresh processes per engine.
        deadline_ms: time in ms that a call may take, or None for no deadline.
        with_samples: whether a report's ``to_dict()`` holds the time of every call.
    """

    engines: tuple[str, ...] = (AUTO,)
    options: EngineOptions = field(default_factory=EngineOptions)
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
        bundle: bundle that was measured.
        comparison: reports of the engines, side by side.
        with_samples: whether ``to_dict()`` holds the time of every call.
    """

    bundle: Bundle
    comparison: ProfileComparison
    with_samples: bool

    def keep(self, *, record: Path | None = None) -> tuple[str, ...]:
        """File the reports.

        Args:
            record: folder that gets them; None files them in the bundle.

        Returns:
            One warning per report that could not be filed.
        """
        return keep_profiles(self.bundle, self.comparison.reports, record=record)

    def check(self) -> None:
        """Check that no call missed the deadline.

        Raises:
            BudgetError: A call missed it; the message names the engine and the batch size.
        """
        check_deadlines(self.comparison.reports)

    def to_dict(self) -> Mapping[str, Any]:
        """The one report, or {"reports": …, "ratios": …} where several engines were measured."""
        reports = self.comparison.reports
        if len(reports) == 1:
            return reports[0].to_dict(with_samples=self.with_samples)
        return self.comparison.to_dict(with_samples=self.with_samples)

    def summary_lines(self) -> tuple[str, ...]:
        """The figures for people."""
        reports = self.comparison.reports
        lines = [line for report in reports for line in report.summary_lines()]
        return (*lines, "", latency_table(self.comparison), "", method_table(reports))


def measure(bundle: Bundle, request: ProfileRequest, *, progress: Progress = silent) -> ProfileResult:
    """Profile a bundle on one or several engines. Nothing is filed: the result's ``keep`` does that.

    Args:
        bundle: bundle to profile.
        request: what is measured, on which engines, and how often.
        progress: called after each block of calls.

    Raises:
        UsageError: there is no such engine, one is named twice, or the bundle does not take one of the batches.
        EnvironmentMissingError: an engine cannot run here.
    """
    comparison = profile_many(
        bundle,
        request.engines,
        options=request.options,
        batches=request.batches,
        schedule=Schedule(num_runs=request.num_runs, num_warmup=request.num_warmup),
        num_cold_starts=request.num_cold_starts,
        deadline_ms=request.deadline_ms,
        record=False,
        progress=progress,
    )
    return ProfileResult(bundle, comparison, request.with_samples)
