"""Two sides on the same images: engines, bundles, or outputs that were saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ...bundle.store import open_bundle
from ...core.errors import UsageError
from ...core.progress import Progress, silent
from ...core.used import UsedShare
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
        left_score: score of the left side; right_score of the right one.
        left_margin: that score minus the left side's threshold; right_margin likewise. Above 0 is NG.
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
    """What the two sides differ in.

    Attributes:
        left: the left side; right: the right side.
        num_frames: images that both judged.
        flips: images with two verdicts, each side by its own threshold.
        mcnemar: whether one side judges more images right.
        score_max_abs_error: largest |right − left| of the scores; map_max_abs_error of the maps, None where their
            sizes differ, or what their pixels show.
        rank_correlation: Spearman's, of the scores.
        image_auroc: difference of the image AUROC; None where a class is absent.
        pixel_auroc: of the pixel AUROC; None where no pixel is labelled as a defect or maps differ in size.
        aupro: of the AUPRO.
        worst: the images whose maps differ most, the worst first: (file, largest |right − left|).
        how: how the intervals were made.
        pixel_resolution: where maps and masks met.
        used: how many of the images of either side were compared.
        request: how the left side was run: what share must be used, and whether all others are named.
        data: the data sets of both sides in words, each once.
        num_defective: how many of the images are defective.
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
    how: Resampling
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
            "resampling": to_dict(self.how),
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
            f"Left: {self.left}. Right: {self.right}. {self.num_frames} images.",
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
        lines += [found.sentence(name) if found else f"{name}: -." for name, found in named]
        if self.aupro:
            lines.append(f"Pixel figures {RESOLUTIONS[self.pixel_resolution]}.")
        lines.append(f"Intervals: {self.how.num_resamples} paired resamples of the images, seed {self.how.seed}.")
        return tuple(lines)


#: Called with what differs, and the outputs of the left and the right side.
Show = Callable[[ComparisonResult, Outputs, Outputs], None]


def one_each(engines: Sequence[str]) -> tuple[str, str]:
    """One engine for both sides, or one for each.

    Raises:
        UsageError: more than two.
    """
    if len(engines) > 2:
        raise UsageError(f"--engine was given {len(engines)} times; expected once, or twice for left and right.")
    return engines[0], engines[-1]


def compare(
    left: Path,
    right: Path,
    choices: tuple[EvaluationRequest, EvaluationRequest],
    *,
    how: Resampling | None = None,
    show: Show | None = None,
    progress: Progress = silent,
) -> ComparisonResult:
    """Compare two sides on the images that both can judge.

    Args:
        left: bundle, or file of saved outputs.
        right: the same.
        choices: how to run each.
        how: resampling; None for 1000 resamples, seed 0.
        show: called with the result and both sides while their maps are still on disk.
        progress: told about every step.

    Raises:
        BadInputError: fewer than two images are on both sides, or they are labelled differently.
        UsageError: an option that the engine of neither side can honour.
    """
    choices = _share(left, right, choices)
    with ExitStack() as stack:
        sides = [
            stack.enter_context(target_outputs(target, request, progress=progress))
            for target, request in zip((left, right), choices, strict=True)
        ]
        first, second = in_step(*sides)
        used = used_share(*sides, num_compared=len(first))
        found = _compare(first, second, how or Resampling(), request=choices[0], used=used, progress=progress)
        if show:
            show(found, first, second)
    return found


def _share(
    left: Path, right: Path, choices: tuple[EvaluationRequest, EvaluationRequest]
) -> tuple[EvaluationRequest, EvaluationRequest]:
    """Each side with the options that its engine can honour, see ``share_options``; saved outputs need none."""
    asked = choices[0].options
    if asked == EngineOptions() or asked != choices[1].options or left.is_file() or right.is_file():
        return choices
    first, second = (
        dataclasses.replace(request, engine=resolve_auto(open_bundle(target), request.engine, options=request.options))
        for target, request in zip((left, right), choices, strict=True)
    )
    options = share_options((first.engine, second.engine), asked)
    return dataclasses.replace(first, options=options[0]), dataclasses.replace(second, options=options[1])


def _compare(
    left: Outputs, right: Outputs, how: Resampling, *, request: EvaluationRequest, used: UsedShare, progress: Progress
) -> ComparisonResult:
    is_aligned = same_places(left, right)
    errors = _map_errors(left, right) if is_aligned else np.empty(0)
    roc, pro = _pixels(left, right, how, resolution=request.resolution, progress=progress)
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
        image_auroc=image_difference(left.score, right.score, left.label, how=how),
        pixel_auroc=roc,
        aupro=pro,
        worst=tuple((left.files[i], float(errors[i])) for i in worst),
        how=how,
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
    left: Outputs, right: Outputs, how: Resampling, *, resolution: Resolution, progress: Progress
) -> tuple[Difference | None, Difference | None]:
    """Differences of the pixel figures; none where the two sides judge other pixels, or no defect has a mask."""
    known = np.flatnonzero(left.has_mask & right.has_mask)
    if not (left.label[known].any() and same_pixels(left, right, resolution)):
        return None, None
    check_masks(left, right, known)

    def evidence(side: Outputs) -> Evidence:
        return pixel_evidence(side.pixels_of(index, resolution=resolution) for index in known.tolist())

    sides = (evidence(side) for side in (left, right))
    return pixel_differences(sides, left.label[known], how=how, progress=progress)


def _flips(left: Outputs, right: Outputs) -> tuple[Flip, ...]:
    found = []
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
        found.append(flip)
    return tuple(found)
