"""Verdicts on frames: a bundle opened with an engine and a threshold."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import NOT_RECORDED
from ..bundle.record import ProofState
from ..bundle.store import Bundle, open_bundle
from ..core.errors import LineproofError, ParityError, UsageError
from ..core.spec import Frames
from ..core.threshold import check_threshold
from ..data.inputs.table import input_of
from ..runtime.engine import (
    Engine,
    EngineOptions,
    check_deciding,
    open_engine,
    predict,
    proof_name,
)
from ..runtime.ranking import resolve_auto


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """Verdict on one frame.

    Attributes:
        score: anomaly score; larger is more anomalous, always finite.
        verdict: ``"NG"`` where the score is above the threshold, else ``"OK"``.
        threshold: threshold that the score was compared with.
        anomaly_map: anomaly score of each pixel, float32 (h, w), always finite.
        time_ns: time in ns for upload, execution and download of the frame's batch.
    """

    score: float
    verdict: Literal["OK", "NG"]
    threshold: float
    anomaly_map: NDArray[np.float32]
    time_ns: int


@final
class Line:
    """An open bundle that gives verdicts. Threads may share it; they are let in one by one.

    ``open_line`` opens one. A line is a context manager.

    Attributes:
        bundle: the bundle.
        engine_name: name of the engine that computes.
        engine: that engine, open.
        input: specification of the bundle's input, which reads, checks and fits frames.
        threshold: threshold in use, in units of the score.
        options: choices about the engine.
        order: order of the channels in the caller's frames: ``"rgb"``, ``"bgr"`` or ``"mono"`` for images.
        decision: digest of the bundle's decision: model, preprocessing and thresholds (``Manifest.decision``).
        parity: state of this engine's proof for that decision: ``passed``, ``failed``, ``undecided``, ``unverified``,
            or ``outdated`` where the proof is about another decision. With a threshold of the caller's, ``passed``
            becomes ``outdated``. With an engine that may fall back it becomes ``unverified``, since another engine
            than the proved one may compute.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        engine_name: str,
        options: EngineOptions | None = None,
        threshold: float | None = None,
        order: str | None = None,
    ) -> None:
        self.options = options or EngineOptions()
        calibrated = bundle.manifest.threshold_for(proof_name(engine_name, self.options))
        self._rule = calibrated if threshold is None else dataclasses.replace(calibrated, value=float(threshold))
        self._lock = threading.Lock()
        self.input = input_of(bundle.manifest.preprocessing)
        self.bundle = bundle
        self.engine = engine
        self.engine_name = engine_name
        self.threshold = self._rule.value
        self.order = self.input.check_order(order)
        self.decision = bundle.manifest.decision
        self.parity = self._proof(is_own=threshold is None or self.threshold == calibrated.value)

    def _proof(self, *, is_own: bool) -> ProofState:
        proved = self.bundle.manifest.parity_of(proof_name(self.engine_name, self.options))
        if proved == "passed" and not is_own:
            return "outdated"
        return "unverified" if proved == "passed" and self.options.allow_fallback else proved

    def warnings(self) -> tuple[str, ...]:
        """Sentences that a reader of the verdicts must know; empty where the engine is proved."""
        name = proof_name(self.engine_name, self.options)
        warnings = [] if self.parity == "passed" else [_unproved(name, self.parity, options=self.options)]
        if not self.bundle.manifest.is_decision_recorded:
            warnings.append(
                f"What {self.bundle.path} says of itself (threshold, preprocessing, proofs, tolerances, training) "
                f"{NOT_RECORDED}"
            )
        return tuple(warnings)

    def inspect(
        self,
        frame: Frames | None = None,
        *,
        xyz: NDArray[np.floating] | None = None,
        rgb: NDArray[np.uint8] | None = None,
    ) -> Verdict:
        """Inspect one frame, or one scan.

        Args:
            frame: frame (H, W, C) as the camera gives it, of the size that the bundle takes; for images uint8, RGB or
                mono. None where a scan is given.
            xyz: for a bundle of scans, x, y and z in metres of every pixel, float32 (H, W, 3); (0, 0, 0) or NaN where
                nothing was measured.
            rgb: colours beside them, uint8 (H, W, 3), in the order that the line was opened with.

        Raises:
            BadInputError: the frame has another dtype, size or number of channels, or values that are not finite.
            UsageError: both a frame and a scan are given, or neither; or a scan, to a bundle of images.
            LineproofError: the engine failed, or its score or map is not finite.
        """
        if frame is None or xyz is not None or rgb is not None:
            frame = self._frame_of(frame, xyz, rgb)
        return self.inspect_batch(np.asarray(frame)[None])[0]

    def _frame_of(
        self, frame: Frames | None, xyz: NDArray[np.floating] | None, rgb: NDArray[np.uint8] | None
    ) -> Frames:
        if frame is not None:
            raise UsageError("A scan was given with a frame beside it; expected a frame alone, or xyz and rgb.")
        return self.input.frame_of(xyz, rgb)

    def inspect_batch(self, frames: Frames) -> tuple[Verdict, ...]:
        """Inspect frames in order, in as many batches as the bundle's largest batch needs.

        Args:
            frames: frames (N, H, W, C), channels in the order that the line was opened with.

        Raises:
            BadInputError: the frames have another dtype, size or number of channels, or values that are not finite.
            LineproofError: the engine failed, or a score or map is not finite; no verdict of the call is returned.
        """
        self.input.check(frames)
        frames = self.input.prepare(self.input.in_own_order(frames, order=self.order))
        size = self.bundle.manifest.max_batch
        verdicts: list[Verdict] = []
        with self._lock:
            for start in range(0, len(frames), size):
                verdicts.extend(self._inspect_chunk(frames[start : start + size], first=start))
        return tuple(verdicts)

    def _inspect_chunk(self, frames: Frames, *, first: int) -> list[Verdict]:
        begin_ns = time.perf_counter_ns()
        prediction = predict(self.engine, frames)
        time_ns = time.perf_counter_ns() - begin_ns
        # In float64: NumPy would round the threshold to float32 and could move it onto a score.
        scores = prediction.score.astype(np.float64)
        finite = np.isfinite(scores) & np.isfinite(prediction.anomaly_map).all(axis=(1, 2))
        if not finite.all():
            index = int(np.flatnonzero(~finite)[0])
            raise LineproofError(
                f"Engine {self.engine_name} gave an answer that is not finite for frame {first + index} (score "
                f"{scores[index]}); no verdict was given. Treat the part as not inspected, and run `lineproof verify "
                f"{self.bundle.path} --engine {self.engine_name}`; an fp16 graph that overflows is the usual cause."
            )
        results = zip(scores, self._rule.is_defect(scores), prediction.anomaly_map, strict=True)
        return [
            Verdict(
                score=float(score),
                verdict="NG" if is_defect else "OK",
                threshold=self.threshold,
                anomaly_map=anomaly_map,
                time_ns=time_ns,
            )
            for score, is_defect, anomaly_map in results
        ]

    def close(self) -> None:
        """Close the engine, after a call that is still running has ended."""
        with self._lock:
            self.engine.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_line(  # noqa: PLR0913 (the caller's choices, by name)
    path: Path | str,
    *,
    engine: str = "auto",
    options: EngineOptions | None = None,
    threshold: float | None = None,
    allow_failed: bool = False,
    require_proof: bool = False,
    order: str | None = None,
) -> Line:
    """Open a bundle for inspection.

    An engine that was never verified opens; ``line.parity`` and ``line.warnings()`` say so. One that failed ``verify``
    is refused.

    Args:
        path: folder of the bundle.
        engine: name of an engine. ``"auto"`` takes the preferred one of those that are proved and can run here, and
            where none is proved the preferred one that can run.
        options: choices about the engine; None for the defaults.
        threshold: threshold to use instead of the bundle's, in units of the score.
        allow_failed: whether an engine that failed ``verify`` opens nevertheless.
        require_proof: whether an engine is refused that is not proved for the decision that it would make.
        order: order of the channels in the caller's frames: ``"rgb"`` or ``"bgr"`` (OpenCV's, turned to RGB without
            loss) for a colour bundle, ``"mono"`` for a mono one; None for the bundle's own.

    Raises:
        BundleError: the folder is not a bundle, or the bundle was altered.
        ParityError: the engine failed ``verify`` and ``allow_failed`` is False, or it is not proved and
            ``require_proof`` is True.
        UsageError: there is no such engine, the threshold is not finite, or the bundle cannot take this order.
        EnvironmentMissingError: the engine cannot run here.
    """
    if threshold is not None:
        check_threshold(threshold)
    check_deciding(engine, what="inspect parts")
    bundle = open_bundle(path)
    name = resolve_auto(bundle, engine, options=options)
    state = bundle.manifest.parity_of(proof_name(name, options or EngineOptions()))
    if state == "failed" and (require_proof or not allow_failed):
        raise _refused(bundle, name)
    opened = open_engine(bundle, name, options=options)
    try:
        line = Line(bundle, opened, engine_name=name, options=options, threshold=threshold, order=order)
        if require_proof and line.warnings():
            raise ParityError(
                f"A proof was required. {' '.join(line.warnings())} Prove it: lineproof verify {bundle.path} --engine "
                f"{name}{_bf16(options)}"
            )
    except LineproofError:
        opened.close()
        raise
    return line


def _bf16(options: EngineOptions | None) -> str:
    dtype = (options or EngineOptions()).compute_dtype
    return "" if dtype == "f32" else f" --compute-dtype {dtype}"


def _unproved(engine: str, state: ProofState, *, options: EngineOptions) -> str:
    """Sentence that says why an engine's verdicts are not proved to be the reference's."""
    if options.allow_fallback and state == "unverified":
        return f"Engine {engine} is not proved: it was allowed to fall back, and a fallback has no proof."
    words = {
        "failed": "failed its last verify: its verdicts are not the reference's",
        "undecided": "was verified without a decision: too many frames were ties",
        "unverified": "was never verified on this bundle",
        "outdated": "was verified for another decision than the one it makes now (another threshold, or another model)",
    }
    return f"Engine {engine} is not proved: it {words[state]}."


def _refused(bundle: Bundle, engine: str) -> ParityError:
    passed = [other for other in bundle.manifest.parity if bundle.manifest.parity_of(other) == "passed"]
    others = f"Engines that passed: {', '.join(passed)}. " if passed else ""
    return ParityError(
        f"{bundle.path} failed its last `lineproof verify --engine {engine}`: its verdicts are not the reference's. "
        f"{others}Export it again; or read proof.json in it, and if you accept what it says open it with "
        "--allow-failed (in Python: allow_failed=True)."
    )
