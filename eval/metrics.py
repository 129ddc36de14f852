"""Exact metrics of anomaly detection, streamed: update image by image, merge parts, compute at the end.

No threshold is sampled and no score is binned. A state is a bag of numbers, so that the result is the same to the
last bit whatever the order of the images, the number of parts, and the number of threads.
"""

from .image import ImageMetrics, image_metrics
from .pixel import PixelMetrics, pixel_metrics
from .results import ImageResult, PixelResult, ProCurve

__all__ = [
    "ImageMetrics",
    "ImageResult",
    "PixelMetrics",
    "PixelResult",
    "ProCurve",
    "image_metrics",
    "pixel_metrics",
]
