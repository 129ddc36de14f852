"""Exact areas under ROC and PRO curves of resampled sets of images, all resamples at once.

A resample gives every image a weight: how often it was drawn. Sorting again for each would cost as much as the metric
itself, a thousand times. Here each defect pixel asks every image once how many of its anomaly-free pixels lie above; a
product with the weights then gives that pixel's false-positive rate in every resample, and the area under either curve
is a sum over defect pixels of a function of that rate, which is linear up to the limit of the PRO and 0 beyond. Nothing
is binned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..core.progress import Progress, silent
from .kernels.components import component_sizes
from .kernels.ranks import Ranking

_BLOCK = 2048


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The scores that one side gives N images, sorted by what resampled curves need of them.

    For pixel curves the scores are those of pixels, for image curves those of whole images.

    Attributes:
        negatives: one array per image: the scores of its anomaly-free pixels, float32, ascending.
        positives: float32 (P,), the scores of the defect pixels, or of the defective images.
        owners: int64 (P,), index of the image that each positive belongs to, 0 to N − 1.
        shares: float64 (P,), 1 / number of pixels of the positive's component; 1 for images.
        num_components: int64 (N,), number of components in each image; for images 1 where defective, else 0.
    """

    negatives: tuple[NDArray[np.float32], ...]
    positives: NDArray[np.float32]
    owners: NDArray[np.int64]
    shares: NDArray[np.float64]
    num_components: NDArray[np.int64]


def image_evidence(score: NDArray[np.float32], label: NDArray[np.bool_]) -> Evidence:
    """Evidence of image scores.

    Args:
        score: float32 (N,), finite; larger is more anomalous.
        label: bool (N,), True for a defective image.
    """
    owners = np.flatnonzero(label)
    negatives = tuple(score[i : i + 1] if not label[i] else score[:0] for i in range(len(score)))
    return Evidence(
        negatives=negatives,
        positives=score[owners],
        owners=owners,
        shares=np.ones(len(owners)),
        num_components=label.astype(np.int64),
    )


def pixel_evidence(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> Evidence:
    """Evidence of N anomaly maps, in 4 bytes of memory per pixel.

    Args:
        pairs: for each image its anomaly map, float32 (h, w), and its mask, bool (h, w), True in defects.
    """
    negatives, positives, owners, shares, counts = [], [], [], [], []
    for index, (anomaly_map, mask) in enumerate(pairs):
        negatives.append(np.sort(anomaly_map[~mask]))
        pixels = np.flatnonzero(mask)
        if not len(pixels):
            counts.append(0)
            continue
        components, sizes = component_sizes(pixels, *mask.shape)
        counts.append(len(sizes))
        positives.append(anomaly_map.reshape(-1)[pixels])
        owners.append(np.full(len(pixels), index))
        shares.append(1.0 / sizes[components])
    none: list[NDArray[Any]] = [np.empty(0, np.float32)]
    return Evidence(
        negatives=tuple(negatives),
        positives=np.concatenate(positives or none),
        owners=np.concatenate(owners or none).astype(np.int64),
        shares=np.concatenate(shares or none).astype(np.float64),
        num_components=np.array(counts, np.int64),
    )


def draw(label: NDArray[np.bool_], *, num_resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw images with replacement, good and defective ones apart, so that each resample has as many of both.

    Args:
        label: bool (N,), True for a defective image.
        num_resamples: number B of resamples, at least 1.
        seed: seed of the draw; the same seed gives the same resamples.

    Returns:
        float64 (N, B): the number of times that image n is in resample b.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((len(label), num_resamples))
    for kind in (False, True):
        members = np.flatnonzero(label == kind)
        if len(members):
            drawn = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=num_resamples)
            weights[members] = drawn.T
    return weights


def resampled_areas(
    evidence: Evidence, weights: NDArray[np.float64], *, fpr_limit: float = 0.3, progress: Progress = silent
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area under the ROC curve and under the PRO curve of every resample.

    Args:
        evidence: the scores of one side on N images.
        weights: float64 (N, B), the number of times that each image is in each resample, see ``draw``.
        fpr_limit: false-positive rate at which the PRO curve ends, in (0, 1]; its area is divided by it.
        progress: called after each block of defect pixels.

    Returns:
        AUROC and AUPRO, float64 (B,) each; NaN in a resample that has no defect or no anomaly-free pixel.
    """
    sums = _Sums(evidence, weights, fpr_limit)
    order = np.argsort(-evidence.positives, kind="stable")
    for start in range(0, len(order), _BLOCK):
        sums.add(order[start : start + _BLOCK])
        progress("resampling", min(start + _BLOCK, len(order)), len(order))
    return sums.areas()


@final
class _Sums:
    """Sums over the defect pixels seen so far, the highest scores first, for all resamples at once.

    While a resample's false-positive rate is below the limit, what a pixel adds to its PRO is a product of the weights
    of two images, its own and the one whose anomaly-free pixels lie above; so is what it adds to the ROC, everywhere.
    Those parts are summed in one matrix of images × images, whatever the number of resamples. Only the block of pixels
    in which a resample reaches the limit is summed pixel by pixel.
    """

    def __init__(self, evidence: Evidence, weights: NDArray[np.float64], fpr_limit: float) -> None:
        num_images, num_resamples = weights.shape
        self._evidence, self._weights, self._limit = evidence, weights, fpr_limit
        self._num_negatives = np.array([len(item) for item in evidence.negatives], np.float64) @ weights
        self._roc_pairs, self._pro_pairs = np.zeros((2, num_images, num_images))
        self._gains = np.zeros(num_images)
        self._pro = np.zeros(num_resamples)
        self._is_linear = np.ones(num_resamples, np.bool_)

    def add(self, part: NDArray[np.int64]) -> None:
        """Add the next defect pixels, by their places, in descending order of their scores."""
        evidence, owners = self._evidence, self._evidence.owners[part]
        above, reaching = _counts(evidence, part)
        self._end_linear(reaching[-1])
        middle = 0.5 * (above + reaching)
        shares = evidence.shares[part]
        _add_by_owner(self._roc_pairs, owners, middle)
        ending = np.flatnonzero(~self._is_linear & (above[0] @ self._weights < self._limit * self._num_negatives))
        if len(ending):
            self._add_each(owners, shares, above, reaching, ending)
        if self._is_linear.any():
            _add_by_owner(self._pro_pairs, owners, middle * shares[:, None])
            self._gains += np.bincount(owners, shares, minlength=len(self._gains))

    def _end_linear(self, lowest: NDArray[np.float64]) -> None:
        """Close the linear sum of those resamples that reach the limit by the lowest score of this block."""
        reached = self._is_linear & (lowest @ self._weights > self._limit * self._num_negatives)
        self._pro[reached] = self._linear_part(reached)
        self._is_linear &= ~reached

    def _linear_part(self, of: NDArray[np.bool_]) -> NDArray[np.float64]:
        weights = self._weights[:, of]
        lost = ((self._pro_pairs.T @ weights) * weights).sum(0) / self._num_negatives[of]
        return np.asarray(self._limit * (self._gains @ weights) - lost)

    def _add_each(
        self,
        owners: NDArray[np.int64],
        shares: NDArray[np.float64],
        above: NDArray[np.float64],
        reaching: NDArray[np.float64],
        ending: NDArray[np.int64],
    ) -> None:
        weights, num_negatives = self._weights[:, ending], self._num_negatives[ending]
        rates = above @ weights / num_negatives, reaching @ weights / num_negatives
        self._pro[ending] += shares @ (weights[owners] * _within(rates[0], rates[1], self._limit))

    def areas(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """AUROC and AUPRO of every resample, float64 (B,) each."""
        evidence, weights = self._evidence, self._weights
        num_positives = np.bincount(evidence.owners, minlength=len(weights)) @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            self._pro[self._is_linear] = self._linear_part(self._is_linear)
            lost = ((self._roc_pairs.T @ weights) * weights).sum(0) / self._num_negatives
            pro = self._pro / (evidence.num_components @ weights) / self._limit
            return (num_positives - lost) / num_positives, pro


def _add_by_owner(pairs: NDArray[np.float64], owners: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
    """Add each row, (p, N), to the row of ``pairs``, (N, N), of the image that it belongs to."""
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    pairs[owners[order[starts]]] += np.add.reduceat(rows[order], starts, axis=0)


def _counts(evidence: Evidence, part: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many anomaly-free scores of each image lie above, and at or above, each defect score: (p, N) each."""
    rising = np.ascontiguousarray(evidence.positives[part][::-1])
    above, reaching = np.empty((2, len(part), len(evidence.negatives)))
    for index, negatives in enumerate(evidence.negatives):
        above[::-1, index], reaching[::-1, index] = Ranking([negatives]).count(rising)
    return above, reaching


def _within(above: NDArray[np.float64], reaching: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Area up to ``limit`` under a ramp that rises from 0 at ``above`` to 1 at ``reaching`` and stays there.

    That is what one defect pixel adds to the curve: it goes from missed to detected between the two false-positive
    rates, which differ only where anomaly-free pixels tie with it.
    """
    width = reaching - above
    ramp = np.clip(limit - above, 0.0, width)
    partial = np.divide(0.5 * ramp * ramp, width, out=np.zeros_like(ramp), where=width > 0)
    return partial + np.clip(limit - reaching, 0.0, None)
