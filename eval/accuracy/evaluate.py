"""Evaluation: accuracy of bundles, or of saved outputs, on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, final

from ...core.errors import UsageError
from ...core.progress import Progress, silent
from ...core.table import TERMINAL, aligned
from ...core.used import UsedJson, UsedShare
from ...data.notes import DataJson, DataNotes
from ...metrics.operating import OperatingJson, OperatingTable, operating_table
from ..masks import Resolution
from .corrections import correct, read_corrections
from .outputs import Outputs
from .outputs_file import save_outputs
from .report import Accuracy, AccuracyJson, measure_accuracy
from .request import EvaluationRequest, target_outputs

_COLUMNS = (
    "bundle",
    "engine",
    "category",
    "image AUROC",
    "AP",
    "F1-max",
    "pixels of",
    "AUROC",
    "AP",
    "F1-max",
    "AUPRO",
)


class EvaluatedJson(TypedDict):
    """Accuracy of one bundle, or of one file of outputs; ``corrected`` is null where no ground truth was corrected."""

    bundle: str
    detector: str
    engine: str
    precision: str
    category: str
    threshold: float
    parity: str
    num_frames: int
    used: UsedJson
    data: DataJson
    count_notes: list[str]
    conversions: list[str]
    part_note: str
    accuracy: AccuracyJson
    corrected: AccuracyJson | None
    operating: OperatingJson


class EvaluationJson(TypedDict):
    """All that was evaluated, and the resolution at which maps and masks were compared."""

    pixel_resolution: Resolution
    evaluated: list[EvaluatedJson]


@final
@dataclass(frozen=True, kw_only=True)
class TargetEvaluation:
    """Accuracy of one bundle, or of one file of outputs.

    Attributes:
        outputs: scores, maps and truth of the images, judged by the threshold of the request.
        accuracy: figures by the ground truth of the data set.
        corrected: figures by the corrected ground truth; None where nothing was corrected.
        operating: false rejects and false accepts at several thresholds, by the corrected truth where there is one.
    """

    outputs: Outputs
    accuracy: Accuracy
    corrected: Accuracy | None
    operating: OperatingTable

    @property
    def used(self) -> UsedShare:
        """How many of the data set's test images were used."""
        return self.outputs.used

    def warnings(self, *, lists_all: bool = False) -> list[str]:
        """Warnings that stand above the figures, a line each; ``lists_all`` names every image that was not used."""
        lines = [*self.operating.warnings(), *self.used.lines(lists_all=lists_all)]
        return [f"{self.outputs.source}: {line}" if line[0] != " " else line for line in lines]

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of the table of figures: one, and a second one for the corrected ground truth."""
        source = self.outputs.source
        rows = [(f"{source.bundle} {source.precision}", source.engine, source.category, *_cells(self.accuracy))]
        if self.corrected:
            rows.append(("  with corrections", "", "", *_cells(self.corrected)))
        return rows

    def summary_lines(self) -> list[str]:
        """Verdicts, missing data and the operating table, a line each."""
        source = self.outputs.source
        judged = self.corrected or self.accuracy
        lines = [f"{source.bundle} at threshold {source.threshold:.6g}: {judged.verdicts.sentence()}."]
        if judged.verdicts.missed:
            missed = ", ".join(f"{kind} {num} of {total}" for kind, (num, total) in judged.verdicts.missed.items())
            lines.append(f"  Accepted by type of defect: {missed}.")
        if judged.pixel:
            lines.append(f"  {judged.pixel_sentence()}")
        lines += [f"  Data: {note}" for note in source.count_notes]
        return [*lines, *self.operating.summary_lines()]

    def to_dict(self) -> EvaluatedJson:
        """Plain JSON values."""
        source = self.outputs.source
        return {
            "bundle": source.bundle,
            "detector": source.detector,
            "engine": source.engine,
            "precision": source.precision,
            "category": source.category,
            "threshold": source.threshold,
            "parity": source.parity,
            "num_frames": len(self.outputs),
            "used": self.used.to_dict(),
            "data": source.data.to_dict(),
            "count_notes": list(source.count_notes),
            "conversions": list(source.conversions),
            "part_note": source.part_note,
            "accuracy": self.accuracy.to_dict(),
            "corrected": None if self.corrected is None else self.corrected.to_dict(),
            "operating": self.operating.to_dict(),
        }


@final
@dataclass(frozen=True)
class Evaluation:
    """All that was evaluated.

    Attributes:
        items: one for each bundle or file.
        request: the request that was evaluated.
    """

    items: tuple[TargetEvaluation, ...]
    request: EvaluationRequest

    def check(self) -> None:
        """Raise BadInputError where fewer of the images were used than was asked for."""
        for item in self.items:
            item.used.check(self.request.min_used)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about the images, each sentence once."""
        return tuple(dict.fromkeys(note for item in self.items for note in item.outputs.source.notices))

    @property
    def data(self) -> tuple[DataNotes, ...]:
        """Descriptions of the data sets, each once."""
        return tuple(dict.fromkeys(item.outputs.source.data for item in self.items))

    def to_dict(self) -> EvaluationJson:
        """Plain JSON values."""
        return {"pixel_resolution": self.request.resolution, "evaluated": [item.to_dict() for item in self.items]}

    def warnings(self) -> list[str]:
        """Warnings that stand above the figures."""
        return [line for item in self.items for line in item.warnings(lists_all=self.request.lists_all)]

    def figures(self) -> str:
        """One row of figures for each bundle or file."""
        return aligned(_COLUMNS, [row for item in self.items for row in item.rows()], width=TERMINAL)

    def verdict_lines(self) -> list[str]:
        """Verdicts, missing data and the operating table of each bundle or file."""
        return [line for item in self.items for line in item.summary_lines()]

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people: warnings first, then the figures."""
        return (*self.warnings(), self.figures(), *self.verdict_lines())


def _cells(accuracy: Accuracy) -> tuple[str, ...]:
    image, pixel = accuracy.image, accuracy.pixel
    of_pixels = [None] * 4 if pixel is None else [pixel.auroc, pixel.ap, pixel.f1_max, pixel.aupro]
    left, right = (
        ["-" if value is None else f"{value:.4f}" for value in values]
        for values in ((image.auroc, image.ap, image.f1_max), of_pixels)
    )
    return (*left, accuracy.resolution if pixel else "-", *right)


def evaluate(
    targets: Sequence[Path],
    request: EvaluationRequest,
    *,
    save: Path | None = None,
    show: Callable[[TargetEvaluation], None] | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure the accuracy of bundles and saved outputs.

    Args:
        targets: bundles, or files that ``save`` wrote.
        request: data set, engine, threshold, corrections.
        save: file for the outputs of the one target, or a folder for those of several.
        show: called with each result while its maps are still on disk.
        progress: called after each image.

    Raises:
        UsageError: there are several targets, and ``save`` is a file.
    """
    if save and len(targets) > 1 and save.suffix:
        raise UsageError(f"save (--save-outputs) is {save}, one file for {len(targets)} bundles. Give a folder.")
    items = []
    for target in targets:
        with target_outputs(target, request, progress=progress) as outputs:
            items.append(_evaluate(outputs, request))
            if show:
                show(items[-1])
            if save:
                save_outputs(outputs, _file(save, outputs))
    return Evaluation(tuple(items), request)


def _evaluate(outputs: Outputs, request: EvaluationRequest) -> TargetEvaluation:
    accuracy = measure_accuracy(outputs, fpr_limit=request.fpr_limit, resolution=request.resolution)
    corrected, judged = None, outputs
    if request.corrections:
        judged = correct(outputs, read_corrections(request.corrections))
        corrected = measure_accuracy(judged, fpr_limit=request.fpr_limit, resolution=request.resolution)
    return TargetEvaluation(
        outputs=outputs,
        accuracy=accuracy,
        corrected=corrected,
        operating=operating_table(
            judged.score,
            judged.label,
            threshold=outputs.source.threshold,
            origin="calibrated" if request.threshold is None else "given",
        ),
    )


def _file(save: Path, outputs: Outputs) -> Path:
    if save.suffix:
        return save
    save.mkdir(parents=True, exist_ok=True)
    source = outputs.source
    return save / f"{source.bundle}-{source.precision}-{source.engine}.npz"
