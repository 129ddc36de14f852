"""The one protocol that every engine speaks, and the table of engines."""

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


@dataclass(frozen=True, kw_only=True)
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

    What an engine can do stands on its class, and asking it needs no package of its own.

    Attributes:
        name: its key in ``ENGINES``.
        uses_gpu: whether it computes on a GPU, so that ``EngineOptions.device`` means something.
        takes_threads: whether the caller may choose the number of its CPU threads.
        needs_plan: whether it runs a plan that was built beforehand and lies in the bundle, and not the graph itself.
        builds_ahead: whether that plan can be built for named targets on a machine without its device.
        is_reference: whether it is the truth that the others are held against; exactly one engine is.
        is_harness: whether it computes nothing and only measures what the measuring costs; exactly one engine does.
        precisions: precisions of the graphs that it runs (``"fp32"``, ``"fp16"``, ``"int8"``).
        compute_dtypes: what ``EngineOptions.compute_dtype`` may be.
        preference: place in what ``auto`` takes, the larger the earlier; 0 where ``auto`` never takes it.
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


def engine_type(name: str) -> type[Engine]:
    """The class of an engine, which says what the engine can do.

    Raises:
        UsageError: no engine of that name.
    """
    engine: type[Engine] = resolve(ENGINES, name, kind="engine")
    return engine


def names_of(is_wanted: Callable[[type[Engine]], bool]) -> tuple[str, ...]:
    """Names of the engines whose class is wanted, available here or not, in the order of the table."""
    return tuple(name for name in ENGINES if is_wanted(engine_type(name)))


def cpu_engines() -> tuple[str, ...]:
    """Engines that run the graph on the CPU; without the reference and the harness."""
    return names_of(lambda engine: not (engine.uses_gpu or engine.is_reference or engine.is_harness))


def reference_engine() -> str:
    """The engine that is the truth."""
    return names_of(lambda engine: engine.is_reference)[0]


def harness_engine() -> str:
    """The engine that computes nothing."""
    return names_of(lambda engine: engine.is_harness)[0]


def is_reference(name: str) -> bool:
    """Whether a name is the reference's; a name that no engine here has is not."""
    return name in ENGINES and engine_type(name).is_reference


def is_harness(name: str) -> bool:
    """Whether a name is that of the engine that computes nothing; a name that no engine here has is not."""
    return name in ENGINES and engine_type(name).is_harness


def availability(name: str) -> Availability:
    """Say whether the named engine can run here; a missing package is an answer, not an error."""
    return engine_type(name).availability()


def open_engine(bundle: Bundle, name: str, *, options: EngineOptions | None = None) -> Engine:
    """Open ``bundle`` with the engine of that name; what ``auto`` means is asked of ``runtime.ranking`` before.

    Raises:
        UsageError: no engine of that name, or an option that it cannot honour.
        EnvironmentMissingError: its package, driver or GPU is missing, or it has no plan for here.
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
        raise BundleError(
            f"{bundle.path} is {precision}, and engine {engine.name} runs {' and '.join(engine.precisions)} only. "
            f"Engines that run {precision}: {', '.join(others) or 'none'}. Name one of them, or export again with "
            "another --precision."
        )


def check_deciding(engine: str, *, what: str) -> None:
    """Raise UsageError for the engine that computes nothing, where a part's fate would hang on its zeros.

    Args:
        engine: the engine asked for.
        what: what it was to do, in words ("inspect parts").
    """
    if is_harness(engine):
        raise UsageError(
            f"Engine {engine} computes nothing and answers zeros: it cannot {what}. It is there for `lineproof "
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
