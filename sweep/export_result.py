"""What an export came to: bundle, TensorRT build, verification, operating table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..bundle.store import Bundle
from ..core.words import counted
from ..data.content import holdout_lines
from ..data.notes import NO_DATA, DataNotes
from ..eval.parity.report import ParityReport
from ..export.tensorrt.build import GateReport
from ..metrics.operating import RunOperation


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
        training, is_set = self.bundle.manifest.training, self.bundle.manifest.threshold.num_good > 0
        return [
            *(self.operation.warnings() if self.operation else []),
            *(holdout_lines(training.unlike_held_out, training.held_out) if is_set else ()),
            *([caveat] if (caveat := self.bundle.manifest.caveat_for("")) else []),
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
                f"{counted(self.gate.num_layers, 'layer')} ({_counts(self.gate.layers_per_dtype)}), "
                f"{self.gate.seconds:.1f} s."
            )
        lines += [f"Plan: {plan.file} for {plan.target} ({_counts(plan.layers_per_dtype)})." for plan in manifest.plans]
        proved = self.parity.summary_lines() if self.parity else ()
        lines += [*(line for line in proved if line not in lines), *self.notes]
        return (*lines, *(self.operation.summary_lines() if self.operation else ()))


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{count} {dtype}" for dtype, count in counted.items()) or "layers not counted"
