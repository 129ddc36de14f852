"""Exact metrics of anomaly detection, streamed: update image by image, merge parts, compute at the end.

No threshold is sampled and no score is binned. A state is a bag of numbers, so that the result is the same to the
last bit whatever the order of the images, the number of parts, and the number of threads.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import BadInputError, UsageError
from .components import component_sizes, saturate
from .curves import Tally, Totals, combine, find_steps, tally
from .inputs import check_fraction, check_labels, check_maps, check_masks, check_scores
from .pool import Pool
from .ranks import Negatives, decode, encode, spans
from .results import ImageResult, PixelResult, undefined

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


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
            BadInputError: NaN, another label, or different numbers of scores and labels.
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
        negatives = Negatives([np.sort(scores[~labels])])
        totals = Totals(len(positives), negatives.num, 1.0)
        reasons = undefined(totals.num_positives, totals.num_negatives, "image")
        reasons.pop("aupro", None)
        sums = None
        if len(positives):
            sums = tally(find_steps(positives, negatives), np.zeros(len(positives)), 0, totals)
        values = _values(sums, totals, reasons)
        return ImageResult(**values, num_images=len(scores), num_defective=len(positives), reasons=reasons)


@final
class PixelMetrics:
    """AUROC, average precision, best F1 and AUPRO of anomaly maps.

    AUPRO is the official one of MVTec: 8-connected components, each weighing the same; the FPR over all
    anomaly-free pixels of the set; every distinct score a threshold; the trapezoid up to the limit, with linear
    interpolation there, divided by the limit.

    Memory: 4 bytes per pixel without a defect, 8 per pixel in a defect, and at most 192 MiB of blocks not yet
    full. ``compute`` adds a few MiB per thread.

    Args:
        fpr_limit: end of the integral of the PRO curve, in (0, 1].
        saturation: share of a component, in (0, 1], that has to be found for it to count as found whole
            (saturated PRO of MVTec LOCO, with a relative threshold); 1 is the plain PRO.
        num_threads: threads of ``compute``, which do not change the result; None takes one per CPU.
    """

    def __init__(self, fpr_limit: float = 0.3, *, saturation: float = 1.0, num_threads: int | None = None) -> None:
        self._fpr_limit = check_fraction("fpr_limit", fpr_limit)
        self._saturation = check_fraction("saturation", saturation)
        if num_threads is not None and num_threads < 1:
            raise UsageError(f"num_threads is {num_threads}; expected at least 1, or None for one per CPU.")
        self._num_threads = num_threads or os.cpu_count() or 1
        self._negatives = Pool(np.float32)
        self._positives = Pool(np.uint64)
        self._num_images = 0
        self._num_components = 0

    def update(self, anomaly_map: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Add one image, or several of one size.

        Args:
            anomaly_map: float32 (H, W) or (N, H, W); larger is more anomalous; infinities are allowed.
            mask: bool or integer of the same shape, non-zero in defects; None for good images.

        Raises:
            BadInputError: NaN, another dtype, or a mask of another size.
        """
        maps = check_maps(anomaly_map)
        masks = None if mask is None else check_masks(mask, anomaly_map)
        self._num_images += len(maps)
        for index, scores in enumerate(maps):
            if masks is None or not masks[index].any():
                self._negatives.append(scores.reshape(-1))
            else:
                self._add_defective(scores, masks[index])

    def merge(self, other: "PixelMetrics") -> None:
        """Add everything that ``other`` has seen; ``other`` stays as it is.

        Raises:
            UsageError: ``other`` has another FPR limit or saturation.
        """
        mine, theirs = (self._fpr_limit, self._saturation), (other._fpr_limit, other._saturation)
        if mine != theirs:
            raise UsageError(
                f"Cannot merge metrics with (fpr_limit, saturation) {theirs} into {mine}; make them the same."
            )
        self._negatives.absorb(other._negatives)
        self._positives.absorb(other._positives)
        self._num_images += other._num_images
        self._num_components += other._num_components

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state as plain arrays, to be sent to another process or written with ``np.savez``."""
        return {
            "settings": np.array([self._fpr_limit, self._saturation]),
            "counts": np.array([self._num_images, self._num_components]),
            "negatives": self._negatives.to_array(),
            "positives": self._positives.to_array(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> "PixelMetrics":
        """Make metrics that continue from a ``state()``."""
        fpr_limit, saturation = map(float, state["settings"])
        metrics = cls(fpr_limit, saturation=saturation)
        metrics._num_images, metrics._num_components = map(int, state["counts"])
        metrics._negatives.append(state["negatives"])
        metrics._positives.append(state["positives"])
        return metrics

    def compute(self) -> PixelResult:
        """Return the metrics of all images seen so far; more may be added afterwards."""
        words, negatives = self._sorted()
        totals = Totals(len(words), negatives.num, self._fpr_limit)
        reasons = undefined(totals.num_positives, totals.num_negatives, "pixel")

        def rank(span: tuple[int, int]) -> Tally:
            scores, areas = decode(words[slice(*span)])
            shares = np.divide(1.0, areas, out=np.zeros(len(areas)), where=areas > 0)
            return tally(find_steps(scores, negatives), shares, span[0], totals)

        sums = combine(self._map(rank, spans(words))) if len(words) else None
        values = _values(sums, totals, reasons)
        aupro = None
        if sums is not None and "aupro" not in reasons:
            aupro = sums.pro_area / (self._num_components * self._fpr_limit * totals.num_negatives)
        return PixelResult(
            **values,
            aupro=aupro,
            fpr_limit=self._fpr_limit,
            saturation=self._saturation,
            num_images=self._num_images,
            num_pixels=len(words) + negatives.num,
            num_defect_pixels=len(words),
            num_components=self._num_components,
            reasons=reasons,
        )

    def _add_defective(self, scores: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        components, sizes = component_sizes(mask[None])
        found = scores[mask]
        areas = sizes[components]
        if self._saturation < 1:
            areas = saturate(found, components, areas, self._saturation)
        self._num_components += len(sizes)
        self._positives.append(encode(found, areas.astype(np.uint32)))
        self._negatives.append(scores[~mask])

    def _sorted(self) -> tuple[NDArray[np.uint64], Negatives]:
        blocks = self._negatives.blocks()
        self._map(lambda block: block.sort(), blocks)
        words = self._positives.to_array()
        words.sort()
        return words, Negatives(blocks)

    def _map(self, task: Callable[[_Item], _Answer], items: Sequence[_Item]) -> list[_Answer]:
        """Run ``task`` on every item, on several threads where there is something to share."""
        if min(len(items), self._num_threads) < 2:
            return [task(item) for item in items]
        with ThreadPoolExecutor(self._num_threads) as executor:
            return list(executor.map(task, items))


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> ImageResult:
    """Compute the metrics of all images at once.

    Args:
        scores: float (N,), larger is more anomalous.
        labels: bool or 0 / 1, (N,).

    Raises:
        BadInputError: see ``ImageMetrics.update``.
    """
    metrics = ImageMetrics()
    metrics.update(scores, labels)
    return metrics.compute()


def pixel_metrics(
    maps: Iterable[ArrayLike],
    masks: Iterable[ArrayLike | None],
    *,
    fpr_limit: float = 0.3,
    saturation: float = 1.0,
    num_threads: int | None = None,
) -> PixelResult:
    """Compute the metrics of all images at once.

    Args:
        maps: anomaly maps, each float32 (H, W); an array (N, H, W) is one such series.
        masks: a mask for each map, bool or integer of its shape, or None for a good image.
        fpr_limit: see ``PixelMetrics``.
        saturation: see ``PixelMetrics``.
        num_threads: see ``PixelMetrics``.

    Raises:
        BadInputError: see ``PixelMetrics.update``; or different numbers of maps and masks.
    """
    maps, masks = list(maps), list(masks)
    if len(maps) != len(masks):
        raise BadInputError(
            f"There are {len(maps)} anomaly maps and {len(masks)} masks; expected one for each (None = good)."
        )
    metrics = PixelMetrics(fpr_limit, saturation=saturation, num_threads=num_threads)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask)
    return metrics.compute()


def _values(sums: Tally | None, totals: Totals, reasons: Mapping[str, str]) -> dict[str, float | None]:
    """Turn sums over the positives into metrics; None where there is a reason against it."""
    values: dict[str, float | None] = dict.fromkeys(("auroc", "ap", "f1_max", "f1_threshold"))
    if sums is None:
        return values
    values.update(ap=sums.precision_sum / totals.num_positives)
    values.update(f1_max=sums.f1_max, f1_threshold=sums.f1_threshold)
    if "auroc" not in reasons:
        values.update(auroc=sums.twice_u / (2 * totals.num_positives * totals.num_negatives))
    return values
