"""The paper's Table 3 with the bundles that were measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..profiles.measure import ProfileRequest, ProfileResult, measure
from ..profiles.report import ProfileReport, check_deadlines
from ..runtime.engine import EngineOptions
from ..runtime.ranking import AUTO, fits, is_here, rank_engines
from .published import PaperTable, speed_table


@dataclass(frozen=True)
class SpeedTable:
    """Several bundles in the paper's Table 3, not yet filed.

    Attributes:
        measured: one per bundle.
        table: published and measured rows.
        with_samples: whether to_dict() holds every timed call.
    """

    measured: tuple[ProfileResult, ...]
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

    def summary_lines(self) -> tuple[str, ...]:
        """The table, and on what it was measured."""
        environment = self.reports[0].environment
        gpus = ", ".join(str(gpu) for gpu in environment["gpus"]) or "no GPU"
        where = f"Measured on {environment['cpu']}, {environment['num_cores']} cores, {gpus}; medians of batch 1."
        return (self.table.text(), where)


def check_table(number: str, request: ProfileRequest) -> None:
    """Raise UsageError unless this table can be filled by measuring so much; asked before any bundle is opened."""
    if number != "3":
        raise UsageError(f"--table is {number!r}; profile fills table 3. Another: lineproof evaluate --table {number}.")
    if request.batches != (1,):
        batches = ":".join(map(str, request.batches))
        raise UsageError(f"--table 3 is about single images; --batch is {batches}. Leave out --batch or --table.")


def measure_table(
    number: str,
    bundles: Sequence[Bundle],
    engines: Sequence[str],
    *,
    request: ProfileRequest,
    options: EngineOptions,
    progress: Progress = silent,
) -> SpeedTable:
    """Profile bundles one after the other and put them into the paper's Table 3.

    Args:
        number: ``"3"``, the table about speed.
        bundles: at least one.
        engines: ``["auto"]`` takes every engine that can run here.
        request: how much to measure.
        options: of the engines.
        progress: told after each block.

    Raises:
        UsageError: another table, or batches other than the paper's 1.
    """
    check_table(number, request)
    rows: dict[str, ProfileReport] = {}
    measured = []
    for bundle in bundles:
        names = rank_engines(bundle, fits, is_here) if list(engines) == [AUTO] else engines
        found = measure(bundle, names, request=request, options=options, progress=progress)
        measured.append(found)
        rows |= {_row(bundle, report): report for report in found.comparison.reports}
    table = speed_table({name: _figures(report) for name, report in rows.items()})
    return SpeedTable(tuple(measured), table, request.with_samples)


def _row(bundle: Bundle, report: ProfileReport) -> str:
    """Method first, then what a figure of speed depends on."""
    spec, backbone = bundle.manifest.preprocessing, report.figures.backbone or "no backbone"
    rows, columns = spec.axes
    size = f"{rows.crop_px}x{columns.crop_px} px"
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
