"""The per-region-overlap (PRO) curve as vertices, for plots."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from .kernels.curves import Steps, Totals
from .results import ProCurve


def trace(parts: Sequence[tuple[Steps, NDArray[np.float64]]], num_components: int, totals: Totals) -> ProCurve:
    """Return every vertex of the PRO curve from FPR 0 to the limit, interpolated there.

    Args:
        parts: ascending stretches of the positives, and what the PRO gains at each of their steps.
        num_components: number of components.
        totals: counts of the whole set.
    """
    thresholds = np.concatenate([steps.thresholds for steps, _ in parts])[::-1]
    above = np.concatenate([steps.above for steps, _ in parts])[::-1]
    at_or_above = np.concatenate([steps.at_or_above for steps, _ in parts])[::-1]
    gains = np.concatenate([gains for _, gains in parts])[::-1]
    held = np.minimum(np.cumsum(gains) / num_components, 1.0)
    # Each step has a vertex just above its score, where only negatives have been added since the step before.
    before = np.concatenate([[0.0], held[:-1]])
    fpr = np.stack([above, at_or_above], axis=1).reshape(-1) / totals.num_negatives
    pro = np.stack([before, held], axis=1).reshape(-1)
    infinity = thresholds.dtype.type(np.inf)
    with np.errstate(over="ignore"):  # the score after the largest float is infinity
        just_above = np.nextafter(thresholds, infinity)
    scores = np.stack([just_above, thresholds], axis=1).reshape(-1)
    curve = ProCurve(
        np.concatenate([[0.0], fpr, [1.0]]),
        np.concatenate([[0.0], pro, [held[-1]]]),
        np.concatenate([[infinity], scores, [-infinity]]),
    )
    return _cut(_without_repeats(curve), totals.fpr_limit)


def thin(curve: ProCurve, max_vertices: int) -> ProCurve:
    """Keep at most ``max_vertices`` vertices, evenly spread along the curve, both ends among them.

    Raises:
        UsageError: fewer than 2.
    """
    if max_vertices < 2:
        raise UsageError(f"max_vertices is {max_vertices}; expected at least 2, or None for all.")
    way = curve.fpr / curve.fpr[-1] + curve.pro
    index = np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], max_vertices)))
    return ProCurve(curve.fpr[index], curve.pro[index], curve.thresholds[index])


def _without_repeats(curve: ProCurve) -> ProCurve:
    moved = np.concatenate([[True], (np.diff(curve.fpr) > 0) | (np.diff(curve.pro) > 0)])
    return ProCurve(curve.fpr[moved], curve.pro[moved], curve.thresholds[moved])


def _cut(curve: ProCurve, limit: float) -> ProCurve:
    """End the curve at the limit, on the straight line between the vertices around it."""
    end = int(np.searchsorted(curve.fpr, limit, side="right"))
    fpr, pro, thresholds = curve.fpr[:end], curve.pro[:end], curve.thresholds[:end]
    if fpr[-1] == limit:
        return ProCurve(fpr, pro, thresholds)
    part = (limit - fpr[-1]) / (curve.fpr[end] - fpr[-1])
    return ProCurve(
        np.append(fpr, limit),
        np.append(pro, pro[-1] + part * (curve.pro[end] - pro[-1])),
        np.append(thresholds, curve.thresholds[end]),
    )
