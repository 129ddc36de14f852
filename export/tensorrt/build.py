"""Builds of a bundle's graph by TensorRT: a plan for a GPU, or a gate that needs no GPU.

One code path for ``tensorrt`` 10.x and 11.x and for ``tensorrt_rtx``: the network is strongly typed, so the
precision is what the graph says, and no builder flag can change it. The layers per dtype are counted to prove it.
TensorRT for RTX builds ahead of time for compute capabilities, on a machine without a GPU or a driver.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...bundle.manifest import PlanRecord
from ...bundle.store import Bundle
from ...core.errors import BadInputError, EnvironmentMissingError, ExportError, UsageError
from ...core.progress import Progress, silent
from ...host.nvidia import find_gpus
from ...host.tensorrt import TENSORRT_LIBRARIES, TENSORRT_RTX, ErrorLog, TensorRtLibrary, tensorrt_logger
from .precision import layers_per_dtype, plan_layers_per_dtype, prove_precision
from .progress import BuildMonitor, build_monitor

GATE_TARGETS = ("sm_86", "sm_89", "sm_120")
_BLAMED_LAYER = re.compile(r"\bI(\w+)Layer ([^\s:]+):")

#: (node name, operator, message)
NodeError = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """Report of NVIDIA's parser and ahead-of-time builder on a graph.

    Attributes:
        passed: True where the graph was parsed and built for every target.
        targets: compute capabilities that it was built for.
        num_layers: number of layers of the parsed network; 0 where parsing or building failed.
        engine_version: version of TensorRT for RTX.
        layers_per_dtype: number of layers of the parsed network by output dtype, without constants.
        seconds: time of parsing and building.
        errors: refused nodes: name (the module path), operator and message.
    """

    passed: bool
    targets: tuple[str, ...]
    num_layers: int
    engine_version: str
    layers_per_dtype: dict[str, int]
    seconds: float
    errors: tuple[NodeError, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Workshop:
    """The library's objects for one build; they refer to each other and must live together."""

    trt: Any
    errors: ErrorLog
    builder: Any
    network: Any
    parser: Any


def gate(model_path: Path, *, max_batch: int, targets: tuple[str, ...] = GATE_TARGETS) -> GateReport:
    """Parse a graph and build it ahead of time with TensorRT for RTX; needs no GPU and no driver.

    Args:
        model_path: an ONNX file; external weights are read from the file beside it.
        max_batch: largest batch of the profile.
        targets: compute capabilities, such as ``"sm_89"``.

    Raises:
        BadInputError: there is no such file.
        UsageError: the library does not know a target.
        EnvironmentMissingError: tensorrt_rtx is not installed.
    """
    begin = time.perf_counter()
    shop = _open_workshop(TENSORRT_RTX)
    capabilities = _capabilities(shop.trt, targets)
    errors = _parse(shop, model_path)
    if not errors:
        content = _build(shop, capabilities, max_batch=max_batch, monitor=build_monitor(shop.trt, silent))
        errors = () if content is not None else _build_errors(shop.errors)
    return GateReport(
        passed=not errors,
        targets=targets,
        num_layers=shop.network.num_layers if not errors else 0,
        engine_version=str(shop.trt.__version__),
        layers_per_dtype=layers_per_dtype(shop.network) if not errors else {},
        seconds=time.perf_counter() - begin,
        errors=errors,
    )


def check_build(engine: str, targets: tuple[str, ...] = ()) -> None:
    """Check before any work whether library, GPU and targets allow ``build_plan``, and raise its errors."""
    library = _library(engine)
    _resolve_targets(_open_workshop(library).trt, library, targets)


def build_plan(bundle: Bundle, *, engine: str, targets: tuple[str, ...] = (), progress: Progress = silent) -> Bundle:
    """Build the bundle's graph into a plan and store it in the bundle, with its hash in the manifest.

    Args:
        bundle: opened and checked bundle.
        engine: engine that will run the plan, one of those in ``TENSORRT_LIBRARIES``.
        targets: compute capabilities to build for, with TensorRT for RTX only; empty for the first GPU here.
        progress: called in every phase of the build.

    Returns:
        The bundle with the plan; a plan for the same model, version, target and precision is replaced.

    Raises:
        UsageError: the engine has no plans, or it does not take these targets.
        EnvironmentMissingError: the library or the GPU is missing.
        ExportError: the graph was refused, or did not come out in the bundle's precision.
    """
    library = _library(engine)
    shop = _open_workshop(library)
    targets, target = _resolve_targets(shop.trt, library, targets)
    content = _build_bundle(shop, bundle, targets, progress)
    version, precision = str(shop.trt.__version__), bundle.manifest.precision
    record = PlanRecord(
        file=_file_name(bundle, engine, version, target),
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        engine=engine,
        engine_version=version,
        target=target,
        precision=precision,
        model_sha256=bundle.model_sha256,
        max_batch=bundle.manifest.max_batch,
        layers_per_dtype=_count_layers(shop, content, precision),
    )
    return bundle.add_plan(content, record)


def _build_bundle(shop: _Workshop, bundle: Bundle, targets: Sequence[str], progress: Progress) -> bytes:
    title = f"{shop.trt.__name__} {shop.trt.__version__}"
    manifest, content = bundle.manifest, None
    progress(f"{title}: parse", 0, 0)
    refused = _parse(shop, bundle.model_path)
    if not refused:
        prove_precision(layers_per_dtype(shop.network), manifest.precision, where="the parsed network")
        monitor = build_monitor(shop.trt, progress)
        content = _build(shop, _capabilities(shop.trt, targets), max_batch=manifest.max_batch, monitor=monitor)
        refused = () if content is not None else _build_errors(shop.errors)
    if content is None:
        words = "; ".join(f"{name or 'the graph'} ({operator or '?'}): {text}" for name, operator, text in refused)
        raise ExportError(
            f"{title} refused {bundle.model_path}: {words}. The names are those of the detector's modules; run "
            "another engine, or export the detector without these operators."
        )
    return content


def _library(engine: str) -> TensorRtLibrary:
    for library in TENSORRT_LIBRARIES:
        if library.engine == engine:
            return library
    names = " and ".join(library.engine for library in TENSORRT_LIBRARIES)
    raise UsageError(f"There is no plan for engine {engine!r}; plans are built for {names}.")


def _open_workshop(library: TensorRtLibrary) -> _Workshop:
    try:
        trt = import_module(library.module)
    except (ImportError, OSError) as error:
        raise EnvironmentMissingError(
            f"A plan for {library.engine} needs {library.title}. Looked for: the module {library.module}. Found: "
            f"{error}. To fix: {library.fix}."
        ) from error
    logger, errors = tensorrt_logger(trt)
    errors.take()
    builder = trt.Builder(logger)
    if builder is None:
        raise EnvironmentMissingError(
            f"{library.title} {trt.__version__} cannot start its builder. It said: {errors.take()}. Found: "
            f"{find_gpus().description}."
        )
    # TensorRT 10 types the network by this flag; 11 and RTX always do and accept the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return _Workshop(trt=trt, errors=errors, builder=builder, network=network, parser=trt.OnnxParser(network, logger))


def _resolve_targets(trt: Any, library: TensorRtLibrary, targets: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Capabilities to set in the builder, and the target as the plan's record names it."""
    if targets and not library.builds_ahead:
        raise UsageError(f"Engine {library.engine} builds for the GPU it runs on and takes no targets; got {targets}.")
    if not targets:
        search = find_gpus()
        if not search.gpus:
            hint = " Or build ahead of time: give the targets (sm_86, sm_89, …)." if library.builds_ahead else ""
            raise EnvironmentMissingError(
                f"A plan for {library.engine} is built on the GPU that will run it. Looked for: an NVIDIA GPU. Found: "
                f"{search.description}. To fix: run the export on that machine.{hint}"
            )
        if not library.builds_ahead:
            return (), search.gpus[0].target
        targets = (search.gpus[0].sm,)
    _capabilities(trt, targets)
    return targets, "+".join(targets)


def _capabilities(trt: Any, targets: Sequence[str]) -> list[Any]:
    if not targets:
        return []
    members = trt.ComputeCapability.__members__
    known = {name.lower().replace("sm", "sm_"): value for name, value in members.items() if name.startswith("SM")}
    unknown = [target for target in targets if target not in known]
    if unknown:
        raise UsageError(
            f"{trt.__name__} {trt.__version__} cannot build for {', '.join(unknown)}; it knows {', '.join(known)}. "
            "Choose from these, or use engine trt or ort-cuda on that GPU."
        )
    return [known[target] for target in targets]


def _parse(shop: _Workshop, model_path: Path) -> tuple[NodeError, ...]:
    """Parse the file and return the refused nodes."""
    if not model_path.is_file():
        raise BadInputError(f"There is no file {model_path}; expected an ONNX model. Export the bundle again.")
    if shop.parser.parse_from_file(str(model_path)):
        return ()
    logged = shop.errors.take()
    errors = [shop.parser.get_error(index) for index in range(shop.parser.num_errors)]
    refused = tuple((error.node_name(), error.node_operator(), _reason(error.desc())) for error in errors)
    return refused or (("", "", logged or "the parser gave no reason"),)


def _reason(text: str) -> str:
    return "the parser has no such operator" if text == "false" else " ".join(text.split())


def _build_errors(log: ErrorLog) -> tuple[NodeError, ...]:
    words = log.take() or "the builder gave no reason"
    blamed = _BLAMED_LAYER.search(words)
    return ((blamed[2], blamed[1], words) if blamed else ("", "", words),)


def _build(shop: _Workshop, capabilities: Sequence[Any], *, max_batch: int, monitor: BuildMonitor) -> bytes | None:
    """Serialise the parsed network; None where the builder refused it."""
    trt = shop.trt
    config = shop.builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = monitor.listener
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(capability, index)
    _add_profile(shop, config, max_batch)
    plan = shop.builder.build_serialized_network(shop.network, config)
    monitor.raise_if_interrupted()
    return None if plan is None else bytes(memoryview(plan))


def _add_profile(shop: _Workshop, config: Any, max_batch: int) -> None:
    """Add the profile of batches 1 to ``max_batch``, tuned for 1, since a line waits for one part."""
    profile = shop.builder.create_optimization_profile()
    inputs = [shop.network.get_input(index) for index in range(shop.network.num_inputs)]
    for tensor in inputs:
        shape = tuple(tensor.shape)
        if any(size < 0 for size in shape[1:]):
            raise ExportError(
                f"Input {tensor.name} has the shape {shape}: only the batch may be symbolic. Export it again with a "
                "fixed frame size."
            )
        if shape[0] < 0:
            one, most = (1, *shape[1:]), (max_batch, *shape[1:])
            profile.set_shape(tensor.name, one, one, most)
    if any(tensor.shape[0] < 0 for tensor in inputs):
        config.add_optimization_profile(profile)


def _count_layers(shop: _Workshop, content: bytes, precision: str) -> dict[str, int]:
    """Count layers by dtype, in the plan where a GPU is there to open it, else in the parsed network."""
    built = plan_layers_per_dtype(shop.trt, content) if find_gpus().gpus else {}
    # Where int8 layers were fused with what follows them, their outputs are wider: the network proves int8.
    if built and precision != "int8":
        prove_precision(built, precision, where="the built plan")
    return built or layers_per_dtype(shop.network)


def _file_name(bundle: Bundle, engine: str, version: str, target: str) -> str:
    words = (engine, version, target, bundle.manifest.precision, bundle.model_sha256[:12])
    return f"plans/{'-'.join(re.sub(r'[^A-Za-z0-9_.+-]+', '_', word) for word in words)}.plan"
