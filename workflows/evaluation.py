"""Accuracy on a data set, from bundles or from outputs that were saved: figures, the paper's tables, bad cases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from ..bundle.atomic import write_atomic
from ..bundle.store import open_bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..core.table import TERMINAL, aligned, wrapped
from ..core.threshold import check_threshold
from ..data.dataset import check_counts, open_dataset
from ..eval.accuracy import Accuracy, measure_accuracy
from ..eval.corrections import correct, read_corrections
from ..eval.outputs import Outputs, collect_outputs
from ..eval.outputs_file import open_outputs, save_outputs
from ..eval.published import PaperTable, paper_table, published
from ..runtime.engine import EngineOptions

_COLUMNS = ("bundle", "engine", "category", "image AUROC", "AP", "F1-max", "pixel AUROC", "AP", "F1-max", "AUPRO")
_WRITERS = {".md": PaperTable.markdown, ".csv": PaperTable.csv}


@final
@dataclass(frozen=True)
class Choice:
    """What to run, and how.

    Attributes:
        data: data set folder; None where only saved outputs are read.
        category: its category; None takes the one that the bundle was trained on.
        engine: engine, or ``"auto"``.
        options: of the engine.
        batch: frames per call.
        threshold: judge by this one instead of the bundle's.
        corrections: file of corrections to the ground truth.
        fpr_limit: end of the AUPRO integral.

    Raises:
        UsageError: a threshold that is not finite.
    """

    data: Path | None = None
    category: str | None = None
    engine: str = "auto"
    options: EngineOptions = field(default_factory=EngineOptions)
    batch: int = 1
    threshold: float | None = None
    corrections: Path | None = None
    fpr_limit: float = 0.3

    def __post_init__(self) -> None:
        # Before the pictures are run, which takes long, and not after.
        if self.threshold is not None:
            check_threshold(self.threshold)


@final
@dataclass(frozen=True)
class Evaluated:
    """One bundle, or one file of outputs.

    Attributes:
        outputs: as they came, judged by the threshold chosen.
        accuracy: their figures.
        corrected: figures with the corrected truth; None where nothing was corrected.
        problems: what the data set lacks, in sentences.
    """

    outputs: Outputs
    accuracy: Accuracy
    corrected: Accuracy | None
    problems: tuple[str, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of _COLUMNS: one row, and one for the corrected truth."""
        source = self.outputs.source
        rows = [(f"{source.bundle} {source.precision}", source.engine, source.category, *_cells(self.accuracy))]
        if self.corrected:
            rows.append(("  with corrections", "", "", *_cells(self.corrected)))
        return rows

    def sentences(self) -> list[str]:
        """Verdicts and what is odd, a line each."""
        source = self.outputs.source
        judged = self.corrected or self.accuracy
        lines = [f"{source.bundle} at threshold {source.threshold:.6g}: {judged.verdicts.sentence()}."]
        if judged.verdicts.missed:
            missed = ", ".join(f"{kind} {num} of {total}" for kind, (num, total) in judged.verdicts.missed.items())
            lines.append(f"  Accepted by type of defect: {missed}.")
        lines += [f"  Not judged: {file}: {reason}" for file, reason in source.skipped]
        return [*lines, *(f"  Data: {problem}" for problem in self.problems)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        source = self.outputs.source
        return {
            **{name: getattr(source, name) for name in ("bundle", "detector", "engine", "precision", "category")},
            "threshold": source.threshold,
            "num_frames": len(self.outputs),
            "skipped_frames": [{"file": file, "reason": reason} for file, reason in source.skipped],
            "data_problems": list(self.problems),
            "accuracy": self.accuracy.to_dict(),
            "corrected": None if self.corrected is None else self.corrected.to_dict(),
        }


@final
@dataclass(frozen=True)
class Evaluation:
    """All that was evaluated, and the paper's table where one was asked for."""

    items: tuple[Evaluated, ...]
    table: PaperTable | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        table = None if self.table is None else self.table.to_dict()
        return {"evaluated": [item.to_dict() for item in self.items], "table": table}

    def sentences(self) -> tuple[str, ...]:
        """The result for people."""
        figures = aligned(_COLUMNS, [row for item in self.items for row in item.rows()], width=TERMINAL)
        lines = [line for item in self.items for line in item.sentences()]
        if self.table is None:
            return (figures, *lines)
        return (figures, *map(wrapped, lines), "", self.table.text())

    def write_table(self, path: Path) -> None:
        """Write the paper's table as Markdown or CSV, by the file's name; see ``check_table_file``."""
        if self.table:
            write_atomic(path, _WRITERS[path.suffix](self.table).encode())


def check_table_file(path: Path | None, number: str | None) -> None:
    """Raise UsageError unless a table can be written to that file."""
    if path and (number is None or path.suffix not in _WRITERS):
        raise UsageError(
            f"--table-file is {path} and --table {number}; expected a name that ends in {' or '.join(_WRITERS)}, and "
            "the number of a table. JSON comes with --json."
        )


def _cells(accuracy: Accuracy) -> tuple[str, ...]:
    image, pixel = accuracy.image, accuracy.pixel
    values = [image.auroc, image.ap, image.f1_max]
    values += [None] * 4 if pixel is None else [pixel.auroc, pixel.ap, pixel.f1_max, pixel.aupro]
    return tuple("-" if value is None else f"{value:.4f}" for value in values)


@contextmanager
def target_outputs(target: Path, choice: Choice, *, progress: Progress = silent) -> Iterator[Outputs]:
    """Outputs of a bundle, which is run for it, or those saved in a file; judged by the threshold chosen.

    Raises:
        UsageError: a bundle without a data set.
        BadInputError: no such bundle, file or data set.
    """
    with tempfile.TemporaryDirectory(prefix="lineproof-") as scratch:
        outputs = _load(target, choice, Path(scratch), progress)
        yield outputs if choice.threshold is None else outputs.with_threshold(choice.threshold)


def _load(target: Path, choice: Choice, scratch: Path, progress: Progress) -> Outputs:
    if target.is_file():
        return open_outputs(target)
    bundle = open_bundle(target)
    if choice.data is None:
        raise UsageError(f"{target} is a bundle, and no pictures were given to run it on. Give --data DIR.")
    category = choice.category or bundle.manifest.training.category or None
    dataset = open_dataset(choice.data, category=category)
    return collect_outputs(
        bundle,
        dataset,
        engine=choice.engine,
        options=choice.options,
        batch=choice.batch,
        scratch=scratch,
        progress=progress,
    )


def evaluate(
    targets: Sequence[Path],
    choice: Choice,
    *,
    table: str | None = None,
    save: Path | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure the accuracy of bundles and saved outputs.

    Args:
        targets: bundles, or files that ``save`` wrote.
        choice: data set, engine, threshold, corrections.
        table: a table of the paper to put the figures into.
        save: file for the outputs of the one target, or a folder for those of several.
        progress: told after each picture.

    Raises:
        UsageError: no such table; or several targets and ``save`` is a file.
    """
    if table is not None:
        paper_table(table, {})
    if save and len(targets) > 1 and save.suffix:
        raise UsageError(f"--save-outputs is {save}, one file for {len(targets)} bundles. Give a folder.")
    items = []
    for target in targets:
        with target_outputs(target, choice, progress=progress) as outputs:
            items.append(_evaluate(outputs, choice))
            if save:
                save_outputs(outputs, _file(save, outputs))
    return Evaluation(tuple(items), _table(table, items) if table else None)


def _evaluate(outputs: Outputs, choice: Choice) -> Evaluated:
    accuracy = measure_accuracy(outputs, fpr_limit=choice.fpr_limit)
    corrected = None
    if choice.corrections:
        changed = correct(outputs, read_corrections(choice.corrections))
        corrected = measure_accuracy(changed, fpr_limit=choice.fpr_limit)
    return Evaluated(outputs, accuracy, corrected, _problems(outputs))


def _problems(outputs: Outputs) -> tuple[str, ...]:
    root = Path(outputs.source.root)
    return check_counts(open_dataset(root)) if root.is_dir() else ()


def _file(save: Path, outputs: Outputs) -> Path:
    if save.suffix:
        return save
    save.mkdir(parents=True, exist_ok=True)
    source = outputs.source
    return save / f"{source.bundle}-{source.precision}-{source.engine}.npz"


def _table(number: str, items: Sequence[Evaluated]) -> PaperTable:
    """Figures by method; precision and engine are named where a method was measured more than once."""
    metric = published()["tables"][number]["metric"]
    measured: dict[str, dict[str, float]] = {}
    for item in items:
        source = item.outputs.source
        value = (item.corrected or item.accuracy).value(metric)
        if value is not None:
            row = f"{source.detector} {source.precision} on {source.engine}"
            measured.setdefault(row, {})[source.category] = value
    return paper_table(number, measured)
