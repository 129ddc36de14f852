"""The protocol that every engine follows, and the table of engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from ..bundle.store import Bundle
from ..core.errors import BundleError, EnvironmentMissingError, UsageError
from ..core.prediction import Prediction
from ..core.registry import resolve
from ..core.spec import Frames as Frames

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


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What a caller may choose about an engine.

    Attributes:
        device: index of the GPU in CUDA's order, from 0.
        num_threads: number of threads of a CPU engine; 0 leaves the engine's own default.
        compute_dtype: arithmetic of an engine that could choose it by itself: ``"f32"`` or, with OpenVINO only,
            ``"bf16"``. It does not change the precision that is written in the graph.
        allow_fallback: whether the engine may run the graph, or a part of it, elsewhere than asked (on the CPU).
    """

    device: int = 0
    num_threads: int = 0
    compute_dtype: str = "f32"
    allow_fallback: bool = False


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether an engine can run here.

    Attributes:
        name: name of the engine.
        is_available: whether it can be opened.
        looked_for: what the engine needs, in words.
        found: what is here, in words: versions, or the error.
        fix: the one command or step that would make it available; "" where it is.
    """

    name: str
    is_available: bool
    looked_for: str
    found: str
    fix: str


@runtime_checkable
class Engine(Protocol):
    """A bundle opened for inference.

    A call is ``upload``, ``execute`` and ``download``, three steps so that copies and kernels can be timed apart.
    ``execute`` returns when the outputs are complete (a GPU engine synchronises). One thread at a time may use an
    engine; a second one that calls meanwhile gets a LineproofError, not a wrong answer.

    The class attributes say what an engine can do. They can be read without the engine's library.

    Attributes:
        name: name of the engine: its key in ``ENGINES``.
        uses_gpu: whether it computes on a GPU, so that ``EngineOptions.device`` applies.
        takes_threads: whether the caller may choose the number of its CPU threads.
        needs_plan: whether it runs a plan that was built beforehand and lies in the bundle, not the graph itself.
        builds_ahead: whether that plan can be built for named targets on a machine without its device.
        is_reference: whether it is the reference that the others are compared with; exactly one engine is.
        is_harness: whether it computes nothing and only shows what the measuring costs; exactly one engine is.
        precisions: precisions of the graphs that it runs: ``"fp32"``, ``"fp16"``, ``"int8"``.
        compute_dtypes: values that ``EngineOptions.compute_dtype`` may have.
        preference: rank for ``auto``, which prefers the larger; 0 where ``auto`` never takes the engine.
    """

    name: ClassVar[str]
    uses_gpu: ClassVar[bool]
    takes_threads: ClassVar[bool]
    needs_plan: ClassVar[bool]
    builds_ahead: ClassVar[bool]
    is_reference: ClassVar[bool]
    is_harness: ClassVar[bool]
    precisions: ClassVar[tuple[str, ...]]
    compute_dtypes: ClassVar[tuple[str, ...]]
    preference: ClassVar[int]

    def __init__(self, bundle: Bundle, *, options: EngineOptions) -> None: ...

    @classmethod
    def availability(cls) -> Availability:
        """Say whether this engine can run here, without opening a model."""
        ...

    def upload(self, frames: Frames) -> None:
        """Check frames (N, H, W, C), of images uint8, against the bundle's input and copy them to the device."""
        ...

    def execute(self) -> None:
        """Compute the uploaded batch, and return when the outputs are complete."""
        ...

    def download(self) -> Prediction:
        """Copy the outputs of the last ``execute`` to the host, into arrays of their own."""
        ...

    def device_time_ns(self) -> int | None:
        """Time of the last ``execute`` in ns by the device's own events; None where the device has none."""
        ...

    def device_bytes(self) -> int | None:
        """Device memory in bytes that went into use since the engine was opened; None for a CPU engine."""
        ...

    def describe(self) -> dict[str, Any]:
        """Describe the engine for a report: library, version, provider, threads, device and arithmetic."""
        ...

    def close(self) -> None:
        """Release everything; a closed engine refuses further calls."""
        ...


def predict(engine: Engine, frames: Frames) -> Prediction:
    """Upload frames (N, H, W, C), execute, and download the prediction."""
    engine.upload(frames)
    engine.execute()
    return engine.download()


def engine_type(name: str) -> type[Engine]:
    """The class of the named engine; its attributes say what the engine can do.

    Raises:
        UsageError: there is no engine of that name.
    """
    engine: type[Engine] = resolve(ENGINES, name, kind="engine")
    return engine


def names_of(is_wanted: Callable[[type[Engine]], bool]) -> tuple[str, ...]:
    """Names of the engines whose class passes ``is_wanted``, available here or not, in the order of ``ENGINES``."""
    return tuple(name for name in ENGINES if is_wanted(engine_type(name)))


def cpu_engines() -> tuple[str, ...]:
    """Names of the engines that run the graph on the CPU, without the reference and the harness."""
    return names_of(lambda engine: not (engine.uses_gpu or engine.is_reference or engine.is_harness))


def reference_engine() -> str:
    """Name of the reference engine."""
    return names_of(lambda engine: engine.is_reference)[0]


def harness_engine() -> str:
    """Name of the engine that computes nothing."""
    return names_of(lambda engine: engine.is_harness)[0]


def is_reference(name: str) -> bool:
    """Whether a name is that of the reference engine; False for an unknown name."""
    return name in ENGINES and engine_type(name).is_reference


def is_harness(name: str) -> bool:
    """Whether a name is that of the engine that computes nothing; False for an unknown name."""
    return name in ENGINES and engine_type(name).is_harness


def availability(name: str) -> Availability:
    """Say whether the named engine can run here; a missing package is reported, not raised."""
    return engine_type(name).availability()


def open_engine(bundle: Bundle, name: str, *, options: EngineOptions | None = None) -> Engine:
    """Open a bundle with the named engine.

    Args:
        bundle: bundle whose hashes were checked.
        name: name of an engine. ``"auto"`` is none: ``runtime.ranking.resolve_auto`` turns it into a name.
        options: choices about the engine; None for the defaults.

    Raises:
        UsageError: there is no engine of that name, or it cannot honour one of the options.
        EnvironmentMissingError: its package, driver or GPU is missing, or the bundle holds no plan that fits here.
        BundleError: it does not run the bundle's precision, or another bundle took this one's place meanwhile.
    """
    engine = engine_type(name)
    check_precision(bundle, engine)
    options = options or EngineOptions()
    state = engine.availability()
    # A caller who accepts a fallback gets as far as the engine itself can go.
    if not state.is_available and not options.allow_fallback:
        others = [other for other in names_of(_computes) if other != name and availability(other).is_available]
        raise EnvironmentMissingError(
            f"Engine {name} cannot run here. Looked for: {state.looked_for}. Found: {state.found}. "
            f"To fix: {state.fix}. Engines that work here: {', '.join(others) or 'none'}."
        )
    opened = engine(bundle, options=options)
    try:
        bundle.check_same_files()
    except BundleError:
        opened.close()
        raise
    return opened


def _computes(engine: type[Engine]) -> bool:
    return not engine.is_harness


def check_precision(bundle: Bundle, engine: type[Engine]) -> None:
    """Raise BundleError where the engine cannot run a graph of the bundle's precision."""
    precision = bundle.manifest.precision
    if precision not in engine.precisions:
        others = names_of(lambda other: _computes(other) and precision in other.precisions)
        advice = f"Name an engine that runs {precision} ({', '.join(others)}), or export" if others else "Export"
        raise BundleError(
            f"{bundle.path} is {precision}, and engine {engine.name} runs {' and '.join(engine.precisions)} only. "
            f"{advice} again with another --precision."
        )


def check_deciding(engine: str, *, what: str) -> None:
    """Refuse the engine that computes nothing where an answer would decide about parts.

    Args:
        engine: name of the engine that was asked for.
        what: what it was asked to do, in words for the message ("inspect parts").

    Raises:
        UsageError: the engine is the one that computes nothing.
    """
    if is_harness(engine):
        raise UsageError(
            f"Engine {engine} computes nothing and answers zeros: it cannot {what}. It is there for `lineproof "
            "profile`, which measures the harness with it. Name another engine, or auto."
        )


def proof_name(engine: str, options: EngineOptions) -> str:
    """Name that a manifest files an engine's proof under; arithmetic other than the default has a proof of its own."""
    return engine if options.compute_dtype == "f32" else f"{engine}:{options.compute_dtype}"


def check_batch_size(bundle: Bundle, batch: int) -> None:
    """Raise UsageError unless the bundle takes ``batch`` frames at once."""
    if not 1 <= batch <= bundle.manifest.max_batch:
        raise UsageError(
            f"batch (--batch) is {batch}; this bundle takes 1 to {bundle.manifest.max_batch} frames at once. "
            "Give a size in that range, or export again with a larger --batch."
        )


def check_batch(bundle: Bundle, frames: Frames) -> None:
    """Check dtype, shape and number of frames (N, H, W, C) against a bundle.

    Raises:
        BadInputError: the frames have another dtype, size or number of channels than the bundle takes.
        UsageError: there are more frames than the bundle was exported for, or none.
    """
    bundle.manifest.inputs[0].check(frames, advice=bundle.manifest.preprocessing.advice)
    if not 1 <= len(frames) <= bundle.manifest.max_batch:
        raise UsageError(
            f"A batch of {len(frames)} frames; this bundle takes 1 to {bundle.manifest.max_batch}. "
            "Split the batch, or export again with a larger --batch."
        )
