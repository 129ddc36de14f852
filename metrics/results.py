"""Results of the metrics: values, counts, and the reason wherever a value does not exist."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """Metrics of image scores against image labels.

    Attributes:
        auroc: area under the ROC curve, in [0, 1]; None where one of the classes is absent.
        ap: average precision, in [0, 1]; None without a defective image.
        f1_max: largest F1 over all thresholds, in [0, 1]; None without a defective image.
        f1_threshold: highest threshold with that F1; an image is called defective at ``score >= threshold``.
        num_images: number of images.
        num_defective: number of images with a defect.
        reasons: why a metric is None, by its name.
    """

    auroc: float | None
    ap: float | None
    f1_max: float | None
    f1_threshold: float | None
    num_images: int
    num_defective: int
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PixelResult:
    """Metrics of anomaly maps against defect masks.

    Attributes:
        auroc: area under the ROC curve of all pixels, in [0, 1]; None where one of the classes is absent.
        ap: average precision of all pixels, in [0, 1]; None without a defect pixel.
        f1_max: largest F1 over all thresholds, in [0, 1]; None without a defect pixel.
        f1_threshold: highest threshold with that F1; a pixel is called defective at ``score >= threshold``.
        aupro: area under the per-region-overlap curve up to ``fpr_limit``, divided by it, in [0, 1]; None
            without a defect pixel or without an anomaly-free one.
        fpr_limit: false-positive rate at which that integral ends, in (0, 1].
        saturation: share of a component, in (0, 1], that has to be detected for it to count as detected whole; 1 is the
            plain PRO.
        num_images: number of images.
        num_pixels: number of pixels.
        num_defect_pixels: number of pixels in defects.
        num_components: number of defects, 8-connected.
        reasons: why a metric is None, by its name.
    """

    auroc: float | None
    ap: float | None
    f1_max: float | None
    f1_threshold: float | None
    aupro: float | None
    fpr_limit: float
    saturation: float
    num_images: int
    num_pixels: int
    num_defect_pixels: int
    num_components: int
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ProCurve:
    """Vertices of the per-region-overlap curve from FPR 0 to the limit.

    Attributes:
        fpr: float64 (V,), share of anomaly-free pixels at or above the threshold, ascending.
        pro: float64 (V,), mean share of each component at or above the threshold, ascending.
        thresholds: float32 (V,), descending; +inf at the first vertex. The last vertex may be interpolated at
            the limit: its threshold is that of the vertex before which it lies.
    """

    fpr: NDArray[np.float64]
    pro: NDArray[np.float64]
    thresholds: NDArray[np.float32]


def undefined(num_positives: int, num_negatives: int, noun: str) -> dict[str, str]:
    """Return why these counts leave a metric undefined, by the metric's name; ``noun`` is what is counted."""
    reasons: dict[str, str] = {}
    if not num_negatives:
        why = f"no {noun} without a defect: a false-positive rate does not exist"
        reasons.update(auroc=why, aupro=why)
    if not num_positives:
        why = f"no {noun} with a defect"
        reasons.update(auroc=why, ap=why, f1_max=why, f1_threshold=why, aupro=why)
    return reasons
