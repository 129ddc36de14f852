"""Comparison of an engine with the reference, frame by frame; no map is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import Manifest
from ...bundle.record import ParityState
from ...core.errors import BundleError
from ...core.prediction import Prediction
from ...core.spec import TensorSpec
from ...core.threshold import Threshold
from ...metrics.correlation import rank_correlation
from ..predictions import json_number
from .judgement import FrameComparison, Judgement
from .report import FrameVerdict, Margin, list_files

_NUM_WORST = 10
#: Largest share of ties with which verdicts still prove something.
MAX_TIE_SHARE = 0.05
#: A score cannot be told from another one more finely than float32 arithmetic lets it be computed.
_RESOLUTION = 16 * float(np.finfo(np.float32).eps)


@final
class Comparison:
    """Frames compared so far.

    Args:
        manifest: manifest of the bundle, with tolerances, ranges and the shapes of the outputs.
        threshold: the threshold of both sides.
        spread: spread of scores, of which tolerances are shares; None measures it, see ``_spread``.

    Raises:
        BundleError: the manifest has no tolerance for its own precision.
    """

    def __init__(self, manifest: Manifest, *, threshold: Threshold, spread: float | None = None) -> None:
        if manifest.precision not in manifest.tolerances:
            raise BundleError(
                f"Bundle {manifest.name} is {manifest.precision}, but its manifest has tolerances for "
                f"{', '.join(manifest.tolerances) or 'no precision'} only. Export the bundle again."
            )
        self._manifest = manifest
        self._threshold = threshold
        self._given_spread = spread
        self._frames: list[FrameComparison] = []
        self._malformed: list[str] = []
        self._num_malformed = 0
        self._map_low, self._map_high = np.inf, -np.inf

    def add(
        self,
        files: Sequence[str],
        *,
        origin: str,
        reference: Prediction,
        engine: Prediction,
        labels: Sequence[int] | None = None,
    ) -> bool:
        """Add a batch of frames.

        Args:
            files: names of the frames.
            origin: ``"golden"`` or ``"data"``.
            reference: scores and maps of the reference on them.
            engine: scores and maps of the engine under test on them.
            labels: for each frame 0 for good, 1 for defective; None where the labels are not known.

        Returns:
            True where the engine's outputs have the shapes and dtypes that the bundle promises; False where they
            have not: the batch is then counted as malformed, which fails.

        Raises:
            BundleError: the reference's outputs have other shapes than the bundle promises.
        """
        problems = self._shape_problems(reference, len(files))
        if problems:
            raise BundleError(f"The reference on {files[0]} is not what the manifest promises: {' '.join(problems)}")
        problems = self._shape_problems(engine, len(files))
        if problems:
            self._num_malformed += len(files)
            self._malformed.extend(problem for problem in problems if problem not in self._malformed)
            return False
        for index, file in enumerate(files):
            self._add_frame(file, origin, reference, engine, index, label=labels[index] if labels else None)
        return True

    def _shape_problems(self, prediction: Prediction, num_frames: int) -> list[str]:
        specs = {spec.name: spec for spec in self._manifest.outputs}
        outputs = (("score", prediction.score), ("anomaly_map", prediction.anomaly_map))
        return [text for name, array in outputs if (text := _shape_problem(specs[name], array, num_frames))]

    def _add_frame(
        self, file: str, origin: str, reference: Prediction, engine: Prediction, index: int, *, label: int | None
    ) -> None:
        left, right = reference.anomaly_map[index], engine.anomaly_map[index]
        finite = (bool(np.isfinite(left).all()), bool(np.isfinite(right).all()))
        error = float("nan")
        if all(finite):
            error = float(np.abs(right.astype(np.float64) - left).max())
        if finite[0]:
            self._map_low = min(self._map_low, float(left.min()))
            self._map_high = max(self._map_high, float(left.max()))
        frame = FrameComparison(
            file=file,
            origin=origin,
            reference_score=float(reference.score[index]),
            engine_score=float(engine.score[index]),
            map_error=error,
            map_is_finite=finite,
            label=label,
        )
        self._frames.append(frame)

    def judge(self) -> Judgement:
        """Judge all frames added so far by the bundle's tolerances."""
        reference = np.array([frame.reference_score for frame in self._frames], dtype=np.float32)
        engine = np.array([frame.engine_score for frame in self._frames], dtype=np.float32)
        map_range = self._map_high - self._map_low if self._map_high >= self._map_low else None
        shares = self._manifest.tolerances[self._manifest.precision]
        spread = self._spread(reference) if self._given_spread is None else self._given_spread
        # By the threshold and not by the scores: one part far from it must not make ties of all others.
        tie_width = max(shares.score_spread * spread, _RESOLUTION * abs(self._threshold.value))
        map_limit = shares.anomaly_map * max(map_range or 0.0, self._manifest.map_range)
        flips, ties = self._verdicts(reference, engine, tie_width)
        score_errors = _distance(reference, engine)
        map_errors = np.array([frame.map_error for frame in self._frames])
        margins = np.abs(reference.astype(np.float64) - self._threshold.value)
        failures = [*self._broken(), *_flip_failure([flip for flip in flips if not flip.is_tie], len(self._frames))]
        failures += self._too_far("score", score_errors, tie_width + shares.score_margin * margins)
        failures += self._too_far("map", map_errors, np.full(len(map_errors), map_limit))
        return Judgement(
            state=_state(failures, num_ties=len(ties), num_frames=len(self._frames)),
            num_frames=len(self._frames) + self._num_malformed,
            verdict_flips=flips,
            ties=ties,
            score_max_abs_error=_largest(score_errors),
            map_max_abs_error=_largest(map_errors),
            score_range=_extent(reference[np.isfinite(reference)]),
            map_range=map_range,
            score_spread=spread,
            score_tolerance=tie_width,
            map_tolerance=map_limit,
            rank_correlation=rank_correlation(reference, engine),
            smallest_margin=self._smallest_margin(reference),
            worst_frames=self._worst(map_errors),
            failures=tuple(failures),
        )

    def _spread(self, reference: NDArray[np.float32]) -> float:
        """Spread of the reference's scores of parts that are alike, in units of the score.

        The standard deviation over held-out good images, and over the defective frames where there are labels: the
        smaller of the two, since an error must be small against both. Where the bundle does not know the first, the
        frames that the reference accepts stand in.
        """
        held_out = self._manifest.score_spread
        if not held_out:
            held_out = _deviation(reference[~self._threshold.is_defect(reference)])
        defective = _deviation(reference[[frame.label == 1 for frame in self._frames]])
        return min((value for value in (held_out, defective) if value > 0), default=0.0)

    def _verdicts(
        self, reference: NDArray[np.float32], engine: NDArray[np.float32], tie_width: float
    ) -> tuple[tuple[FrameVerdict, ...], tuple[FrameVerdict, ...]]:
        """Frames whose verdicts differ, and frames on which the reference itself decides nothing."""
        flips, ties = [], []
        sides = zip(self._frames, _words(self._threshold, reference), _words(self._threshold, engine), strict=True)
        for frame, expected, actual in sides:
            margin = frame.reference_score - self._threshold.value
            verdict = FrameVerdict(
                file=frame.file,
                origin=frame.origin,
                reference_score=json_number(frame.reference_score),
                engine_score=json_number(frame.engine_score),
                reference_verdict=expected,
                engine_verdict=actual,
                margin=json_number(margin),
                is_tie=abs(margin) <= tie_width and actual != "ERR",
            )
            if verdict.is_tie:
                ties.append(verdict)
            if actual != expected:
                flips.append(verdict)
        return tuple(flips), tuple(ties)

    def _broken(self) -> list[str]:
        failures = list(self._malformed)
        for side, bad in (
            ("engine", [frame.file for frame in self._frames if not frame.engine_is_finite]),
            ("reference", [frame.file for frame in self._frames if not frame.reference_is_finite]),
        ):
            if bad:
                failures.append(
                    f"The {side} gives NaN or infinity on {len(bad)} of {len(self._frames)} frames: {list_files(bad)}."
                )
        return failures

    def _too_far(self, noun: str, errors: NDArray[np.float64], limits: NDArray[np.float64]) -> list[str]:
        # NaN compares as False: what is no number has a failure of its own.
        bad = np.flatnonzero(errors > limits)
        if not len(bad):
            return []
        worst = bad[np.argmax(errors[bad] / np.maximum(limits[bad], np.finfo(np.float64).tiny))]
        return [
            f"The {noun} is off by {errors[worst]:.4g} on {self._frames[worst].file}, where {limits[worst]:.4g} is "
            f"allowed ({self._manifest.precision}), and too far off on {len(bad)} of {len(self._frames)} frames."
        ]

    def _worst(self, errors: NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
        order = [i for i in np.argsort(-errors, kind="stable") if np.isfinite(errors[i])]
        return tuple((self._frames[i].file, float(errors[i])) for i in order[:_NUM_WORST])

    def _smallest_margin(self, reference: NDArray[np.float32]) -> Margin | None:
        margins = np.abs(reference.astype(np.float64) - self._threshold.value)
        if not np.isfinite(margins).any():
            return None
        nearest = int(np.nanargmin(margins))
        return Margin(self._frames[nearest].file, float(margins[nearest]))


def _shape_problem(spec: TensorSpec, array: NDArray[Any], num_frames: int) -> str:
    expected = (num_frames, *spec.shape[1:])
    if array.dtype == np.dtype(spec.dtype) and array.shape == expected:
        return ""
    return f"{spec.name} is {array.dtype} {array.shape}; expected {spec.dtype} {expected}."


def _words(threshold: Threshold, scores: NDArray[np.float32]) -> list[str]:
    defects = threshold.is_defect(scores)
    pairs = zip(scores, defects, strict=True)
    return [("NG" if is_defect else "OK") if np.isfinite(score) else "ERR" for score, is_defect in pairs]


def _flip_failure(flips: Sequence[FrameVerdict], num_frames: int) -> list[str]:
    if not flips:
        return []
    noun = "verdict differs" if len(flips) == 1 else "verdicts differ"
    return [f"{len(flips)} of {num_frames} {noun} from the reference: {list_files([str(flip) for flip in flips])}."]


def _distance(reference: NDArray[np.float32], engine: NDArray[np.float32]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(engine.astype(np.float64) - reference))


def _state(failures: Sequence[str], *, num_ties: int, num_frames: int) -> ParityState:
    if failures:
        return "failed"
    return "undecided" if num_ties > MAX_TIE_SHARE * num_frames else "passed"


def _deviation(scores: NDArray[np.float32]) -> float:
    """Standard deviation of the finite scores; 0 for fewer than two."""
    finite = scores[np.isfinite(scores)].astype(np.float64)
    return float(finite.std(ddof=1)) if len(finite) > 1 else 0.0


def _extent(values: NDArray[np.float32]) -> float | None:
    return float(values.max().astype(np.float64) - values.min()) if values.size else None


def _largest(errors: NDArray[np.float64]) -> float | None:
    return json_number(errors.max()) if errors.size else None
