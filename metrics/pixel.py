"""Metrics of anomaly maps, streamed: AUROC, average precision, best F1 and AUPRO of pixels."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import BadInputError, UsageError
from ..core.words import counted
from .kernels.components import component_sizes, saturate
from .kernels.curves import Steps, Totals, combine, find_steps, metric_values, tally
from .kernels.inputs import check_fraction, check_maps, check_masks
from .kernels.pool import Pool
from .kernels.ranks import Ranking, as_integers, decode, encode, share_out, spans
from .kernels.threads import check_num_threads, in_threads
from .plots import thin, trace
from .results import PixelResult, ProCurve, undefined

_Result = TypeVar("_Result")

# Pixels handled at a time in a stack of small images: bounds the scratch memory of an update.
_BATCH_PX = 1 << 18


@final
class PixelMetrics:
    """AUROC, average precision, best F1 and AUPRO of anomaly maps.

    AUPRO is the official one of MVTec: 8-connected components, each weighing the same; the FPR over all
    anomaly-free pixels of the set; every distinct score a threshold; the trapezoid up to the limit, with linear
    interpolation there, divided by the limit.

    Memory: 4 bytes per pixel and 8 more per defect pixel; at most twice that during ``compute``. As much as half
    of it is reserved ahead, untouched. While an update runs it needs about 60 bytes more per defect pixel
    of an image.

    Args:
        fpr_limit: end of the integral of the PRO curve, in (0, 1].
        saturation: share of a component, in (0, 1], that has to be detected for it to count as detected whole
            (saturated PRO of MVTec LOCO, with a relative threshold); 1 is the plain PRO.
        num_threads: threads of ``compute``, which do not change the result; None takes one per CPU.
    """

    def __init__(self, fpr_limit: float = 0.3, *, saturation: float = 1.0, num_threads: int | None = None) -> None:
        self._fpr_limit = check_fraction("fpr_limit", fpr_limit)
        self._saturation = check_fraction("saturation", saturation)
        self._num_threads = check_num_threads(num_threads)
        self._scores = Pool(np.float32)
        self._positives = Pool(np.uint64)
        self._num_images = 0
        self._num_components = 0

    def update(self, anomaly_map: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Add one image, or several of one size.

        Args:
            anomaly_map: float32 (H, W) or (N, H, W); larger is more anomalous; infinities are allowed.
            mask: bool or integer of the same shape, non-zero in defects; None for good images.

        Raises:
            BadInputError: the map holds NaN or is neither float32 nor float16, or the mask has another shape or dtype.
        """
        maps = check_maps(anomaly_map)
        masks = None if mask is None else check_masks(mask, anomaly_map)
        self._num_images += len(maps)
        step = max(1, _BATCH_PX // maps[0].size)
        for first in range(0, len(maps), step):
            batch = maps[first : first + step]
            self._scores.append(batch.reshape(-1))
            if masks is not None:
                self._add_defects(batch, masks[first : first + step])

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
        self._scores.absorb(other._scores)
        self._positives.absorb(other._positives)
        self._num_images += other._num_images
        self._num_components += other._num_components

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state as plain arrays, to be sent to another process or written with ``np.savez``."""
        return {
            "settings": np.array([self._fpr_limit, self._saturation]),
            "counts": np.array([self._num_images, self._num_components]),
            "scores": self._scores.to_array(),
            "positives": self._positives.to_array(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]], *, num_threads: int | None = None) -> "PixelMetrics":
        """Make metrics that continue from a ``state()``."""
        fpr_limit, saturation = map(float, state["settings"])
        metrics = cls(fpr_limit, saturation=saturation, num_threads=num_threads)
        metrics._num_images, metrics._num_components = map(int, state["counts"])
        metrics._scores.append(state["scores"])
        metrics._positives.append(state["positives"])
        return metrics

    def compute(self) -> PixelResult:
        """Return the metrics of all images seen so far; more may be added afterwards."""
        totals = self._totals()
        reasons = undefined(totals.num_positives, totals.num_negatives, "pixel")
        tallies = self._over_steps(lambda steps, gains: tally(steps, gains, totals))
        sums = combine(tallies) if tallies else None
        values = metric_values(sums, totals, reasons)
        aupro = None
        if sums is not None and "aupro" not in reasons:
            whole = self._num_components * self._fpr_limit * totals.num_negatives
            aupro = min(sums.pro_area / whole, 1.0)  # a sum of shares 1/size can round to more than 1
        return PixelResult(
            **values,
            aupro=aupro,
            fpr_limit=self._fpr_limit,
            saturation=self._saturation,
            num_images=self._num_images,
            num_pixels=len(self._scores),
            num_defect_pixels=totals.num_positives,
            num_components=self._num_components,
            reasons=reasons,
        )

    def pro_curve(self, max_vertices: int | None = 1000) -> ProCurve:
        """Return the PRO curve up to the FPR limit, for plots; costs as much as ``compute``.

        Args:
            max_vertices: number of vertices to keep, at least 2, spread evenly along the curve; each is exact.
                None keeps all, two per distinct score of a defect.

        Raises:
            BadInputError: the curve does not exist, since a class of pixels is absent.
            UsageError: fewer than 2 vertices.
        """
        totals = self._totals()
        reasons = undefined(totals.num_positives, totals.num_negatives, "pixel")
        if reasons:
            raise BadInputError(f"There is no PRO curve: {reasons['aupro']}. Add images of the other kind.")
        curve = trace(self._over_steps(lambda steps, gains: (steps, gains)), self._num_components, totals)
        return curve if max_vertices is None else thin(curve, max_vertices)

    def _totals(self) -> Totals:
        num_positives = len(self._positives)
        return Totals(num_positives, len(self._scores) - num_positives, self._fpr_limit)

    def _over_steps(self, task: Callable[[Steps, NDArray[np.float64]], _Result]) -> list[_Result]:
        """Run ``task`` on every stretch of the sorted positives: its steps and what the PRO gains at each."""
        if not len(self._positives):
            return []
        blocks = as_integers(share_out(self._scores.blocks(), self._num_threads))
        in_threads(lambda block: block.sort(), blocks, self._num_threads)
        ranking = Ranking(blocks)
        words = self._positives.merged()
        words.sort()

        def evaluate_span(span: tuple[int, int]) -> _Result:
            scores, areas = decode(words[slice(*span)])
            steps = find_steps(scores, ranking, len(words) - span[0])
            shares = np.divide(1.0, areas, out=np.zeros(len(areas)), where=areas > 0)
            return task(steps, np.add.reduceat(shares, steps.starts))

        return in_threads(evaluate_span, spans(words), self._num_threads)

    def _add_defects(self, maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
        pixels = np.flatnonzero(masks)
        if not len(pixels):
            return
        components, sizes = component_sizes(pixels, *masks.shape[1:])
        scores = maps.reshape(-1)[pixels]
        areas = sizes[components]
        if self._saturation < 1:
            areas = saturate(scores, components, areas, self._saturation)
        self._num_components += len(sizes)
        self._positives.append(encode(scores, areas.astype(np.uint32)))

    def _add_series(
        self, maps: NDArray[Any] | Sequence[ArrayLike], masks: NDArray[Any] | Sequence[ArrayLike | None]
    ) -> None:
        if isinstance(maps, np.ndarray) and isinstance(masks, np.ndarray) and maps.size and masks.ndim == 3:
            self._scores.reserve(maps.size)
            self._positives.reserve(int(np.count_nonzero(masks)))
            self.update(maps, masks)
        else:
            for anomaly_map, mask in zip(maps, masks, strict=True):
                self.update(anomaly_map, mask)

    def _adopt(self, other: "PixelMetrics") -> None:
        """Merge without a copy; ``other`` must not be used any more."""
        self._scores.adopt(other._scores)
        self._positives.adopt(other._positives)
        self._num_images += other._num_images
        self._num_components += other._num_components


def pixel_metrics(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike | None],
    *,
    fpr_limit: float = 0.3,
    saturation: float = 1.0,
    num_threads: int | None = None,
) -> PixelResult:
    """Compute the metrics of all images at once.

    Args:
        maps: anomaly maps, each float32 (H, W), of any sizes; an array (N, H, W) is one such series.
        masks: a mask for each map, bool or integer of its shape, or None for a good image.
        fpr_limit: see ``PixelMetrics``.
        saturation: see ``PixelMetrics``.
        num_threads: see ``PixelMetrics``.

    Raises:
        BadInputError: see ``PixelMetrics.update``; or different numbers of maps and masks.
    """
    if len(maps) != len(masks):
        raise BadInputError(
            f"Given: {counted(len(maps), 'anomaly map')} and {counted(len(masks), 'mask')}; expected one for "
            f"each (None = good)."
        )
    threads = check_num_threads(num_threads)

    def part(bounds: tuple[int, int]) -> PixelMetrics:
        metrics = PixelMetrics(fpr_limit, saturation=saturation, num_threads=threads)
        metrics._add_series(maps[slice(*bounds)], masks[slice(*bounds)])
        return metrics

    cuts = np.linspace(0, len(maps), min(threads, max(len(maps), 1)) + 1).astype(int).tolist()
    first, *others = in_threads(part, list(pairwise(cuts)), threads)
    for other in others:
        first._adopt(other)
    return first.compute()
