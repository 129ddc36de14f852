"""Metrics of image scores, streamed: AUROC, average precision and best F1."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .kernels.curves import Totals, find_steps, metric_values, tally
from .kernels.inputs import check_labels, check_scores
from .kernels.pool import Pool
from .kernels.ranks import Ranking
from .results import ImageResult, undefined


@final
class ImageMetrics:
    """AUROC, average precision and best F1 of image scores.

    Memory: 9 bytes per image.
    """

    def __init__(self) -> None:
        self._scores = Pool(np.float64)
        self._labels = Pool(np.bool_)

    def update(self, score: ArrayLike, label: ArrayLike) -> None:
        """Add one image, or several.

        Args:
            score: a number, or float (N,); larger is more anomalous; infinities are allowed.
            label: bool or 0 / 1, or (N,) of them; 1 is an image with a defect.

        Raises:
            BadInputError: a score is NaN, a label is neither 0 nor 1, or there are more of one than of the other.
        """
        scores = check_scores(score)
        labels = check_labels(label, len(scores))
        self._scores.append(scores)
        self._labels.append(labels)

    def merge(self, other: "ImageMetrics") -> None:
        """Add everything that ``other`` has seen; ``other`` stays as it is."""
        self._scores.absorb(other._scores)
        self._labels.absorb(other._labels)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state as plain arrays, to be sent to another process or written with ``np.savez``."""
        return {"scores": self._scores.to_array(), "labels": self._labels.to_array()}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> "ImageMetrics":
        """Make metrics that continue from a ``state()``."""
        metrics = cls()
        metrics.update(state["scores"], state["labels"])
        return metrics

    def compute(self) -> ImageResult:
        """Return the metrics of all images seen so far; more may be added afterwards."""
        scores, labels = self._scores.to_array(), self._labels.to_array()
        positives = np.sort(scores[labels]) + 0.0
        totals = Totals(len(positives), len(scores) - len(positives), 1.0)
        reasons = undefined(totals.num_positives, totals.num_negatives, "image")
        reasons.pop("aupro", None)
        sums = None
        if len(positives):
            steps = find_steps(positives, Ranking([np.sort(scores)]), len(positives))
            sums = tally(steps, np.zeros(len(steps.starts)), totals)
        values = metric_values(sums, totals, reasons)
        return ImageResult(**values, num_images=len(scores), num_defective=len(positives), reasons=reasons)


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> ImageResult:
    """Compute the metrics of all images at once.

    Args:
        scores: float (N,), larger is more anomalous.
        labels: bool or 0 / 1, (N,); 1 is an image with a defect.

    Raises:
        BadInputError: see ``ImageMetrics.update``.
    """
    metrics = ImageMetrics()
    metrics.update(scores, labels)
    return metrics.compute()
