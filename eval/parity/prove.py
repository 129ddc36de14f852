"""Proof of an exported bundle: TensorRT for RTX builds it, and an engine verifies it, before export is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...bundle.store import MANIFEST, Bundle, now
from ...core.errors import EnvironmentMissingError, ExportError, UsageError
from ...core.progress import Progress, silent
from ...data.content import holdout_lines
from ...data.notes import NO_DATA, DataNotes
from ...export.tensorrt.build import GateReport, build_plan, check_build, gate
from ...host.extras import install
from ...host.tensorrt import TENSORRT_RTX
from ...metrics.operating import RunOperation
from ...runtime.engine import availability, cpu_engines, engine_type, names_of
from .proof import record_parity
from .report import ParityReport
from .verify import verify

#: The value of export's ``--engine`` for a bundle that is meant for no engine in particular.
ANY_ENGINE = "onnx"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Result of an export.

    Attributes:
        bundle: the bundle as it is on disk.
        gate: report of TensorRT for RTX on the graph; None where it is not installed.
        parity: report of the verification on the golden frames; None where the bundle was not verified.
        notes: the steps that were left out, and why, in sentences.
        operation: operating table on the test images of the training run; None where there is no run.
        conversions: what was done to images to make frames of them, in sentences.
        data: description of the data set of the training run, where that is still there.
    """

    bundle: Bundle
    gate: GateReport | None
    parity: ParityReport | None
    notes: tuple[str, ...]
    operation: RunOperation | None = None
    conversions: tuple[str, ...] = ()
    data: DataNotes = NO_DATA

    def check(self, *, accept_undecided: bool = False) -> None:
        """Raise ParityError where the verification failed, or is undecided and ``accept_undecided`` is False."""
        if self.parity:
            self.parity.check(accept_undecided=accept_undecided)

    def warnings(self) -> list[str]:
        """Warnings that stand above the result."""
        training = self.bundle.manifest.training
        return [
            *(self.operation.warnings() if self.operation else []),
            *holdout_lines(training.fitted, training.held_out),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        manifest = self.bundle.manifest
        return {
            "bundle": str(self.bundle.path),
            "detector": manifest.detector.name,
            "precision": manifest.precision,
            "nodes_per_dtype": manifest.figures.nodes_per_dtype,
            "threshold": dataclasses.asdict(manifest.threshold),
            "tensorrt_rtx": None if self.gate is None else dataclasses.asdict(self.gate),
            "parity": None if self.parity is None else self.parity.to_dict(),
            "plans": [dataclasses.asdict(plan) for plan in manifest.plans],
            "notes": list(self.notes),
            "warnings": self.warnings(),
            "operating": None if self.operation is None else self.operation.to_dict(),
            "conversions": list(self.conversions),
            "data": self.data.to_dict(),
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        manifest = self.bundle.manifest
        frames = " × ".join(map(str, manifest.inputs[0].shape))
        lines = [
            *self.warnings(),
            f"Bundle: {self.bundle.path} ({manifest.detector.name}, {manifest.precision}, frames {frames}).",
            f"Threshold {manifest.threshold.value:.6g}: {manifest.threshold.sentence()}.",
        ]
        if self.gate:
            lines.append(
                f"TensorRT for RTX {self.gate.engine_version} parsed and built it for {', '.join(self.gate.targets)}: "
                f"{self.gate.num_layers} layers ({_counts(self.gate.layers_per_dtype)}), {self.gate.seconds:.1f} s."
            )
        lines += [f"Plan: {plan.file} for {plan.target} ({_counts(plan.layers_per_dtype)})." for plan in manifest.plans]
        lines += [*(self.parity.summary_lines() if self.parity else ()), *self.notes]
        return (*lines, *(self.operation.summary_lines() if self.operation else ()))


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{count} {dtype}" for dtype, count in counted.items()) or "layers not counted"


def export_engines() -> tuple[str, ...]:
    """The values of export's ``--engine``: every engine but the reference and the null engine, or ``ANY_ENGINE``."""
    return (ANY_ENGINE, *names_of(lambda engine: not (engine.is_reference or engine.is_harness)))


def builds_plan(engine: str) -> bool:
    """Whether a bundle for this engine, one of ``export_engines``, needs a plan built by TensorRT."""
    return engine != ANY_ENGINE and engine_type(engine).needs_plan


def check_engine(engine: str, targets: tuple[str, ...]) -> None:
    """Raise UsageError unless ``prove`` knows the engine and the targets go with it."""
    if engine not in export_engines():
        raise UsageError(f"--engine {engine}: export knows {', '.join(export_engines())}.")
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


def prove(
    bundle: Bundle,
    *,
    engine: str,
    targets: tuple[str, ...] = (),
    is_verified: bool = True,
    conversions: tuple[str, ...] = (),
    progress: Progress = silent,
) -> ExportResult:
    """Build and verify a bundle that was just written; a failed one stays on disk, marked as failed.

    Args:
        bundle: the bundle to build and verify.
        engine: engine that the bundle is meant for, one of ``export_engines``.
        targets: compute capabilities for a ``trt-rtx`` plan, such as ``"sm_89"``.
        is_verified: False leaves out the verification.
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
        report = _pass_gate(bundle)
    else:
        notes.append(f"Not built by TensorRT for RTX: it is not installed ({install('rtx')}).")
    if builds_plan(engine):
        bundle = build_plan(bundle, engine=engine, targets=targets, progress=progress)
    if not is_verified:
        return ExportResult(
            bundle=bundle,
            gate=report,
            parity=None,
            notes=(*notes, "Not verified: --no-verify was given."),
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


def is_bundle(path: Path) -> bool:
    """Whether a path holds a bundle rather than a training run."""
    return (path / MANIFEST).is_file()
