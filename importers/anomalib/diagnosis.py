"""Why a file that anomalib exported disagrees with the checkpoint: findings, in words and as JSON; no PyTorch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, final

from ...core.errors import ParityError
from ...core.words import counted


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """One possible cause, looked for.

    Attributes:
        cause: ``antialias``, ``batch``, ``arithmetic``, ``tie``, ``scale``, ``threshold``, ``another model`` or
            ``calibration``.
        is_present: whether it was found.
        num_verdicts: number of verdicts that it changes; None where that cannot be counted.
        evidence: what was seen, in a sentence.
        cure: what to do about it, in a sentence; "" where it was not found.
    """

    cause: str
    is_present: bool
    num_verdicts: int | None
    evidence: str
    cure: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found.

    Attributes:
        checkpoint: name of the checkpoint.
        exported: name of the exported file.
        model: name of the method in anomalib.
        num_images: number of images judged.
        num_defective: number of them that are labelled defective.
        rejected: number of images that the checkpoint's model and the exported file call anomalous.
        good_rejected: the same of the good images.
        differ: names of the images whose verdicts differ.
        score_error: largest difference of scores, on anomalib's scale.
        findings: causes, in the order in which they were looked for.
        environment: machine and packages.
    """

    checkpoint: str
    exported: str
    model: str
    num_images: int
    num_defective: int
    rejected: tuple[int, int]
    good_rejected: tuple[int, int]
    differ: tuple[str, ...]
    score_error: float
    findings: tuple[Finding, ...]
    environment: dict[str, Any]

    def check(self) -> None:
        """Raise ParityError where the exported file gives another verdict than the checkpoint's model."""
        if self.differ:
            raise ParityError(
                f"{self.exported} gives another verdict than {self.checkpoint} on {len(self.differ)} of "
                f"{counted(self.num_images, 'image')}. Import the checkpoint instead: lineproof import anomalib "
                f"{self.checkpoint}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        plain = dataclasses.asdict(self)
        return {**plain, "findings": [dataclasses.asdict(item) for item in self.findings], "differ": list(self.differ)}

    def summary_lines(self) -> tuple[str, ...]:
        """Return the result for people, one line each."""
        num_good = self.num_images - self.num_defective
        shown = ", ".join(self.differ[:5]) + (f" and {len(self.differ) - 5} more" if len(self.differ) > 5 else "")
        lines = [
            f"{self.exported} against {self.checkpoint} ({self.model}) on {counted(self.num_images, 'image')}, "
            f"{num_good} of them good.",
            f"Called anomalous: {self.rejected[0]} by the checkpoint's model as Engine.predict runs it, "
            f"{self.rejected[1]} by the exported file; of the good ones {self.good_rejected[0]} and "
            f"{self.good_rejected[1]}.",
            f"Verdicts differ on {len(self.differ)}{f': {shown}' if shown else ''}. Scores differ by up to "
            f"{self.score_error:.4g} (of 1).",
        ]
        for item in self.findings:
            mark = "found" if item.is_present else "not found"
            changed = "" if item.num_verdicts is None else f", {counted(item.num_verdicts, 'verdict')}"
            lines.append(f"{item.cause}: {mark}{changed if item.is_present else ''}. {item.evidence}")
            if item.cure:
                lines.append(f"    {item.cure}")
        return tuple(lines)
