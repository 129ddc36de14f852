"""Areas under curves and the curves themselves, exact at every distinct score.

Everything here follows from two numbers per distinct score of a defect: how many negatives score higher, and how
many score the same. Between the distinct scores of defects every curve is a straight, known line, so that no
threshold is lost although the negatives are never enumerated.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ranks import Ranking


@dataclass(frozen=True)
class Totals:
    """Counts of the whole set, and the limit of its PRO curve.

    Attributes:
        num_positives: number of defect pixels, or of images with a defect.
        num_negatives: number of anomaly-free pixels, or of good images.
        fpr_limit: end of the integral of the PRO curve, in (0, 1].
    """

    num_positives: int
    num_negatives: int
    fpr_limit: float


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one stretch of the sorted positives adds to the metrics.

    Attributes:
        twice_u: twice the Mann-Whitney statistic: pairs won count 2, ties 1.
        precision_sum: precision at each positive's score, summed over the positives.
        f1_max: best F1 among the thresholds of the stretch.
        f1_threshold: the highest threshold that reaches it; a score at or above it counts as a defect.
        pro_area: sum over the steps of gain times the FPR range below the limit, in pixels, in which it is held.
    """

    twice_u: int
    precision_sum: float
    f1_max: float
    f1_threshold: float
    pro_area: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """Distinct scores of a stretch of positives, ascending, and what lies at and above each.

    Attributes:
        thresholds: (T,), the distinct scores, of the dtype of the scores.
        starts: int64 (T,), index of the first positive of each score in the stretch.
        counts: int64 (T,), number of positives with this score.
        true_positives: int64 (T,), number of positives with this score or a higher one.
        above: int64 (T,), number of negatives with a higher score.
        at_or_above: int64 (T,), number of negatives with this score or a higher one.
    """

    thresholds: NDArray[np.floating]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    true_positives: NDArray[np.int64]
    above: NDArray[np.int64]
    at_or_above: NDArray[np.int64]


def find_steps(scores: NDArray[np.floating], ranking: Ranking, num_from_here: int) -> Steps:
    """Rank a stretch of positives among the negatives.

    Args:
        scores: (P,), ascending, P >= 1; a tie lies in the stretch whole.
        ranking: scores of all positives and negatives.
        num_from_here: number of positives in this stretch and above it.
    """
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    counts = np.diff(starts, append=len(scores))
    thresholds = scores[starts]
    above, at_or_above = ranking.count(thresholds)
    true_positives = num_from_here - starts
    return Steps(
        thresholds=thresholds,
        starts=starts,
        counts=counts,
        true_positives=true_positives,
        above=above - (true_positives - counts),
        at_or_above=at_or_above - true_positives,
    )


def tally(steps: Steps, gains: NDArray[np.float64], totals: Totals) -> Tally:
    """Sum up one stretch of the sorted positives.

    Args:
        steps: the distinct scores of the stretch.
        gains: float64 (T,), what the PRO gains at each: the sum over its positives of 1 / size of component.
        totals: counts of the whole set.
    """
    equal = steps.at_or_above - steps.above
    below = totals.num_negatives - steps.at_or_above
    called = steps.true_positives + steps.at_or_above
    f1 = 2 * steps.true_positives / (called + totals.num_positives)
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return Tally(
        twice_u=int(np.sum(steps.counts * (2 * below + equal))),
        precision_sum=float(np.sum(steps.counts * (steps.true_positives / called))),
        f1_max=float(f1[best]),
        f1_threshold=float(steps.thresholds[best]),
        pro_area=float(np.sum(gains * _area_detected(steps.above, equal, totals))),
    )


def combine(tallies: Iterable[Tally]) -> Tally:
    """Add tallies; the result does not depend on their order."""
    parts = list(tallies)
    f1_max, f1_threshold = max((part.f1_max, part.f1_threshold) for part in parts)
    return Tally(
        twice_u=sum(part.twice_u for part in parts),
        precision_sum=math.fsum(part.precision_sum for part in parts),
        f1_max=f1_max,
        f1_threshold=f1_threshold,
        pro_area=math.fsum(part.pro_area for part in parts),
    )


def metric_values(sums: Tally | None, totals: Totals, reasons: Mapping[str, str]) -> dict[str, float | None]:
    """Turn sums over the positives into metrics; None where there is a reason against it."""
    values: dict[str, float | None] = dict.fromkeys(("auroc", "ap", "f1_max", "f1_threshold"))
    if sums is None:
        return values
    values.update(ap=sums.precision_sum / totals.num_positives)
    values.update(f1_max=sums.f1_max, f1_threshold=sums.f1_threshold)
    if "auroc" not in reasons:
        values.update(auroc=sums.twice_u / (2 * totals.num_positives * totals.num_negatives))
    return values


def _area_detected(above: NDArray[np.int64], equal: NDArray[np.int64], totals: Totals) -> NDArray[np.float64]:
    """Return the area under one positive's step below the limit, in units of 1 / num_negatives.

    A positive is missed up to FPR = above, detected from above + equal on, and rises linearly in between.
    """
    limit = totals.fpr_limit * totals.num_negatives
    room = np.maximum(limit - above, 0.0)
    ramp = room * room / np.maximum(2 * equal, 1)
    area: NDArray[np.float64] = np.where(room >= equal, room - 0.5 * equal, ramp)
    return area
