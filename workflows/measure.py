"""Profiling from the command line's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..profiles.profiler import keep_profiles, profile_many
from ..profiles.report import ProfileComparison, ProfileReport, check_deadlines
from ..profiles.table import latency_table, method_table
from ..profiles.timing import Schedule
from ..report.published import PaperTable, speed_table
from ..runtime.engine import AUTO_ORDER, EngineOptions, availability, resolve_auto
from .find import all_bundles, open_named


@dataclass(frozen=True)
class Effort:
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
class Measured:
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

    def to_dict(self) -> dict[str, Any]:
        """The one report, or {"profiles": …, "ratios": …} where several engines were measured."""
        reports = self.comparison.reports
        if len(reports) == 1:
            return reports[0].to_dict(with_samples=self.with_samples)
        return self.comparison.to_dict(with_samples=self.with_samples)

    def sentences(self) -> tuple[str, ...]:
        """The figures for people."""
        reports = self.comparison.reports
        lines = [line for report in reports for line in report.sentences()]
        return (*lines, "", latency_table(self.comparison), "", method_table(reports))


def measure(
    bundle: Bundle,
    engines: Sequence[str],
    *,
    effort: Effort,
    options: EngineOptions,
    progress: Progress = silent,
) -> Measured:
    """Profile a bundle on one or several engines, see ``profiles.profiler.profile_many``; ``keep`` files them."""
    names = [resolve_auto(bundle, name, options=options) for name in engines]
    comparison = profile_many(
        bundle,
        names,
        options=options,
        batches=effort.batches,
        schedule=Schedule(num_runs=effort.num_runs, num_warmup=effort.num_warmup),
        num_cold_starts=effort.num_cold_starts,
        deadline_ms=effort.deadline_ms,
        record=False,
        progress=progress,
    )
    return Measured(bundle, comparison, effort.with_samples)


@dataclass(frozen=True)
class MeasuredTable:
    """Several bundles in the paper's Table 3, not yet filed.

    Attributes:
        measured: one per bundle.
        table: published and measured rows.
        with_samples: whether to_dict() holds every timed call.
    """

    measured: tuple[Measured, ...]
    table: PaperTable
    with_samples: bool

    @property
    def reports(self) -> tuple[ProfileReport, ...]:
        """One per bundle and engine."""
        return tuple(report for found in self.measured for report in found.comparison.reports)

    def keep(self, *, record: Path | None = None) -> tuple[str, ...]:
        """File the reports in their bundles, or in the folder ``record``; returns warnings where that failed."""
        return tuple(warning for found in self.measured for warning in found.keep(record=record))

    def check(self) -> None:
        """Raise BudgetError where a call missed the deadline."""
        check_deadlines(self.reports)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        profiles = [report.to_dict(with_samples=self.with_samples) for report in self.reports]
        return {"profiles": profiles, "table": self.table.to_dict()}

    def sentences(self) -> tuple[str, ...]:
        """The table, and on what it was measured."""
        environment = self.reports[0].environment
        gpus = ", ".join(str(gpu) for gpu in environment["gpus"]) or "no GPU"
        where = f"Measured on {environment['cpu']}, {environment['num_cores']} cores, {gpus}; medians of batch 1."
        return (self.table.text(), where)


def measure_table(
    number: str,
    paths: Sequence[Path],
    engines: Sequence[str],
    *,
    effort: Effort,
    options: EngineOptions,
    precision: str | None = None,
    progress: Progress = silent,
) -> MeasuredTable:
    """Profile bundles one after the other and put them into the paper's Table 3.

    Args:
        number: ``"3"``, the table about speed.
        paths: bundles; empty takes every ``*.bundle`` here.
        engines: ``["auto"]`` takes every engine that can run here.
        effort: how much to measure.
        options: of the engines.
        precision: refuse a bundle of another.
        progress: told after each block.

    Raises:
        UsageError: another table, batches other than the paper's 1, or a bundle of another precision.
        BadInputError: no bundle here.
    """
    if number != "3":
        raise UsageError(f"--table is {number!r}; profile fills table 3. Another: lineproof evaluate --table {number}.")
    if effort.batches != (1,):
        batches = ":".join(map(str, effort.batches))
        raise UsageError(f"--table 3 is about single pictures; --batch is {batches}. Leave out --batch or --table.")
    bundles = [open_named(path, precision=precision) for path in paths or all_bundles()]
    rows: dict[str, ProfileReport] = {}
    measured = []
    for bundle in bundles:
        names = [*_present(bundle)] if list(engines) == ["auto"] else list(engines)
        found = measure(bundle, names, effort=effort, options=options, progress=progress)
        measured.append(found)
        rows |= {_row(bundle, report): report for report in found.comparison.reports}
    table = speed_table({name: _figures(report) for name, report in rows.items()})
    return MeasuredTable(tuple(measured), table, effort.with_samples)


def _present(bundle: Bundle) -> Iterator[str]:
    planned = {plan.engine for plan in bundle.manifest.plans}
    for name in AUTO_ORDER:
        if availability(name).is_available and (name in planned or not name.startswith("trt")):
            yield name


def _row(bundle: Bundle, report: ProfileReport) -> str:
    """Method first, then what a figure of speed depends on."""
    spec, backbone = bundle.manifest.preprocessing, report.figures.backbone or "no backbone"
    size = f"{spec.crop_height_px}x{spec.crop_width_px} px"
    return f"{report.detector} {backbone} {size} {report.precision} on {report.engine} ({bundle.path.name})"


def _figures(report: ProfileReport) -> dict[str, float]:
    first, figures = report.batches[0], report.figures
    return {
        "fps": first.fps,
        "time_ms": first.latency.p50,
        "extra_parameters_m": figures.extra_parameters / 1e6,
        "constants_mb": figures.constants_bytes / 1e6,
        "gflop": sum(figures.flops.values()) / 1e9,
    }
