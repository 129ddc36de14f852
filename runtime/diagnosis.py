"""The diagnosis of a machine: which engines can run on it, and what would make the others run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..core.words import counted
from ..host.environment import describe_environment, package_versions
from ..host.extras import install
from .engine import Availability, availability, names_of


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What works on this machine.

    Attributes:
        engines: every engine, whether it can run here, and what would make it run.
        conflicts: one sentence for each pair of installed packages that harm each other.
        can_train: whether torch and timm are installed.
        environment: CPU, GPUs, system and package versions, as ``host.environment`` gives them.
    """

    engines: tuple[Availability, ...]
    conflicts: tuple[str, ...]
    can_train: bool
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def summary_lines(self) -> tuple[str, ...]:
        """The diagnosis for people."""
        seen = self.environment
        lines = [
            f"CPU: {seen['cpu']}, {counted(seen['num_cores'], 'core')}, {' '.join(seen['cpu_features'])}",
            f"GPU: {', '.join(gpu['name'] for gpu in seen['gpus']) or 'none that the NVIDIA driver reports'}",
            f"Training: {'possible' if self.can_train else 'not possible: ' + install('train')}",
        ]
        for engine in self.engines:
            lines.append(f"{engine.name:9} {'yes' if engine.is_available else 'no':4}{engine.found}")
            if engine.fix:
                lines.append(f"{'':14}to fix: {engine.fix}")
        return (*lines, *(f"Conflict: {item}" for item in self.conflicts))


def examine() -> Diagnosis:
    """Diagnose this machine: engines, packages and GPUs. No model is opened."""
    return Diagnosis(
        engines=tuple(availability(name) for name in names_of(lambda engine: not engine.is_harness)),
        conflicts=_conflicts(package_versions()),
        can_train=find_spec("torch") is not None and find_spec("timm") is not None,
        environment=describe_environment(),
    )


def _conflicts(packages: dict[str, str]) -> tuple[str, ...]:
    conflicts = []
    if {"onnxruntime", "onnxruntime-gpu"} <= set(packages):
        conflicts.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. "
            f"Keep one: pip uninstall onnxruntime onnxruntime-gpu, then {install('cpu')} or {install('gpu')}."
        )
    if int(packages.get("tensorrt", "0").split(".")[0]) >= 11 and "onnxruntime-gpu" in packages:
        conflicts.append(
            f"tensorrt {packages['tensorrt']} does not serve ONNX Runtime's TensorRT provider, which needs "
            "libnvinfer.so.10. Use engine trt, or an environment of its own with tensorrt-cu13 10.x for ort-trt."
        )
    return tuple(conflicts)
