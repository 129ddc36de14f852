"""Statistics of a difference between two sides: paired tests and intervals on the same images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError
from ..core.progress import Progress, silent
from ..core.threshold import clopper_pearson
from .bootstrap import Evidence, draw, image_evidence, resampled_areas


@final
@dataclass(frozen=True, kw_only=True)
class McNemar:
    """McNemar's exact test of two verdicts on the same labelled images (McNemar, 1947).

    Attributes:
        num_frames: number of images.
        only_left_right: number of images that only the left side judges as their label says.
        only_right_right: number of images that only the right side judges as their label says.
        p_value: two-sided, exact (binomial over the images on which the sides differ); 1 where they never do.
        num_flips: number of images with different verdicts.
        flip_rate_bound: upper end of the exact one-sided 95 % interval of the share of images with different verdicts.
    """

    num_frames: int
    only_left_right: int
    only_right_right: int
    p_value: float
    num_flips: int
    flip_rate_bound: float


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """Right minus left of one figure, with a paired bootstrap interval over the images (Efron, 1979).

    Attributes:
        value: the difference on all images, in units of the figure.
        low: lower end of the 95 % interval: percentile 2.5 of the resamples.
        high: upper end of the 95 % interval: percentile 97.5 of the resamples.
        bound: the largest difference, in either direction, that is compatible with the data at 95 %.
    """

    value: float
    low: float
    high: float
    bound: float

    def sentence(self, name: str) -> str:
        """One sentence with the difference, its interval and the bound; ``name`` is the figure's."""
        return (
            f"{name}: right − left {self.value:+.2g}, 95 % interval {self.low:+.2g} to {self.high:+.2g}; a difference "
            f"above {self.bound:.2g} is not compatible with these images."
        )


@final
@dataclass(frozen=True)
class Resampling:
    """Settings of the paired bootstrap; the same settings give the same intervals.

    Attributes:
        num_resamples: number of sets of images that are drawn, at least 100; good and defective images are drawn apart.
        seed: seed of the draw.
        fpr_limit: false-positive rate at which the AUPRO integral ends, in (0, 1].

    Raises:
        BadInputError: fewer than 100 resamples.
    """

    num_resamples: int = 1000
    seed: int = 0
    fpr_limit: float = 0.3

    def __post_init__(self) -> None:
        if self.num_resamples < 100:
            raise BadInputError(
                f"num_resamples (--resamples) is {self.num_resamples}; the ends of a 95 % interval need at least 100."
            )


def mcnemar(left: NDArray[np.bool_], right: NDArray[np.bool_], label: NDArray[np.bool_]) -> McNemar:
    """Test whether one side judges more images as their labels say.

    Args:
        left: bool (N,), True where the left side rejects.
        right: bool (N,), True where the right side rejects.
        label: bool (N,), True for defective images.
    """
    only_left = int(((left == label) & (right != label)).sum())
    only_right = int(((left != label) & (right == label)).sum())
    num_flips = only_left + only_right
    bound = clopper_pearson(num_flips, len(label), confidence=0.90)[1] if len(label) else 1.0
    return McNemar(
        num_frames=len(label),
        only_left_right=only_left,
        only_right_right=only_right,
        p_value=_two_sided(only_left, num_flips),
        num_flips=num_flips,
        flip_rate_bound=bound,
    )


def _two_sided(num_events: int, num_trials: int) -> float:
    """Two-sided exact p-value of a fair coin that fell ``num_events`` times of ``num_trials`` on one side."""
    fewer = min(num_events, num_trials - num_events)
    tail = sum(math.comb(num_trials, k) for k in range(fewer + 1)) / 2**num_trials
    return float(min(1.0, 2.0 * tail))


def image_difference(
    left: NDArray[np.float32], right: NDArray[np.float32], label: NDArray[np.bool_], *, resampling: Resampling
) -> Difference | None:
    """Difference of the image AUROC; None where a class is absent or a score is not finite.

    Where no pair of a good and a defective image changed its order, every resample gives the difference 0 and says
    nothing. The bound is then the larger of two shares of pairs: the rule of three for an event that was never seen,
    and the pairs that lie closer together than twice the largest score error, which such errors could reorder.

    Args:
        left: float32 (N,), scores of the left side.
        right: float32 (N,), scores of the right side.
        label: bool (N,), True for defective images.
        resampling: number of resamples and seed.
    """
    if not (label.any() and (~label).any() and np.isfinite(left).all() and np.isfinite(right).all()):
        return None
    weights = _weights(label, resampling)
    areas = [resampled_areas(image_evidence(side, label), weights)[0] for side in (left, right)]
    error = float(np.abs(right.astype(np.float64) - left).max())
    gaps = np.abs(left[label].astype(np.float64)[:, None] - left[~label].astype(np.float64)[None, :])
    reorderable = float((gaps <= 2 * error).mean()) if error else 0.0
    return _difference(areas[0], areas[1], unseen=max(reorderable, _unseen(label)))


def pixel_differences(
    sides: Iterable[Evidence], label: NDArray[np.bool_], *, resampling: Resampling, progress: Progress = silent
) -> tuple[Difference | None, Difference | None]:
    """Differences of pixel AUROC and AUPRO; None where a class of pixels is absent.

    Args:
        sides: pixel evidence of the left side, then of the right one, of the same images; where an iterator makes
            them, only one is in memory at a time.
        label: bool (N,), True for images with a defect: good and defective images are drawn apart.
        resampling: number of resamples, seed, and limit of the AUPRO.
        progress: called after each block of defect pixels.
    """
    weights = _weights(label, resampling)
    left, right = (resampled_areas(side, weights, fpr_limit=resampling.fpr_limit, progress=progress) for side in sides)
    roc, pro = (_difference(a, b, unseen=_unseen(label)) for a, b in zip(left, right, strict=True))
    return roc, pro


def _weights(label: NDArray[np.bool_], resampling: Resampling) -> NDArray[np.float64]:
    """Weights of all images once, then of every resample: (N, 1 + B)."""
    drawn = draw(label, num_resamples=resampling.num_resamples, seed=resampling.seed)
    return np.concatenate([np.ones((len(label), 1)), drawn], axis=1)


def _unseen(label: NDArray[np.bool_]) -> float:
    """Upper 95 % end of the share of pairs of images that change, where none of those seen did."""
    num_pairs = int(label.sum()) * int((~label).sum())
    return float(1.0 - 0.05 ** (1.0 / num_pairs)) if num_pairs else 1.0


def _difference(left: NDArray[np.float64], right: NDArray[np.float64], *, unseen: float) -> Difference | None:
    """The difference of areas, (1 + B,) each, the first that of all images; ``unseen`` is the bound without one."""
    change = right - left
    if not np.isfinite(change[0]):
        return None
    low, high = np.nanquantile(change[1:], [0.025, 0.975])
    bound = max(-low, high, abs(change[0])) or unseen
    return Difference(value=float(change[0]), low=float(low), high=float(high), bound=float(bound))


def to_dict(value: McNemar | Difference | Resampling | None) -> dict[str, Any] | None:
    """Plain JSON values; None stays None."""
    return None if value is None else dataclasses.asdict(value)
