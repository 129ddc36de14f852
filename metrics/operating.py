"""Operating table: at a given share of rejected good parts, the number of defective parts that pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError
from ..core.table import aligned
from ..core.threshold import clopper_pearson
from ..core.used import UsedShare
from ..core.words import counted

#: Where the threshold in use comes from.
Origin = Literal["calibrated", "given"]
#: What a table calls such a threshold: the bundle's own may have been calibrated, imported, or set by hand.
_LABELS: dict[Origin, str] = {"calibrated": "in use", "given": "given"}
#: Shares of rejected good parts that the table shows.
SHARES = (0.0, 0.01, 0.05, 0.10)
#: Beyond this share of passing defects the calibrated threshold is called useless, first of all.
_MOSTLY_MISSED = 0.5
_HEADER = ("rejected good parts", "threshold", "good rejected (95 % interval)", "defective passed (95 % interval)")


class ShareJson(TypedDict):
    """A count out of a total, the rate, and its exact 95 % interval; both are null where the total is 0."""

    num: int
    total: int
    rate: float | None
    interval_95: tuple[float, float] | None


class PointJson(TypedDict):
    """One threshold and the verdicts it gives; all but ``allowed`` are null where there is no good image."""

    allowed: float | None
    threshold: float | None
    rejected_good: ShareJson | None
    passed_defective: ShareJson | None


class OperatingJson(TypedDict):
    """What each share of rejected good parts costs in defects that pass."""

    num_good: int
    num_defective: int
    thresholds_from: str
    points: list[PointJson]
    calibrated: PointJson
    threshold_origin: Origin
    warnings: list[str]


@final
@dataclass(frozen=True)
class Share:
    """A count out of a total.

    Attributes:
        num: number of images with the property, 0 to ``total``.
        total: number of images.
    """

    num: int
    total: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Exact 95 % interval of the rate, 0 to 1 (Clopper and Pearson); None where the total is 0."""
        return clopper_pearson(self.num, self.total) if self.total else None

    def __str__(self) -> str:
        if self.interval is None:
            return "-"
        low, high = self.interval
        return f"{self.num} of {self.total} ({low:.1%}–{high:.1%})"

    def to_dict(self) -> ShareJson:
        """Plain JSON values."""
        rate = self.num / self.total if self.total else None
        return {"num": self.num, "total": self.total, "rate": rate, "interval_95": self.interval}


@final
@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One threshold and the verdicts it gives.

    Attributes:
        allowed: share of good parts that may be rejected, 0 to 1; None at the calibrated threshold.
        threshold: in units of the score; an image is rejected where its score is strictly above. None where there is no
            good image.
        rejected_good: the good images that are rejected.
        passed_defective: the defective images that are accepted.
    """

    allowed: float | None
    threshold: float | None
    rejected_good: Share
    passed_defective: Share

    def cells(self, *, origin: Origin = "calibrated") -> tuple[str, ...]:
        """A row of the table; ``origin`` labels the threshold in use, which was not read off these images."""
        name = _LABELS[origin] if self.allowed is None else f"at most {self.allowed:.0%}"
        if self.threshold is None:
            return (name, "-", "-", "-")
        return (name, f"{self.threshold:.6g}", str(self.rejected_good), str(self.passed_defective))

    def to_dict(self) -> PointJson:
        """Plain JSON values."""
        rejected, passed = (
            None if self.threshold is None else share.to_dict() for share in (self.rejected_good, self.passed_defective)
        )
        return {
            "allowed": self.allowed,
            "threshold": self.threshold,
            "rejected_good": rejected,
            "passed_defective": passed,
        }


@final
@dataclass(frozen=True, kw_only=True)
class OperatingTable:
    """Points at stated shares of rejected good parts, and the one at the calibrated threshold.

    Attributes:
        points: one for each of SHARES, with thresholds read off these images.
        calibrated: the point at the threshold in use, as a rule calibrated on other, held-out good parts; ``origin``
            says whether it is the bundle's own.
        num_good: number of good images.
        num_defective: number of defective images.
        origin: ``"calibrated"`` for the bundle's own threshold, ``"given"`` where the caller named another one.
    """

    points: tuple[OperatingPoint, ...]
    calibrated: OperatingPoint
    num_good: int
    num_defective: int
    origin: Origin = "calibrated"

    def warnings(self) -> list[str]:
        """Warnings that stand above the table: a class without images, or a threshold that lets most defects pass."""
        lines = no_class_lines(num_good=self.num_good, num_defective=self.num_defective)
        passed = self.calibrated.passed_defective
        if passed.total and passed.num > _MOSTLY_MISSED * passed.total:
            value = self.calibrated.threshold
            lines.append(f"Misses {passed.num} of {counted(passed.total, 'defect')} at this threshold ({value:.6g}).")
        return lines

    def summary_lines(self) -> list[str]:
        """The table as lines of text, with a note on where its thresholds come from."""
        rows = [point.cells(origin=self.origin) for point in (*self.points, self.calibrated)]
        return [
            f"Operating table on {self.num_good} good and {counted(self.num_defective, 'defective test image')}:",
            *aligned(_HEADER, rows).splitlines(),
            f"Thresholds but the one {_LABELS[self.origin]} are read off the test images, for orientation only.",
        ]

    def to_dict(self) -> OperatingJson:
        """Plain JSON values."""
        return {
            "num_good": self.num_good,
            "num_defective": self.num_defective,
            "thresholds_from": "these test images, for orientation only",
            "points": [point.to_dict() for point in self.points],
            "calibrated": self.calibrated.to_dict(),
            "threshold_origin": self.origin,
            "warnings": self.warnings(),
        }


def no_class_lines(*, num_good: int, num_defective: int) -> list[str]:
    """A warning for each class without a test image; empty where there are good and defective images."""
    missing = [noun for noun, num in (("good", num_good), ("defective", num_defective)) if not num]
    return [f'No {noun} test image: figures that need one are "-".' for noun in missing]


def operating_table(
    scores: NDArray[np.floating[Any]] | Sequence[float],
    labels: NDArray[np.bool_] | Sequence[bool],
    *,
    threshold: float,
    origin: Origin = "calibrated",
) -> OperatingTable:
    """Say what each share of rejected good parts costs in defects that pass.

    Args:
        scores: (N,), finite, larger is more anomalous.
        labels: bool (N,), True for defective images.
        threshold: the threshold in use, in units of the score.
        origin: where that threshold comes from.

    Raises:
        BadInputError: a score is not finite, or the numbers of scores and labels differ.
    """
    values, is_defective = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    if values.shape != is_defective.shape or values.ndim != 1 or not np.isfinite(values).all():
        raise BadInputError(
            f"An operating table expects one finite score per label; got scores {values.shape}, of which "
            f"{int((~np.isfinite(values)).sum())} are not finite, and labels {is_defective.shape}."
        )
    good, defective = values[~is_defective], values[is_defective]
    points = [_point(good, defective, share, _threshold_at(good, share)) for share in SHARES]
    return OperatingTable(
        points=tuple(points),
        calibrated=_point(good, defective, None, threshold),
        num_good=len(good),
        num_defective=len(defective),
        origin=origin,
    )


def _threshold_at(good: NDArray[np.float64], share: float) -> float | None:
    """The lowest threshold that rejects at most this share of the good scores; None without any.

    It is a good part's own score, which itself passes: with ties fewer are rejected than allowed, never more.
    """
    if not len(good):
        return None
    # Rounded first: 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is 28.999999999999996.
    num_allowed = math.floor(round(share * len(good), 9))
    return float(np.sort(good)[::-1][num_allowed])


def _point(
    good: NDArray[np.float64], defective: NDArray[np.float64], allowed: float | None, threshold: float | None
) -> OperatingPoint:
    limit = np.inf if threshold is None else threshold
    return OperatingPoint(
        allowed=allowed,
        threshold=threshold,
        rejected_good=Share(int((good > limit).sum()), len(good)),
        passed_defective=Share(int((defective <= limit).sum()), len(defective)),
    )


@final
@dataclass(frozen=True, kw_only=True)
class RunOperation:
    """The operating table of a run, or why there is none.

    Attributes:
        table: the table; None where no image could be scored.
        used: number of the test images that were scored, and the reasons for the others.
        reason: why there is no table; "" where there is one.
        lacking: where there is no table, a warning for each class without a test image.
    """

    table: OperatingTable | None = None
    used: UsedShare = field(default_factory=lambda: UsedShare(0))
    reason: str = ""
    lacking: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """Warnings that stand above the table."""
        return [*(self.table.warnings() if self.table else self.lacking), *self.used.lines()]

    def summary_lines(self) -> list[str]:
        """The table, or why there is none."""
        return self.table.summary_lines() if self.table else [f"No operating table: {self.reason}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        table = None if self.table is None else self.table.to_dict()
        return {"table": table, "used": self.used.to_dict(), "reason": self.reason, "warnings": self.warnings()}
