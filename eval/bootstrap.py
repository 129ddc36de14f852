"""Exact areas under ROC and PRO curves of resampled sets of images, all resamples at once.

A resample gives every image a weight: how often it was drawn. Sorting again for each would cost as much as the metric
itself, a thousand times. Here each defect pixel asks every image once how many of its anomaly-free pixels lie above; a
product with the weights then gives that pixel's false-positive rate in every resample, and the area under either curve
is a sum over defect pixels of a function of that rate. Nothing is binned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..core.progress import Progress, silent
from .components import component_sizes

_BLOCK = 2048


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """The scores of one side, cut up by image.

    Attributes:
        negatives: per image its anomaly-free scores, float32, ascending.
        positives: float32 (P,), scores of defect pixels, or of defective images.
        owners: int64 (P,), image that each belongs to.
        shares: float64 (P,), 1 / size of the component it is part of; 1 for images.
        num_components: int64 (N,), components per image; defective or not, for images.
    """

    negatives: tuple[NDArray[np.float32], ...]
    positives: NDArray[np.float32]
    owners: NDArray[np.int64]
    shares: NDArray[np.float64]
    num_components: NDArray[np.int64]


def image_evidence(score: NDArray[np.float32], label: NDArray[np.bool_]) -> Evidence:
    """Evidence of image scores float32 (N,) with labels bool (N,); finite."""
    owners = np.flatnonzero(label)
    negatives = tuple(score[i : i + 1] if not label[i] else score[:0] for i in range(len(score)))
    return Evidence(negatives, score[owners], owners, np.ones(len(owners)), label.astype(np.int64))


def pixel_evidence(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> Evidence:
    """Evidence of anomaly maps, N of float32 (h, w), with their masks, bool (h, w); 4 bytes per pixel are kept."""
    negatives, found, owners, shares, counts = [], [], [], [], []
    for index, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        negatives.append(np.sort(anomaly_map[~mask]))
        pixels = np.flatnonzero(mask)
        if not len(pixels):
            counts.append(0)
            continue
        components, sizes = component_sizes(pixels, *mask.shape)
        counts.append(len(sizes))
        found.append(anomaly_map.reshape(-1)[pixels])
        owners.append(np.full(len(pixels), index))
        shares.append(1.0 / sizes[components])
    none: list[NDArray[Any]] = [np.empty(0, np.float32)]
    return Evidence(
        tuple(negatives),
        np.concatenate(found or none),
        np.concatenate(owners or none).astype(np.int64),
        np.concatenate(shares or none).astype(np.float64),
        np.array(counts, np.int64),
    )


def draw(label: NDArray[np.bool_], *, num_resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw images with replacement, good and defective ones apart, so that each resample has as many of both.

    Args:
        label: bool (N,).
        num_resamples: B.
        seed: the same seed draws the same.

    Returns:
        float64 (N, B): how often image n is in resample b.
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
        evidence: of one side.
        weights: float64 (N, B), see ``draw``.
        fpr_limit: where the PRO curve ends; its area is divided by it.
        progress: told after each block of defect pixels.

    Returns:
        AUROC and AUPRO, float64 (B,) each; NaN in a resample that has no defect or no anomaly-free pixel.
    """
    sizes = np.array([len(item) for item in evidence.negatives], np.float64)
    num_negatives = sizes @ weights
    roc, pro = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    order = np.argsort(evidence.positives, kind="stable")
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, len(order), _BLOCK):
            part = order[start : start + _BLOCK]
            above, reaching = (counts @ weights / num_negatives for counts in _counts(evidence, part))
            drawn = weights[evidence.owners[part]]
            roc += (drawn * (1.0 - 0.5 * (above + reaching))).sum(0)
            pro += evidence.shares[part] @ (drawn * _within(above, reaching, fpr_limit))
            progress("resampling", min(start + _BLOCK, len(order)), len(order))
        num_positives = np.bincount(evidence.owners, minlength=len(weights)) @ weights
        return roc / num_positives, pro / (evidence.num_components @ weights) / fpr_limit


def _counts(evidence: Evidence, part: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many anomaly-free scores of each image lie above, and at or above, each defect score: (p, N) each."""
    scores = evidence.positives[part]
    above, reaching = np.empty((2, len(part), len(evidence.negatives)))
    for index, negatives in enumerate(evidence.negatives):
        above[:, index] = len(negatives) - np.searchsorted(negatives, scores, side="right")
        reaching[:, index] = len(negatives) - np.searchsorted(negatives, scores, side="left")
    return above, reaching


def _within(above: NDArray[np.float64], reaching: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Area up to ``limit`` under a ramp that rises from 0 at ``above`` to 1 at ``reaching`` and stays there.

    That is what one defect pixel adds to the curve: it is found between the two false-positive rates, which differ only
    where anomaly-free pixels tie with it.
    """
    width = reaching - above
    ramp = np.clip(limit - above, 0.0, width)
    partial = np.divide(0.5 * ramp * ramp, width, out=np.zeros_like(ramp), where=width > 0)
    return partial + np.clip(limit - reaching, 0.0, None)
