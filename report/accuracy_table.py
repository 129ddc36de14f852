"""Measured accuracy in the tables of Zheng et al. 2022, "the paper" in this folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, final

from ..bundle.atomic import write_atomic
from ..core.errors import UsageError
from ..core.inputs import DepthPreprocessing, VoxelPreprocessing
from ..core.progress import Progress, silent
from ..core.table import wrapped
from ..eval.accuracy.evaluate import Evaluation, EvaluationJson, TargetEvaluation, evaluate
from ..eval.accuracy.outputs import Source
from ..eval.accuracy.request import EvaluationRequest
from ..eval.masks import RESOLUTIONS, Resolution
from .published import PaperTable, paper_table, published

_WRITERS = {".md": PaperTable.markdown, ".csv": PaperTable.csv}


def check_table_file(path: Path | None, number: str | None) -> None:
    """Raise UsageError unless ``path`` is None, or names a Markdown or CSV file for the table ``number``."""
    if path and (number is None or path.suffix not in _WRITERS):
        raise UsageError(
            f"The file of the table (--table-file) is {path}, and the table (--table) is {number}; expected a name "
            f"that ends in {' or '.join(_WRITERS)}, and the number of a table. JSON comes with --json."
        )


class TabulatedJson(EvaluationJson):
    """An evaluation, and the paper's table; null where none is requested."""

    table: dict[str, Any] | None


@final
@dataclass(frozen=True, kw_only=True)
class TabulatedEvaluation:
    """An evaluation, and a table of the paper with its figures.

    Attributes:
        evaluation: all that was evaluated.
        table: the paper's table with measured rows; None where none is requested.
    """

    evaluation: Evaluation
    table: PaperTable | None

    def check(self) -> None:
        """Raise BadInputError where fewer of the images were used than was asked for."""
        self.evaluation.check()

    def to_dict(self) -> TabulatedJson:
        """Plain JSON values."""
        return {**self.evaluation.to_dict(), "table": None if self.table is None else self.table.to_dict()}

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people: warnings first, then the figures."""
        if self.table is None:
            return self.evaluation.summary_lines()
        warnings, lines = (map(wrapped, part) for part in (self.evaluation.warnings(), self.evaluation.verdict_lines()))
        return (*warnings, self.evaluation.figures(), *lines, "", self.table.text())

    def keep(self, *, table_file: Path | None = None) -> tuple[str, ...]:
        """Write the paper's table to a file.

        Args:
            table_file: Markdown or CSV, by the file's name, see ``check_table_file``; None writes nothing.

        Returns:
            No warning: a table that cannot be written is an error.

        Raises:
            OSError: the file cannot be written.
        """
        if table_file and self.table:
            write_atomic(table_file, _WRITERS[table_file.suffix](self.table).encode())
        return ()


def tabulate(
    targets: Sequence[Path],
    request: EvaluationRequest,
    *,
    table: str | None = None,
    save: Path | None = None,
    show: Callable[[TargetEvaluation], None] | None = None,
    progress: Progress = silent,
) -> TabulatedEvaluation:
    """Evaluate bundles and saved outputs, and put the figures into a table of the paper.

    Args:
        targets: bundles, or files of saved outputs.
        request: data set, engine, threshold, corrections.
        table: number of a table of Zheng et al. 2022; None for none.
        save: file for the outputs of the one target, or a folder for those of several.
        show: see ``evaluate``.
        progress: called after each image.

    Raises:
        UsageError: there is no such table; or there are several targets, and ``save`` is a file.
    """
    if table is not None:
        paper_table(table, {})
    evaluation = evaluate(targets, request, save=save, show=show, progress=progress)
    filled = _table(table, evaluation.items, request.resolution) if table else None
    return TabulatedEvaluation(evaluation=evaluation, table=filled)


def _row_names(name: str, bundle: str) -> Iterator[str]:
    """Candidate names for a row, the shortest first, so that no figure replaces another."""
    yield from (name, f"{name} ({bundle})")
    yield from (f"{name} ({bundle}, {number})" for number in count(2))


def _method(source: Source) -> str:
    """Name of a column of the paper: its 3D baselines have one each without and with colours."""
    has_rgb = isinstance(source.preprocessing, DepthPreprocessing | VoxelPreprocessing) and source.preprocessing.has_rgb
    return f"{source.detector}_rgb" if has_rgb else source.detector


def _table(number: str, items: Sequence[TargetEvaluation], resolution: Resolution) -> PaperTable:
    """Figures by method, precision and engine; bundles that share these and the category have rows of their own."""
    metric = published()["tables"][number]["metric"]
    measured: dict[str, dict[str, float]] = {}
    for item in items:
        source = item.outputs.source
        value = (item.corrected or item.accuracy).value(metric)
        if value is not None:
            name = f"{_method(source)} {source.precision} on {source.engine}"
            row = next(row for row in _row_names(name, source.bundle) if source.category not in measured.get(row, {}))
            measured.setdefault(row, {})[source.category] = value
    table = paper_table(number, measured)
    if metric == "image_auroc":
        return table
    return dataclasses.replace(table, title=f"{table.title} Measured rows: pixels {RESOLUTIONS[resolution]}.")
