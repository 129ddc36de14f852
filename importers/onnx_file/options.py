"""Options and result of an import; importing them needs no PyTorch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, final

from ...bundle.store import Bundle
from ...core.errors import UsageError
from ...core.threshold import MAX_FALSE_REJECT, check_threshold


@final
@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        max_batch: largest batch of the graph; None for 8, or 1 where the model takes no more.
        max_false_reject: share of good parts that the threshold may reject, in [0, 1).
        threshold: threshold in units of the score; None calibrates one on good images of the data set.
        has_reference: carry the model's own file in the bundle, so that ``verify --data`` can compare with it.
    """

    max_batch: int | None = None
    max_false_reject: float = MAX_FALSE_REJECT
    threshold: float | None = None
    has_reference: bool = True

    def check(self) -> None:
        """Check every option.

        Raises:
            UsageError: an option is out of its range.
        """
        if self.max_batch is not None and self.max_batch < 1:
            raise UsageError(f"max_batch (--batch) is {self.max_batch}; expected at least 1.")
        if self.threshold is not None:
            check_threshold(self.threshold)


@final
@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """A bundle made of an imported model, not yet verified.

    Attributes:
        bundle: the bundle.
        notes: what was found out about the model and decided, in sentences.
        conversions: what was done to images to make frames of them, in sentences.
    """

    bundle: Bundle
    notes: tuple[str, ...]
    conversions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        manifest = self.bundle.manifest
        return {
            "bundle": str(self.bundle.path),
            "detector": manifest.detector.name,
            "precision": manifest.precision,
            "threshold": dataclasses.asdict(manifest.threshold),
            "max_batch": manifest.max_batch,
            "notes": list(self.notes),
            "conversions": list(self.conversions),
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        threshold = self.bundle.manifest.threshold
        return (
            f"Bundle: {self.bundle.path} (not verified yet: lineproof verify {self.bundle.path}).",
            f"Threshold {threshold.value:.6g}: {threshold.sentence()}; {threshold.source}.",
            *self.notes,
        )
