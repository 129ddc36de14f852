"""The result of a training, in words and as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ...bundle.runs.record import RunRecord
from ...core.size import Size, size_text
from ...data.content import holdout_lines
from ...data.notes import DataNotes
from ...metrics.operating import RunOperation
from .shape import shape_notice


@final
@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A finished run.

    Attributes:
        run: run folder.
        record: content of checkpoint.json.
        data: notes on the data set.
        operation: operating table of the test images, at the threshold that ``export`` sets by default.
    """

    run: Path
    record: RunRecord
    data: DataNotes
    operation: RunOperation

    @property
    def conversions(self) -> tuple[str, ...]:
        """Sentences on what was done to the images to make frames of them."""
        note = self.record.frame_note
        return (*([note] if note else []), *self.record.conversions)

    def warnings(self) -> list[str]:
        """Return the warnings that are printed before the result."""
        training = self.record.training
        return [
            *self.operation.warnings(),
            *holdout_lines(training.unlike_held_out, training.held_out),
            *([training.refit_caveat] if training.refit else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        derived = {
            "conversions": list(self.conversions),
            "data": self.data.to_dict(),
            "operating": self.operation.to_dict(),
            "warnings": self.warnings(),
        }
        return {"run": str(self.run), **dataclasses.asdict(self.record), **derived}

    def summary_lines(self) -> tuple[str, ...]:
        """Return the result for people, one line each."""
        detector, training, fit = self.record.detector, self.record.training, self.record.fit
        beginning = self.record.beginning
        short = {key: value for key, value in fit.items() if not isinstance(value, list) and key != "notice"}
        return (
            *((_as_sentence(beginning),) if beginning else ()),
            *self.warnings(),
            f"Trained {detector.name} on {training.num_images} good images of "
            f"{training.dataset} {training.category}; {training.num_holdout} {training.held_out_words}.",
            *([self.record.preset.sentence()] if self.record.preset else []),
            *((detector.pretrained.sentence(),) if detector.pretrained else ()),
            ", ".join(f"{key} {_short(value)}" for key, value in short.items()),
            *((fit["notice"],) if "notice" in fit else ()),
            *self._tiling(),
            *shape_notice(self._looked_at, detector.parameters["resize_px"]),
            *self.operation.summary_lines(),
            f"Run: {self.run}. Next: lineproof export {self.run}",
        )

    @property
    def _looked_at(self) -> Size:
        """Height and width of what the detector sees at once, before the resize: a tile, or a frame."""
        return self.record.tiles.size if self.record.tiles else self.record.frame

    def _tiling(self) -> tuple[str, ...]:
        tiles, frame = self.record.tiles, self.record.frame
        if tiles is None:
            return ()
        return (
            f"Each frame of {size_text(frame)} is {tiles.num(frame)} tiles of {tiles.words()}; its score is the "
            "largest of theirs.",
        )


def _as_sentence(words: str) -> str:
    """Words with a capital at the head; the name of a folder stays as it is."""
    first = words.split(" ", 1)[0]
    return words[:1].upper() + words[1:] if first in ("goes", "begins") else words


def _short(value: Any) -> str:
    """A value of a fit's report for people: six digits of a number, and what several trainings report, in brackets."""
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_short(part)}' for key, part in value.items())})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
