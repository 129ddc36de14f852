"""The one protocol that every engine speaks, and the table of engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..bundle.store import Bundle
from ..core.errors import BundleError, EnvironmentMissingError, UsageError
from ..core.prediction import Prediction
from ..core.registry import resolve
from ..host.extras import install

Frames = NDArray[np.uint8]

ENGINES = {
    "torch": "lineproof.runtime.torch_eager:TorchEngine",
    "ort-cpu": "lineproof.runtime.ort:OrtCpuEngine",
    "ort-cuda": "lineproof.runtime.ort:OrtCudaEngine",
    "ort-trt": "lineproof.runtime.ort:OrtTrtEngine",
    "openvino": "lineproof.runtime.ov:OpenVinoEngine",
    "trt": "lineproof.runtime.trt:TrtEngine",
    "trt-rtx": "lineproof.runtime.trt:TrtRtxEngine",
    "null": "lineproof.runtime.null:NullEngine",
}
#: The engine that answers zeros: it measures the harness and decides nothing about a part.
NULL_ENGINE = "null"
#: Order in which ``auto`` tries the engines: the fastest that proves the same numbers first.
AUTO_ORDER = ("trt", "trt-rtx", "ort-cuda", "openvino", "ort-cpu")
#: Which of them it takes first, by what is proved; whatever is neither stands between.
_RANKS = {"passed": 0, "failed": 2}


@dataclass(frozen=True)
class EngineOptions:
    """What a caller may choose about an engine.

    Attributes:
        device: index of the GPU.
        num_threads: threads of a CPU engine; 0 leaves the engine's own default.
        compute_dtype: arithmetic of an engine that could choose by itself: ``"f32"`` or, OpenVINO only,
            ``"bf16"``. It never lowers the precision that is written in the graph.
        allow_fallback: accept that the engine runs part of the graph elsewhere than asked (on the CPU).
    """

    device: int = 0
    num_threads: int = 0
    compute_dtype: str = "f32"
    allow_fallback: bool = False


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here.

    Attributes:
        name: the engine.
        is_available: True where it can be opened.
        looked_for: what it needs, in words.
        found: what was found, versions or the error.
        fix: the one command or step that would make it available, or "".
    """

    name: str
    is_available: bool
    looked_for: str
    found: str
    fix: str


@runtime_checkable
class Engine(Protocol):
    """A bundle opened for inference.

    A call is ``upload``, ``execute``, ``download``: apart, so that copies and kernels can be timed apart.
    ``execute`` returns when the outputs are complete (a GPU engine synchronises). An engine may be used by
    one thread at a time; a second thread that enters meanwhile gets a LineproofError, not a wrong answer.
    """

    def __init__(self, bundle: Bundle, *, options: EngineOptions) -> None: ...

    @classmethod
    def availability(cls) -> Availability:
        """Say whether this engine can run here, without opening a model."""
        ...

    def upload(self, frames: Frames) -> None:
        """Check uint8 (N, H, W, C) frames against the bundle's input and copy them to the device."""
        ...

    def execute(self) -> None:
        """Compute the uploaded batch, to the end."""
        ...

    def download(self) -> Prediction:
        """Copy the outputs of the last ``execute`` to the host, into arrays of their own."""
        ...

    def device_time_ns(self) -> int | None:
        """Time of the last ``execute`` by the device's own events in ns; None where there are none."""
        ...

    def device_bytes(self) -> int | None:
        """Device memory in use in bytes; None for a CPU engine."""
        ...

    def describe(self) -> dict[str, Any]:
        """Library version, provider, threads, device, arithmetic: what a measurement must record."""
        ...

    def close(self) -> None:
        """Give everything back; a closed engine refuses further calls."""
        ...


def predict(engine: Engine, frames: Frames) -> Prediction:
    """Upload, execute, download."""
    engine.upload(frames)
    engine.execute()
    return engine.download()


def availability(name: str) -> Availability:
    """Say whether the named engine can run here; a missing package is an answer, not an error."""
    engine: type[Engine] = resolve(ENGINES, name, kind="engine")
    return engine.availability()


def cpu_engines() -> tuple[str, ...]:
    """Engines of the table that run the graph on the CPU, available or not; without the reference and null."""
    others = ("torch", "null")
    return tuple(name for name in ENGINES if name not in others and not resolve(ENGINES, name, kind="engine").uses_gpu)


def open_engine(bundle: Bundle, name: str, *, options: EngineOptions | None = None) -> Engine:
    """Open ``bundle`` with the engine of that name, or with the first available one for ``"auto"``.

    Raises:
        UsageError: no engine of that name.
        EnvironmentMissingError: its package, driver or GPU is missing, or (TensorRT) it has no plan for here.
        BundleError: another bundle took this one's place meanwhile.
    """
    chosen = resolve_auto(bundle, name, options=options)
    engine: type[Engine] = resolve(ENGINES, chosen, kind="engine")
    options = options or EngineOptions()
    state = engine.availability()
    # A caller who accepts a fallback gets as far as the engine itself can go.
    if not state.is_available and not options.allow_fallback:
        others = [other for other in ENGINES if other not in (chosen, "null") and availability(other).is_available]
        raise EnvironmentMissingError(
            f"Engine {chosen} cannot run here. Looked for: {state.looked_for}. Found: {state.found}. "
            f"To fix: {state.fix}. Engines that work here: {', '.join(others) or 'none'}."
        )
    opened = engine(bundle, options=options)
    try:
        bundle.check_same_files()
    except BundleError:
        opened.close()
        raise
    return opened


def pick_engine(bundle: Bundle, *, options: EngineOptions | None = None) -> str:
    """The engine that ``auto`` means: the first available one of AUTO_ORDER that is proved for the bundle's decision.

    Where none is proved, the first that did not fail its last verify, then any; TensorRT only where the bundle holds a
    plan for it.

    Args:
        bundle: whose proofs count.
        options: the arithmetic that must be proved.

    Raises:
        EnvironmentMissingError: no engine can run here.
    """
    planned = {plan.engine for plan in bundle.manifest.plans}
    candidates = [name for name in AUTO_ORDER if not name.startswith("trt") or name in planned]
    here = [name for name in candidates if availability(name).is_available]
    if not here:
        raise EnvironmentMissingError(
            f"No engine is available here; looked for {', '.join(AUTO_ORDER)}. "
            f"Install one: {install('cpu')}, or {install('openvino')}."
        )
    asked = options or EngineOptions()
    # Of equals the first: a minimum keeps the order.
    return min(here, key=lambda name: _RANKS.get(bundle.manifest.parity_of(proof_name(name, asked)), 1))


def resolve_auto(bundle: Bundle, name: str, *, options: EngineOptions | None = None) -> str:
    """The engine that a caller's word means: ``"auto"`` is ``pick_engine``'s answer, any other word itself."""
    return pick_engine(bundle, options=options) if name == "auto" else name


def check_deciding(engine: str, *, what: str) -> None:
    """Raise UsageError for the engine that computes nothing, where a part's fate would hang on its zeros.

    Args:
        engine: the engine asked for.
        what: what it was to do, in words ("inspect parts").
    """
    if engine == NULL_ENGINE:
        raise UsageError(
            f"Engine {NULL_ENGINE} computes nothing and answers zeros: it cannot {what}. It is there for `lineproof "
            "profile`, which measures the harness with it. Name another engine, or auto."
        )


def proof_name(engine: str, options: EngineOptions) -> str:
    """Under which name a manifest keeps what verify found: other arithmetic than the default needs its own proof."""
    return engine if options.compute_dtype == "f32" else f"{engine}:{options.compute_dtype}"


def check_batch(bundle: Bundle, frames: Frames) -> None:
    """Check dtype, shape and batch size of frames against a bundle.

    Raises:
        BadInputError: another dtype, size or channel count.
        UsageError: more frames than the bundle was exported for, or none.
    """
    bundle.manifest.inputs[0].check(frames)
    if not 1 <= len(frames) <= bundle.manifest.max_batch:
        raise UsageError(
            f"A batch of {len(frames)} frames; this bundle takes 1 to {bundle.manifest.max_batch}. "
            "Split the batch, or export again with a larger --batch."
        )
