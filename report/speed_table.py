"""Table 3 of Zheng et al. 2022, "the paper's Table 3", with measured speeds of bundles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..core.spec import Preprocessing
from ..core.words import counted
from ..profiles.measure import ProfileRequest, ProfileResult, measure
from ..profiles.report import ProfileReport, check_deadlines
from ..runtime.ranking import AUTO, fits, is_here, rank_engines
from .published import PaperTable, speed_table


@dataclass(frozen=True)
class SpeedTable:
    """Profiles of several bundles in the paper's Table 3, not yet filed.

    Attributes:
        measured: one profile per bundle.
        table: published and measured rows.
        with_samples: whether ``to_dict`` lists every timed call.
    """

    measured: tuple[ProfileResult, ...]
    table: PaperTable
    with_samples: bool

    @property
    def reports(self) -> tuple[ProfileReport, ...]:
        """One per bundle and engine."""
        return tuple(report for result in self.measured for report in result.comparison.reports)

    def keep(self, *, record: Path | None = None) -> tuple[str, ...]:
        """File the reports in their bundles, or in the folder ``record``; returns warnings where that failed."""
        return tuple(warning for result in self.measured for warning in result.keep(record=record))

    def check(self) -> None:
        """Raise BudgetError where a call took longer than the deadline."""
        check_deadlines(self.reports)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        profiles = [report.to_dict(with_samples=self.with_samples) for report in self.reports]
        return {"profiles": profiles, "table": self.table.to_dict()}

    def summary_lines(self) -> tuple[str, ...]:
        """The table, and the hardware that it was measured on."""
        environment = self.reports[0].environment
        gpus = ", ".join(str(gpu) for gpu in environment["gpus"]) or "no GPU"
        where = (
            f"Measured on {environment['cpu']}, {counted(environment['num_cores'], 'core')}, {gpus}; "
            "medians of batch 1."
        )
        return (self.table.text(), where)


def check_table(number: str | None, request: ProfileRequest) -> None:
    """Raise UsageError unless ``number`` names no table, or Table 3, and then the request measures batch 1 alone."""
    if not number:
        return
    if number != "3":
        raise UsageError(
            f"table (--table) is {number!r}; profile fills the paper's Table 3 (Zheng et al. 2022). Accuracy: "
            f"lineproof evaluate --table {number}."
        )
    if request.batches != (1,):
        batches = ":".join(map(str, request.batches))
        raise UsageError(
            f"The paper's Table 3 (--table 3) is about single images; batches (--batch) is {batches}. Leave out "
            "--batch or --table."
        )


def profile_bundles(
    bundles: Sequence[Bundle], request: ProfileRequest, *, table: str | None = None, progress: Progress = silent
) -> ProfileResult | SpeedTable:
    """Profile a bundle, or put several into the paper's Table 3. Nothing is filed: the result's ``keep`` does that.

    Args:
        bundles: bundles to measure: exactly one without a table, at least one with it.
        request: engines, batches, number of calls and deadline of the measurement. In the table, ``"auto"`` alone
            measures every engine that can run here.
        table: ``"3"``, the table about speed; None for the bundle's own figures.
        progress: called after each block of calls.

    Raises:
        UsageError: ``table`` is another table, the request measures other batches than 1 for it, there is no such
            engine, one is named twice, or a bundle does not take one of the batches.
        EnvironmentMissingError: an engine cannot run here.
    """
    check_table(table, request)
    if not table:
        (bundle,) = bundles
        return measure(bundle, request, progress=progress)
    rows: dict[str, ProfileReport] = {}
    measured = []
    for bundle in bundles:
        names = tuple(rank_engines(bundle, fits, is_here)) if request.engines == (AUTO,) else request.engines
        result = measure(bundle, dataclasses.replace(request, engines=names), progress=progress)
        measured.append(result)
        rows |= {_row(bundle, report): report for report in result.comparison.reports}
    filled = speed_table({name: _figures(report) for name, report in rows.items()})
    return SpeedTable(tuple(measured), filled, request.with_samples)


def _row(bundle: Bundle, report: ProfileReport) -> str:
    """Name of a row: the method first, then backbone, size, precision, engine and bundle."""
    spec, backbone = bundle.manifest.preprocessing, report.figures.backbone or "no backbone"
    num_tiles, each = 0, spec
    if isinstance(spec, Preprocessing) and spec.tiles:
        num_tiles, each = spec.tiles.num(spec.frame_shape[:2]), spec.each
    rows, columns = each.axes
    size = f"{f'{num_tiles} tiles of ' if num_tiles else ''}{rows.crop_px}x{columns.crop_px} px"
    return f"{report.detector} {backbone} {size} {report.precision} on {report.engine} ({bundle.path.name})"


def _figures(report: ProfileReport) -> dict[str, float]:
    first, figures = report.batches[0], report.figures
    return {
        "fps": first.fps,
        "time_ms": first.latency.p50,
        "extra_parameters_m": figures.extra_parameters / 1e6,
        "constants_mb": figures.constants_bytes / 1e6,
        **({} if figures.gflop is None else {"gflop": figures.gflop}),
    }
