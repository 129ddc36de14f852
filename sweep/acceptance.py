"""Proof of an exported bundle: TensorRT for RTX builds it, and an engine verifies it, before export is done."""

from __future__ import annotations

from importlib.util import find_spec

from ..bundle.store import Bundle, now
from ..core.errors import EnvironmentMissingError, ExportError, UsageError
from ..core.progress import Progress, silent
from ..eval.parity.proof import record_parity
from ..eval.parity.verify import verify
from ..export.tensorrt.build import GateReport, build_plan, check_build, gate
from ..host.extras import install
from ..host.tensorrt import TENSORRT_RTX
from ..runtime.engine import availability, cpu_engines, engine_type, names_of
from .export_result import ExportResult

#: The value of export's ``--engine`` for a bundle that is meant for no engine in particular.
ANY_ENGINE = "onnx"


def export_engines() -> tuple[str, ...]:
    """The values of export's ``--engine``: every engine but the reference and the null engine, or ``ANY_ENGINE``."""
    return (ANY_ENGINE, *names_of(lambda engine: not (engine.is_reference or engine.is_harness)))


def builds_plan(engine: str) -> bool:
    """Whether a bundle for this engine, one of ``export_engines``, needs a plan built by TensorRT."""
    return engine != ANY_ENGINE and engine_type(engine).needs_plan


def check_engine(engine: str, targets: tuple[str, ...]) -> None:
    """Raise UsageError unless ``prove`` knows the engine and the targets go with it."""
    if engine not in export_engines():
        raise UsageError(f"engine (--engine) is {engine!r}; export knows {', '.join(export_engines())}.")
    if targets and not _builds_ahead(engine):
        able = ", ".join(names_of(lambda item: item.builds_ahead))
        raise UsageError(
            f"targets (--target) is {' '.join(targets)}, and engine (--engine) is {engine}; targets go with {able} "
            "only. Other engines build nothing, or build for the GPU that they run on: leave out --target."
        )


def _builds_ahead(engine: str) -> bool:
    return engine != ANY_ENGINE and engine_type(engine).builds_ahead


def check_environment(engine: str, targets: tuple[str, ...], *, is_verified: bool) -> None:
    """Check before any work that everything ``prove`` will need is here.

    Args:
        engine: engine that the bundle is meant for, one of ``export_engines``.
        targets: compute capabilities for a ``trt-rtx`` plan, such as ``"sm_89"``.
        is_verified: whether the bundle will be verified.

    Raises:
        UsageError: there is no such engine, or its library does not know a target.
        EnvironmentMissingError: no engine here can verify a bundle for it, or a plan cannot be built here.
    """
    check_engine(engine, targets)
    if builds_plan(engine):
        check_build(engine, targets)
    if is_verified:
        _verifier(engine)


def prove(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    *,
    engine: str,
    targets: tuple[str, ...] = (),
    is_verified: bool = True,
    is_gate_required: bool = True,
    conversions: tuple[str, ...] = (),
    progress: Progress = silent,
) -> ExportResult:
    """Build and verify a bundle that was just written; a failed one stays on disk, marked as failed.

    Args:
        bundle: the bundle to build and verify.
        engine: engine that the bundle is meant for, one of ``export_engines``.
        targets: compute capabilities for a ``trt-rtx`` plan, such as ``"sm_89"``.
        is_verified: False leaves out the verification.
        is_gate_required: False makes a note of a graph that TensorRT for RTX refuses, where others may run it.
        conversions: what was done to the images behind the golden frames, in sentences; shown with the result.
        progress: called at every step.

    Raises:
        UsageError: there is no such engine.
        ExportError: TensorRT for RTX refuses the graph; the message lists every node.
        EnvironmentMissingError: no engine here can verify the bundle, or a plan cannot be built here.
    """
    check_engine(engine, targets)
    verifier = _verifier(engine) if is_verified else ""
    notes: list[str] = []
    report = None
    if find_spec(TENSORRT_RTX.module):
        progress("TensorRT-RTX", 0, 0)
        try:
            report = _pass_gate(bundle)
        except ExportError as error:
            if is_gate_required:
                raise
            notes.append(str(error))
    else:
        notes.append(f"Not built by TensorRT for RTX: it is not installed ({install('rtx')}).")
    if builds_plan(engine):
        bundle = build_plan(bundle, engine=engine, targets=targets, progress=progress)
    if not is_verified:
        return ExportResult(
            bundle=bundle,
            gate=report,
            parity=None,
            notes=(*notes, "Not verified, as asked (--no-verify)."),
            conversions=conversions,
        )
    if verifier != engine and _builds_ahead(engine):
        notes.append(f"The plan was built ahead of time and has not run: no GPU for it here. Verified on {verifier}.")
    parity = verify(bundle, engine=verifier, progress=progress)
    recorded = record_parity(bundle, parity)
    notes += [recorded.warning] if recorded.warning else []
    return ExportResult(bundle=recorded.bundle, gate=report, parity=parity, notes=tuple(notes), conversions=conversions)


def _pass_gate(bundle: Bundle) -> GateReport:
    report = gate(bundle.model_path, max_batch=bundle.manifest.max_batch)
    if not report.passed:
        bundle.change(lambda manifest: manifest.with_parity(TENSORRT_RTX.engine, "failed", time=now()))
        refused = "\n".join(f"  {name} ({operator}): {message}" for name, operator, message in report.errors)
        raise ExportError(
            f"TensorRT for RTX {report.engine_version} refuses {len(report.errors)} nodes of {bundle.model_path}:\n"
            f"{refused}\nThe bundle is kept and marked as failed for {TENSORRT_RTX.engine}. "
            "Nodes are named by module path."
        )
    return report


def _verifier(engine: str) -> str:
    """The engine itself where it can run here; for a graph or a plan that was built ahead of time, one on the CPU."""
    own = () if engine == ANY_ENGINE else (engine,)
    others = cpu_engines() if engine == ANY_ENGINE or _builds_ahead(engine) else ()
    states = [availability(name) for name in (*own, *others)]
    for state in states:
        if state.is_available:
            return state.name
    first = states[0]
    raise EnvironmentMissingError(
        f"No engine here can verify a bundle for {engine}: {first.name} cannot run here. Looked for: "
        f"{first.looked_for}. Found: {first.found}. To fix: {first.fix}. Or export without proof: --no-verify, and run "
        "lineproof verify where an engine is."
    )
