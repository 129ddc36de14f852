"""Sizes of natural synthetic anomalies: what is known of patches before one is drawn, without OpenCV.

Schlüter, Tan, Hou, Kainz, "Natural Synthetic Anomalies", arXiv 2109.15222, section 3, and its authors' code.
"""

from dataclasses import dataclass

import numpy as np

from ...core.size import Size

#: Half the side of a patch is (offset + Gamma(shape, scale)) of the image's shorter side.
GAMMA_SHAPE, GAMMA_SCALE, GAMMA_OFFSET = 2.0, 0.05, 0.03
#: Median of the gamma distribution of this shape, in units of its scale.
_GAMMA_MEDIAN = 1.6783469900166612
#: Below it a clone has hardly a pixel that differs from what surrounds it; OpenCV solves nothing that is narrower.
SMALLEST_AREA_PX = 50
SMALLEST_SIDE_PX = 3


@dataclass(frozen=True, kw_only=True)
class PatchRule:
    """How patches are drawn, and what they are worth.

    Attributes:
        num_patches: largest number of patches; every one after the first is pasted with probability 1/2.
        smallest: least half height and half width of a patch, as a share of the image's shorter side.
        largest: largest half height and half width, as shares of the image's shorter side. They also limit the whole
            height and width after the resize, as in the authors' code.
        scales: least and largest factor by which a patch is resized.
        mixes: keep the stronger gradient of patch and image at every pixel, rather than the patch's.
        background: mean level of the background, and the difference from it that makes an object, both of 255;
            None where patches may lie anywhere.
        object_share: share of a patch that must be more than this an object. Only with a background.
        overlap_share: share of the patch's object that must be more than this on the image's object. Only with a
            background.
        steepness: k of the label 1 / (1 + exp(−k (I − x₀))), I being the change in levels of 255.
        middle: x₀ of the label: the change that is anomalous by one half.
    """

    num_patches: int
    smallest: float
    largest: tuple[float, float]
    scales: tuple[float, float]
    mixes: bool
    background: tuple[int, int] | None
    object_share: float
    overlap_share: float
    steepness: float
    middle: float

    def limits_px(self, image_size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
        """Least and largest half sides, in pixels, along rows, and along columns."""
        side = min(image_size)
        low = round(self.smallest * side)
        return (low, round(self.largest[0] * side)), (low, round(self.largest[1] * side))

    def resized_px(self, patch_size: Size, factor: float, *, image_size: Size) -> Size:
        """Height and width of a patch after its resize by a factor, which is clipped first."""
        height, width = patch_size
        scale = float(np.clip(factor, *self.scales))
        rows, columns = self.limits_px(image_size)
        new_width = int(np.clip(int(np.clip(scale * height, *rows) / height * width), *columns))
        return int(np.clip(int(new_width / width * height), *rows)), new_width

    def usual_px(self, image_size: Size) -> Size:
        """Height and width of a patch whose half sides and factor are the medians of what is drawn."""
        half = (GAMMA_OFFSET + _GAMMA_MEDIAN * GAMMA_SCALE) * min(image_size)
        height, width = (2 * max(1, int(np.clip(half, *limits))) for limits in self.limits_px(image_size))
        return self.resized_px((height, width), 1.0, image_size=image_size)


def shows(patch_size: Size) -> bool:
    """Whether a clone of a patch this high and wide shows, its outermost pixels left out."""
    height, width = patch_size[0] - 2, patch_size[1] - 2
    return min(height, width) >= SMALLEST_SIDE_PX and height * width >= SMALLEST_AREA_PX
