"""Rank correlation: whether two sets of scores put the same images in the same order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks 1..P of finite values (P,); equal values share the mean of the ranks they take up."""
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - 0.5 * (count - 1))[position], dtype=np.float64)


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Spearman's rank correlation with averaged ties.

    Args:
        first: scores (P,).
        second: scores (P,) of the same images.

    Returns:
        −1 to 1; None where it is undefined: fewer than two images, all scores equal on a side, or one not finite.
    """
    if len(first) < 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    a, b = average_ranks(first), average_ranks(second)
    a -= a.mean()
    b -= b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip((a @ b) / scale, -1.0, 1.0)) if scale > 0 else None
