"""Comparison of two sides on the same images: engines, bundles, or saved outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ...bundle.store import open_bundle
from ...core.progress import Progress, silent
from ...core.used import UsedShare
from ...core.words import counted
from ...data.notes import DataNotes
from ...metrics.bootstrap import Evidence, pixel_evidence
from ...metrics.correlation import rank_correlation
from ...metrics.operating import no_class_lines
from ...metrics.statistics import Difference, McNemar, Resampling, image_difference, mcnemar, pixel_differences, to_dict
from ...runtime.engine import EngineOptions
from ...runtime.ranking import resolve_auto, share_options
from ..masks import RESOLUTIONS, Resolution
from .outputs import Outputs
from .pairs import check_masks, in_step, same_pixels, same_places, used_share
from .request import EvaluationRequest, target_outputs

_NUM_WORST = 10


@final
@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image with two verdicts.

    Attributes:
        file: the image.
        label: ``"good"``, or its type of defect.
        left_score: score that the left side gives.
        right_score: score that the right side gives.
        left_margin: the left score minus the left side's threshold; above 0 the verdict is NG.
        right_margin: the right score minus the right side's threshold; above 0 the verdict is NG.
    """

    file: str
    label: str
    left_score: float
    right_score: float
    left_margin: float
    right_margin: float

    def __str__(self) -> str:
        words = ["NG" if margin > 0 else "OK" for margin in (self.left_margin, self.right_margin)]
        return (
            f"{self.file} ({self.label}): {words[0]} by {abs(self.left_margin):.3g} became {words[1]} by "
            f"{abs(self.right_margin):.3g}"
        )


@final
@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """Differences between two sides on the same images.

    Attributes:
        left: name of the left side: bundle, precision and engine.
        right: name of the right side.
        num_frames: number of images that both sides judged.
        flips: images with two verdicts, each side by its own threshold.
        mcnemar: paired test of whether one side judges more images as their labels say.
        score_max_abs_error: largest |right − left| of the scores.
        map_max_abs_error: largest |right − left| over all pixels of the maps; None where the maps differ in size or
            show different parts of the images.
        rank_correlation: Spearman's rank correlation of the scores; None where it is undefined.
        image_auroc: difference of the image AUROC; None where a class is absent.
        pixel_auroc: difference of the pixel AUROC; None where no mask marks a defect or the sides judge other pixels.
        aupro: difference of the AUPRO; None where the pixel AUROC has none.
        worst: the images whose maps differ most, the worst first: (file, largest |right − left|).
        resampling: number of resamples, seed and limit behind the intervals.
        pixel_resolution: resolution at which maps and masks were compared.
        used: number of images that were compared, of those of either side, and the reasons for the others.
        request: the request that both sides share; it says what share must be used, and whether all others are named.
        data: descriptions of the data sets of both sides, each once.
        num_defective: number of images that are labelled defective.
        notices: what a person should know about the images, in sentences.
    """

    left: str
    right: str
    num_frames: int
    flips: tuple[Flip, ...]
    mcnemar: McNemar
    score_max_abs_error: float
    map_max_abs_error: float | None
    rank_correlation: float | None
    image_auroc: Difference | None
    pixel_auroc: Difference | None
    aupro: Difference | None
    worst: tuple[tuple[str, float], ...]
    resampling: Resampling
    pixel_resolution: Resolution
    used: UsedShare
    request: EvaluationRequest
    data: tuple[DataNotes, ...]
    num_defective: int
    notices: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise BadInputError where fewer of the images were compared than was asked for."""
        self.used.check(self.request.min_used)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "left": self.left,
            "right": self.right,
            "num_frames": self.num_frames,
            "used": self.used.to_dict(),
            "verdict_flips": [vars(flip) for flip in self.flips],
            "mcnemar": to_dict(self.mcnemar),
            "score_max_abs_error": self.score_max_abs_error,
            "map_max_abs_error": self.map_max_abs_error,
            "rank_correlation": self.rank_correlation,
            "image_auroc": to_dict(self.image_auroc),
            "pixel_auroc": to_dict(self.pixel_auroc),
            "aupro": to_dict(self.aupro),
            "pixel_resolution": self.pixel_resolution,
            "worst": [{"file": file, "map_max_abs_error": error} for file, error in self.worst],
            "resampling": to_dict(self.resampling),
            "data": [item.to_dict() for item in self.data],
            "conversions": list(self.notices),
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        test, map_error = self.mcnemar, self.map_max_abs_error
        of_maps = (
            "not compared: their sizes differ, or what their pixels show" if map_error is None else f"{map_error:.3g}"
        )
        lines = [
            *no_class_lines(num_good=self.num_frames - self.num_defective, num_defective=self.num_defective),
            *self.used.lines(lists_all=self.request.lists_all),
            f"Left: {self.left}. Right: {self.right}. {counted(self.num_frames, 'image')}.",
            f"Verdicts: {test.num_flips} of {test.num_frames} differ; at 95 % at most {test.flip_rate_bound:.2%} of "
            "such images do.",
            *(f"  {flip}" for flip in self.flips),
            f"McNemar: right on the left side alone {test.only_left_right}, on the right side alone "
            f"{test.only_right_right}, p = {test.p_value:.3g}.",
            f"Largest difference: score {self.score_max_abs_error:.3g}, map {of_maps}.",
        ]
        if self.rank_correlation is not None:
            lines.append(f"Rank correlation of the scores: {self.rank_correlation:.6f}.")
        named = (("Image AUROC", self.image_auroc), ("Pixel AUROC", self.pixel_auroc), ("AUPRO", self.aupro))
        lines += [figure.sentence(name) if figure else f"{name}: -." for name, figure in named]
        if self.aupro:
            lines.append(f"Pixel figures {RESOLUTIONS[self.pixel_resolution]}.")
        lines.append(
            f"Intervals: {self.resampling.num_resamples} paired resamples of the images, seed {self.resampling.seed}."
        )
        return tuple(lines)


#: Called with the result, and the outputs of the left and the right side.
Show = Callable[[ComparisonResult, Outputs, Outputs], None]


@final
@dataclass(frozen=True, kw_only=True)
class ComparisonRequest:
    """Two sides, and the data set and the settings that they share.

    Attributes:
        left: bundle, or file of saved outputs.
        right: bundle, or file of saved outputs; may be the left one, run on another engine.
        shared: data set and settings of both sides, and the engine of the left one.
        right_engine: engine of the right side; None for the left one's.
        resampling: number of resamples, seed and limit behind the intervals.
    """

    left: Path
    right: Path
    shared: EvaluationRequest = field(default_factory=EvaluationRequest)
    right_engine: str | None = None
    resampling: Resampling = field(default_factory=Resampling)

    def sides(self) -> tuple[tuple[Path, EvaluationRequest], tuple[Path, EvaluationRequest]]:
        """What to run, and how, for the left and for the right side: each with the options that its engine can honour.

        Raises:
            UsageError: an option that the engine of neither side can honour.
        """
        first = self.shared
        second = dataclasses.replace(first, engine=self.right_engine or first.engine)
        # Saved outputs need no options.
        if first.options != EngineOptions() and not (self.left.is_file() or self.right.is_file()):
            first, second = (
                dataclasses.replace(side, engine=resolve_auto(open_bundle(target), side.engine, options=side.options))
                for target, side in ((self.left, first), (self.right, second))
            )
            options = share_options((first.engine, second.engine), self.shared.options)
            first, second = (
                dataclasses.replace(side, options=own) for side, own in zip((first, second), options, strict=True)
            )
        return (self.left, first), (self.right, second)


def compare(request: ComparisonRequest, *, show: Show | None = None, progress: Progress = silent) -> ComparisonResult:
    """Compare two sides on the images that both can judge.

    Args:
        request: the two sides, and what they share.
        show: called with the result and the outputs of both sides while their maps are still on disk.
        progress: called at every step.

    Raises:
        BadInputError: fewer than two images are on both sides, or they are labelled differently.
        UsageError: an option that the engine of neither side can honour.
    """
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(target_outputs(target, side, progress=progress)) for target, side in request.sides()
        ]
        first, second = in_step(*outputs)
        used = used_share(*outputs, num_compared=len(first))
        result = _compare(first, second, request.resampling, request=request.shared, used=used, progress=progress)
        if show:
            show(result, first, second)
    return result


def _compare(
    left: Outputs,
    right: Outputs,
    resampling: Resampling,
    *,
    request: EvaluationRequest,
    used: UsedShare,
    progress: Progress,
) -> ComparisonResult:
    is_aligned = same_places(left, right)
    errors = _map_errors(left, right) if is_aligned else np.empty(0)
    roc, pro = _pixels(left, right, resampling, resolution=request.resolution, progress=progress)
    worst = np.argsort(-errors, kind="stable")[:_NUM_WORST]
    return ComparisonResult(
        left=str(left.source),
        right=str(right.source),
        num_frames=len(left),
        flips=_flips(left, right),
        mcnemar=mcnemar(left.is_rejected, right.is_rejected, left.label),
        score_max_abs_error=float(np.abs(right.score.astype(np.float64) - left.score).max()),
        map_max_abs_error=float(errors.max()) if is_aligned else None,
        rank_correlation=rank_correlation(left.score, right.score),
        image_auroc=image_difference(left.score, right.score, left.label, resampling=resampling),
        pixel_auroc=roc,
        aupro=pro,
        worst=tuple((left.files[i], float(errors[i])) for i in worst),
        resampling=resampling,
        pixel_resolution=request.resolution,
        used=used,
        request=request,
        data=tuple(dict.fromkeys((left.source.data, right.source.data))),
        num_defective=int(left.label.sum()),
        notices=tuple(dict.fromkeys((*left.source.notices, *right.source.notices))),
    )


def _map_errors(left: Outputs, right: Outputs) -> NDArray[np.float64]:
    pairs = zip(left.anomaly_map, right.anomaly_map, strict=True)
    return np.array([np.abs(b.astype(np.float64) - a).max() for a, b in pairs])


def _pixels(
    left: Outputs, right: Outputs, resampling: Resampling, *, resolution: Resolution, progress: Progress
) -> tuple[Difference | None, Difference | None]:
    """Differences of the pixel figures; none where the two sides judge other pixels, or no defect has a mask."""
    known = np.flatnonzero(left.has_mask & right.has_mask)
    if not (left.label[known].any() and same_pixels(left, right, resolution)):
        return None, None
    check_masks(left, right, known)

    def evidence(side: Outputs) -> Evidence:
        return pixel_evidence(side.pixels_of(index, resolution=resolution) for index in known.tolist())

    sides = (evidence(side) for side in (left, right))
    return pixel_differences(sides, left.label[known], resampling=resampling, progress=progress)


def _flips(left: Outputs, right: Outputs) -> tuple[Flip, ...]:
    flips = []
    for index in np.flatnonzero(left.is_rejected != right.is_rejected):
        left_score, right_score = float(left.score[index]), float(right.score[index])
        flip = Flip(
            file=left.files[index],
            label=left.defects[index],
            left_score=left_score,
            right_score=right_score,
            left_margin=left_score - left.source.threshold,
            right_margin=right_score - right.source.threshold,
        )
        flips.append(flip)
    return tuple(flips)
