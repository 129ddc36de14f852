"""The report of a profile. A figure without the environment it was measured on is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

from ..bundle.manifest import Figures, Manifest
from ..bundle.record import ProofState
from ..bundle.store import MODEL
from ..core.errors import BudgetError, LineproofError
from ..core.words import counted
from .cold_start import ColdStart, Memory
from .latency import STAGES, Deadline, Latency, Samples, summarise
from .report_json import BatchJson, ProfileJson

_MB = 1e6


@final
@dataclass(frozen=True)
class Sizes:
    """Sizes of a bundle's files for one engine, in bytes.

    Attributes:
        model_bytes: size of the graph, with its weights where those lie in a file of their own.
        plan_bytes: size of the plans built for this engine; 0 where it needs none.
    """

    model_bytes: int
    plan_bytes: int


def measure_sizes(manifest: Manifest, engine: str) -> Sizes:
    """Read the sizes for one engine from the records of the manifest."""
    model = sum(record.num_bytes for name, record in manifest.files.items() if name.startswith(MODEL))
    return Sizes(model, sum(plan.num_bytes for plan in manifest.plans if plan.engine == engine))


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class BatchProfile:
    """One engine at one batch size.

    Attributes:
        batch: number of frames per call.
        samples: times of every call.
        harness: times in ms of the engine that computes nothing, at this batch size in the same run: the cost of the
            harness itself.
        deadline: how often a call was too slow; None where there was no deadline.
        memory: peak memory of a fresh process; None where none was started.
    """

    batch: int
    samples: Samples
    harness: Latency
    deadline: Deadline | None
    memory: Memory | None

    @property
    def latency(self) -> Latency:
        """Figures of the whole call in ms, copies included."""
        return summarise(self.samples.total_ns)

    @property
    def fps(self) -> float:
        """Frames per second: the frames of all timed calls, slow ones included, divided by their summed time."""
        total_ns = self.samples.total_ns
        return self.batch * len(total_ns) * 1e9 / max(int(total_ns.sum()), 1)

    def to_dict(self, *, with_samples: bool = False) -> BatchJson:
        """Plain JSON values; the time of every call only where ``with_samples`` is True."""
        device_ns, memory = self.samples.device_ns, self.memory
        plain: BatchJson = {
            "batch": self.batch,
            "num_runs": len(self.samples.total_ns),
            "latency_ms": self.latency.to_dict(),
            "upload_ms": self.samples.stage("upload").to_dict(),
            "execute_ms": self.samples.stage("execute").to_dict(),
            "download_ms": self.samples.stage("download").to_dict(),
            "device_ms": None if device_ns is None else summarise(device_ns).to_dict(),
            "harness_ms": self.harness.to_dict(),
            "fps": self.fps,
            "deadline": None if self.deadline is None else self.deadline.to_dict(),
            "peak_host_mb": _megabytes(memory.host_bytes if memory else None),
            "device_mb": _megabytes(memory.device_bytes if memory else None),
        }
        if with_samples:
            plain["samples"] = self.samples.to_dict()
        return plain

    def summary_lines(self) -> tuple[str, ...]:
        """The figures for people, a line each."""
        latency = self.latency
        lines = [
            f"Batch {self.batch}: median {latency.p50:.3f} ms, p90 {latency.p90:.3f}, p95 {latency.p95:.3f}, "
            f"p99 {latency.p99:.3f}, p99.9 {latency.p999:.3f}, max {latency.max:.3f} over "
            f"{counted(len(self.samples.total_ns), 'call')}; {self.fps:.1f} frames per second.",
            f"  of which (medians) {', '.join(f'{name} {self.samples.stage(name).p50:.3f}' for name in STAGES)} ms; "
            f"the harness itself {self.harness.p50:.3f} ms.",
        ]
        if self.memory and self.memory.host_bytes is not None:
            device = self.memory.device_bytes
            on_device = "" if device is None else f", {device / _MB:.0f} MB on the device"
            lines.append(f"  peak memory {self.memory.host_bytes / _MB:.0f} MB on the host{on_device}.")
        if self.deadline:
            lines.append(
                f"  deadline {self.deadline.deadline_ms:g} ms: missed by {self.deadline.num_missed} of "
                f"{counted(self.deadline.num_runs, 'call')} ({self.deadline.miss_rate:.1%})."
            )
        return tuple(lines)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ProfileReport:
    """One engine on one bundle.

    Attributes:
        bundle: name of the bundle.
        model_sha256: SHA-256 digest of the graph.
        decision: digest of the bundle's decision: model, preprocessing and thresholds (``Manifest.decision``).
        parity: state of the engine's proof for that decision when it was measured.
        detector: name of the detector.
        engine: name of the engine.
        precision: precision written in the graph: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        compute_dtype: arithmetic asked of an engine that may choose it: ``"f32"`` or ``"bf16"``.
        batches: one profile per batch size, in the order of the request.
        cold_starts: one entry per fresh process.
        sizes: sizes of the bundle's files.
        figures: parameters, constants and operations, as counted at export.
        method: how it was measured: runs, warm-up, blocks, definition of the percentiles.
        engine_details: the engine's own description (``Engine.describe``).
        environment: CPU, GPUs, system, package versions and load of the machine.

    Raises:
        LineproofError: the environment or the engine's description is missing, or there is no batch.
    """

    bundle: str
    model_sha256: str
    decision: str
    parity: ProofState
    detector: str
    engine: str
    precision: str
    compute_dtype: str
    batches: tuple[BatchProfile, ...]
    cold_starts: tuple[ColdStart, ...]
    sizes: Sizes
    figures: Figures
    method: dict[str, Any]
    engine_details: dict[str, Any]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        missing = [key for key in ("cpu", "os", "packages") if not self.environment.get(key)]
        if missing or not self.engine_details:
            raise LineproofError(
                f"The profile of {self.engine} has no {', '.join(missing) or 'description of the engine'}; a figure "
                "without what it was measured on is refused. Pass what describe_environment (host.environment) and the "
                "engine's describe return."
            )
        if not self.batches:
            raise LineproofError(f"The profile of {self.engine} holds no batch size; expected at least one.")

    @property
    def missed_deadline(self) -> bool:
        """Whether there was a deadline and a call at any batch size was slower."""
        return any(item.deadline is not None and item.deadline.num_missed > 0 for item in self.batches)

    @property
    def cold_start(self) -> ColdStart | None:
        """The cold start with the median total (the lower one of an even number)."""
        ordered = sorted(self.cold_starts, key=lambda item: item.total_ms)
        return ordered[(len(ordered) - 1) // 2] if ordered else None

    def to_dict(self, *, with_samples: bool = False) -> ProfileJson:
        """Plain JSON values. The figures of the first batch size also stand at the top level."""
        figures, cold = self.figures, self.cold_start
        first = self.batches[0].to_dict()
        batches = [item.to_dict(with_samples=with_samples) for item in self.batches]
        return {
            "bundle": self.bundle,
            "model_sha256": self.model_sha256,
            "decision": self.decision,
            "parity": self.parity,
            "detector": self.detector,
            "engine": self.engine,
            "precision": self.precision,
            "compute_dtype": self.compute_dtype,
            **first,
            "batches": batches,
            "missed_deadline": self.missed_deadline,
            "cold_start_ms": cold.total_ms if cold else None,
            "cold_starts": [item.to_dict() for item in self.cold_starts],
            "model_mb": self.sizes.model_bytes / _MB,
            "plan_mb": self.sizes.plan_bytes / _MB,
            "backbone": figures.backbone,
            "backbone_parameters_m": figures.backbone_parameters / 1e6,
            "extra_parameters_m": figures.extra_parameters / 1e6,
            "constants_mb": figures.constants_bytes / _MB,
            "flops": dict(figures.flops),
            "total_gflops": figures.gflop,
            "method": self.method,
            "engine_details": self.engine_details,
            "environment": self.environment,
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The report for people, in lines."""
        proof = "" if self.parity == "passed" else f", {self.parity}: no verify has proved its verdicts"
        lines = [f"{self.bundle} on {self.engine} ({self.precision}), {self.environment['cpu']}{proof}:"]
        for item in self.batches:
            lines.extend(item.summary_lines())
        if cold := self.cold_start:
            lines.append(
                f"Cold start {cold.total_ms:.0f} ms: Python and imports {cold.python_and_imports_ms:.0f}, bundle "
                f"{cold.open_bundle_ms:.0f}, engine {cold.open_engine_ms:.0f}, first verdict "
                f"{cold.first_verdict_ms:.0f}."
            )
        figures = self.figures
        lines.append(
            f"Model {self.sizes.model_bytes / _MB:.1f} MB, plans {self.sizes.plan_bytes / _MB:.1f} MB; "
            f"{figures.backbone_parameters / 1e6:.2f} M parameters in the backbone, "
            f"{figures.extra_parameters / 1e6:.2f} M besides it, constants {figures.constants_bytes / _MB:.1f} MB."
        )
        if figures.gflop is not None:
            stages = ", ".join(f"{name} {flops / 1e9:.3g}" for name, flops in figures.flops.items())
            lines.append(f"{figures.gflop:.3g} GFLOPs per frame: {stages}.")
        load, num_cores = self.environment.get("load_average"), self.environment.get("num_cores")
        if load and num_cores and load[0] > 0.5 * num_cores:
            lines.append(
                f"The machine was busy before this began (load {load[0]:g} on {counted(num_cores, 'core')}): "
                "the times are doubtful."
            )
        return tuple(lines)


@final
@dataclass(frozen=True, eq=False)
class ProfileComparison:
    """Several engines, timed in turn within one run.

    Attributes:
        reports: one report per engine; the first engine is the baseline that the others are compared with.
    """

    reports: tuple[ProfileReport, ...]

    @property
    def missed_deadline(self) -> bool:
        """Whether any engine missed the deadline."""
        return any(report.missed_deadline for report in self.reports)

    def ratios(self) -> tuple[dict[str, Any], ...]:
        """Median latency of each engine divided by the first engine's, per batch size; below 1 is faster."""
        baseline = self.reports[0]
        return tuple(
            {
                "batch": mine.batch,
                "engine": report.engine,
                "baseline": baseline.engine,
                "median_ratio": mine.latency.p50 / max(base.latency.p50, 1e-6),
            }
            for report in self.reports[1:]
            for mine, base in zip(report.batches, baseline.batches, strict=True)
        )

    def to_dict(self, *, with_samples: bool = False) -> dict[str, Any]:
        """Plain JSON values: a list of reports, and the ratios."""
        reports = [report.to_dict(with_samples=with_samples) for report in self.reports]
        return {"reports": reports, "ratios": list(self.ratios()), "missed_deadline": self.missed_deadline}


def check_deadlines(reports: Iterable[ProfileReport]) -> None:
    """Check that no call missed its deadline.

    Raises:
        BudgetError: calls missed it; the message names every such engine and batch size.
    """
    missed = [
        f"{report.detector} on {report.engine} at batch {item.batch}: {item.deadline.num_missed} of "
        f"{counted(item.deadline.num_runs, 'call')} took longer than {item.deadline.deadline_ms:g} ms, the slowest "
        f"{item.latency.max:.3g} ms"
        for report in reports
        for item in report.batches
        if item.deadline is not None and item.deadline.num_missed
    ]
    if missed:
        raise BudgetError(
            f"{'; '.join(missed)}. Choose a faster engine, a lower precision or a smaller batch, or a longer deadline."
        )


def _megabytes(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / _MB
