"""Accuracy of the reference and of an engine on the same frames, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...core.inputs import InputSpec
from ...core.threshold import Threshold
from ...metrics.image import image_metrics
from ...metrics.pixel import PixelMetrics
from ...metrics.statistics import Difference, McNemar, Resampling, image_difference, mcnemar
from ..masks import Resolution, judged_map, judged_pixels


@final
@dataclass(frozen=True)
class Pair:
    """One figure of the reference and of the engine; None where it is undefined."""

    reference: float | None = None
    engine: float | None = None

    def sentence(self, name: str) -> str:
        """For people: both values, or a dash where neither side has one."""
        if self == Pair():
            return f"{name}: -."
        left, right = ("none" if value is None else f"{value:.6g}" for value in (self.reference, self.engine))
        return f"{name}: reference {left}, engine {right}."


@final
@dataclass(frozen=True, kw_only=True)
class PairedAccuracy:
    """Figures of both sides, each 0 to 1; None without labels, without masks, or with one class only.

    Attributes:
        image_auroc: area under the ROC curve of the scores.
        pixel_auroc: area under the ROC curve of the pixels of the maps.
        aupro: area under the per-region-overlap curve up to a false-positive rate of 0.3, divided by it.
        pixel_resolution: resolution at which maps and masks were compared.
    """

    image_auroc: Pair = Pair()
    pixel_auroc: Pair = Pair()
    aupro: Pair = Pair()
    pixel_resolution: Resolution = "image"


@final
@dataclass(frozen=True)
class PairedStatistics:
    """Statistics of the differences on a data set; all None without labelled frames.

    Attributes:
        mcnemar: paired test of whether one side judges more frames as their labels say; left is the reference, right
            the engine.
        image_auroc_difference: engine minus reference, with a paired bootstrap interval and a bound.
    """

    mcnemar: McNemar | None = None
    image_auroc_difference: Difference | None = None


@final
class PairedMeter:
    """Measures the accuracy of both sides, frame by frame; maps are not kept, only what the exact metrics need.

    Args:
        preprocessing: the bundle's rule from image to frame.
        resolution: resolution at which maps and masks are compared, see ``eval.masks``.
    """

    def __init__(self, preprocessing: InputSpec, *, resolution: Resolution = "image") -> None:
        self._preprocessing = preprocessing
        self._resolution = resolution
        self._scores: list[tuple[float, float]] = []
        self._labels: list[bool] = []
        self._pixel = (PixelMetrics(), PixelMetrics())
        self._num_masks = 0

    def update_score(self, reference: float, engine: float, *, label: int) -> None:
        """Add one frame's scores; label 0 good, 1 defective."""
        self._scores.append((reference, engine))
        self._labels.append(bool(label))

    def update_map(
        self, reference: NDArray[np.float32], engine: NDArray[np.float32], *, mask: NDArray[np.bool_]
    ) -> None:
        """Add one frame's maps float32 (h, w) with its mask bool (H, W) at the frame's size."""
        self._num_masks += 1
        first, judged_mask = judged_pixels(reference, mask, self._preprocessing, resolution=self._resolution)
        second = judged_map(engine, self._preprocessing, resolution=self._resolution)
        for metrics, anomaly_map in zip(self._pixel, (first, second), strict=True):
            metrics.update(anomaly_map, judged_mask)

    def statistics(self, threshold: Threshold) -> PairedStatistics:
        """Paired test and interval over all frames added so far."""
        if not self._labels:
            return PairedStatistics()
        reference, engine = np.array(self._scores, np.float32).T
        label = np.array(self._labels)
        return PairedStatistics(
            mcnemar(threshold.is_defect(reference), threshold.is_defect(engine), label),
            image_difference(reference, engine, label, resampling=Resampling()),
        )

    def compute(self) -> PairedAccuracy:
        """The figures over all frames added so far."""
        image_auroc = pixel_auroc = aupro = Pair()
        if self._labels:
            image_auroc = Pair(*(image_metrics(side, self._labels).auroc for side in zip(*self._scores, strict=True)))
        if self._num_masks:
            results = [metrics.compute() for metrics in self._pixel]
            pixel_auroc = Pair(*(result.auroc for result in results))
            aupro = Pair(*(result.aupro for result in results))
        return PairedAccuracy(
            image_auroc=image_auroc, pixel_auroc=pixel_auroc, aupro=aupro, pixel_resolution=self._resolution
        )
