"""Accuracy of a detector on labelled images, measured from outputs: metrics and verdicts, without the model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, final

import numpy as np

from ...core.threshold import clopper_pearson
from ...core.words import counted
from ...metrics.image import ImageMetrics
from ...metrics.pixel import PixelMetrics
from ...metrics.results import ImageResult, PixelResult
from ..masks import RESOLUTIONS, Resolution
from .outputs import Outputs


@final
@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Counts of right and wrong verdicts.

    Attributes:
        num_good: number of good images.
        num_false_rejects: number of good images that are rejected.
        num_defective: number of defective images.
        num_false_accepts: number of defective images that are accepted.
        missed: type of defect → (number accepted, number of images), for the types of which an image is accepted.
    """

    num_good: int
    num_false_rejects: int
    num_defective: int
    num_false_accepts: int
    missed: dict[str, tuple[int, int]]

    def sentence(self) -> str:
        """Both error counts in one sentence, with exact 95 % intervals."""
        parts = []
        for noun, num, total in (
            ("good images rejected", self.num_false_rejects, self.num_good),
            ("defective images accepted", self.num_false_accepts, self.num_defective),
        ):
            low, high = clopper_pearson(num, total) if total else (0.0, 1.0)
            parts.append(f"{num} of {total} {noun} (95 % interval {low:.1%}–{high:.1%})")
        return "; ".join(parts)


class AccuracyJson(TypedDict):
    """Figures of one set of outputs; ``pixel`` is null where no defect has a mask."""

    image: Annotated[dict[str, Any], ImageResult]
    pixel: Annotated[dict[str, Any], PixelResult] | None
    verdicts: Annotated[dict[str, Any], Verdicts]
    pixel_resolution: Resolution
    num_unseen: int


@final
@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Figures of one set of outputs.

    Attributes:
        image: metrics of the scores.
        pixel: metrics of the maps, over the images with a mask and the good ones; None where no defect has a mask.
        verdicts: counts at the threshold of the outputs.
        resolution: resolution at which maps and masks were compared for ``pixel``.
        num_unseen: number of defective images whose mask marks no judged pixel: the defect was cut away, or is too
            small for the resolution.
    """

    image: ImageResult
    pixel: PixelResult | None
    verdicts: Verdicts
    resolution: Resolution
    num_unseen: int = 0

    def value(self, metric: str) -> float | None:
        """The metric ``"image_auroc"``, ``"pixel_auroc"`` or ``"aupro"``, 0 to 1; None where it is undefined."""
        if metric == "image_auroc":
            return self.image.auroc
        if self.pixel is None:
            return None
        return self.pixel.auroc if metric == "pixel_auroc" else self.pixel.aupro

    def to_dict(self) -> AccuracyJson:
        """Plain JSON values."""
        return {
            "image": self.image.to_dict(),
            "pixel": None if self.pixel is None else self.pixel.to_dict(),
            "verdicts": dataclasses.asdict(self.verdicts),
            "pixel_resolution": self.resolution,
            "num_unseen": self.num_unseen,
        }

    def pixel_sentence(self) -> str:
        """Resolution, images and defects behind the pixel figures, in words; "" where there are none."""
        if self.pixel is None:
            return ""
        unseen = (
            f" Of {counted(self.num_unseen, 'defective image')} the mask marks none of these pixels (cut away, "
            f"or too small for "
            "them): there they count as free of defects."
        )
        return (
            f"Pixel figures {RESOLUTIONS[self.resolution]}: {counted(self.pixel.num_images, 'image')}, "
            f"{counted(self.pixel.num_components, 'defect')}.{unseen if self.num_unseen else ''}"
        )


def measure_accuracy(outputs: Outputs, *, fpr_limit: float = 0.3, resolution: Resolution = "image") -> Accuracy:
    """Measure exact image and pixel metrics, and count the verdicts.

    Args:
        outputs: scores, maps and truth; they are read image by image, so that mapped files stay on disk.
        fpr_limit: false-positive rate at which the AUPRO integral ends, in (0, 1].
        resolution: resolution at which maps and masks are compared, see ``eval.masks``.
    """
    image = ImageMetrics()
    image.update(outputs.score, outputs.label)
    pixel, num_unseen = PixelMetrics(fpr_limit), 0
    for index in np.flatnonzero(outputs.has_mask).tolist():
        anomaly_map, mask = outputs.pixels_of(index, resolution=resolution)
        pixel.update(anomaly_map, mask)
        num_unseen += bool(outputs.label[index]) and not mask.any()
    has_masks = bool((outputs.has_mask & outputs.label).any())
    return Accuracy(
        image=image.compute(),
        pixel=pixel.compute() if has_masks else None,
        verdicts=judge(outputs),
        resolution=resolution,
        num_unseen=num_unseen,
    )


def judge(outputs: Outputs) -> Verdicts:
    """Count right and wrong verdicts at the threshold of the outputs."""
    rejected, label = outputs.is_rejected, outputs.label
    missed: dict[str, tuple[int, int]] = {}
    kinds = np.array(outputs.defects)
    for kind in sorted(set(kinds[label].tolist())):
        of_kind = label & (kinds == kind)
        accepted = int((of_kind & ~rejected).sum())
        if accepted:
            missed[kind] = (accepted, int(of_kind.sum()))
    return Verdicts(
        num_good=int((~label).sum()),
        num_false_rejects=int((rejected & ~label).sum()),
        num_defective=int(label.sum()),
        num_false_accepts=int((~rejected & label).sum()),
        missed=missed,
    )
