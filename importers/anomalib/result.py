"""What an import came to, in words and as JSON; read without PyTorch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ...bundle.runs.record import RunRecord
from ...core.tiles import Tiles
from ...data.notes import DataNotes


@final
@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """An imported run.

    Attributes:
        run: run folder.
        record: content of checkpoint.json.
        data: notes on the data set.
        notes: sentences about the model that must be read beside the result.
    """

    run: Path
    record: RunRecord
    data: DataNotes
    notes: tuple[str, ...] = ()

    @property
    def conversions(self) -> tuple[str, ...]:
        """Sentences on what was done to the images to make frames of them."""
        note = self.record.frame_note
        return (*([note] if note else []), *self.record.conversions, *self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {"run": str(self.run), **dataclasses.asdict(self.record), "data": self.data.to_dict()}

    def summary_lines(self) -> tuple[str, ...]:
        """Return the result for people, one line each."""
        record, imported = self.record, self.record.imported
        if imported is None:
            raise TypeError("An imported run has no record of its import.")
        scores = record.holdout_scores
        limit, rejected = imported.threshold, "The file holds no threshold: export sets one on these images."
        if record.tiles:
            limit, rejected = None, self._tiling(record.tiles)
        if limit is not None:
            num = sum(score > limit for score in scores)
            rejected = f"{imported.library}'s own threshold {limit:.6g} rejects {num} of them."
            if num > len(scores) / 2:
                rejected += " It would not do on a line: set one of your own with lineproof calibrate after the export."
        height, width = record.frame
        return (
            imported.sentence(),
            f"It is {record.detector.name} here; frames are {height}x{width} (height x width).",
            f"{len(scores)} good images of {record.training.dataset} {record.training.category} "
            f"({record.fit['good_images']} split) score {min(scores):.6g} to {max(scores):.6g}. {rejected}",
            f"Run: {self.run}. Next: lineproof export {self.run}",
        )

    def _tiling(self, tiles: Tiles) -> str:
        return (
            f"Each is {tiles.num(self.record.frame)} tiles of {tiles.words()}, of which the largest score counts: the "
            "file's threshold is one of single images, and export sets one on these frames."
        )
