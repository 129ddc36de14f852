"""What is here: engines and packages, the detectors, a bundle."""

from __future__ import annotations

import ast
import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.environment import describe_environment, package_versions
from ..core.registry import resolve
from ..profiles.table import aligned
from ..runtime.engine import ENGINES, availability


def doctor() -> dict[str, Any]:
    """Engines that work here and what would make the others work, packages, conflicts, GPUs: JSON values."""
    engines = [availability(name) for name in ENGINES if name != "null"]
    return {
        "engines": [dataclasses.asdict(state) for state in engines],
        "conflicts": list(_conflicts(package_versions())),
        "can_train": find_spec("torch") is not None and find_spec("timm") is not None,
        "environment": describe_environment(),
    }


def _conflicts(packages: dict[str, str]) -> tuple[str, ...]:
    found = []
    if {"onnxruntime", "onnxruntime-gpu"} <= set(packages):
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. "
            "Keep one: pip uninstall onnxruntime onnxruntime-gpu, then install lineproof[cpu] or lineproof[gpu]."
        )
    if int(packages.get("tensorrt", "0").split(".")[0]) >= 11 and "onnxruntime-gpu" in packages:
        found.append(
            f"tensorrt {packages['tensorrt']} does not serve ONNX Runtime's TensorRT provider, which needs "
            "libnvinfer.so.10. Use engine trt, or an environment of its own with tensorrt-cu13 10.x for ort-trt."
        )
    return tuple(found)


def doctor_sentences(found: dict[str, Any]) -> tuple[str, ...]:
    """The diagnosis for people."""
    environment = found["environment"]
    rows = [(e["name"], "yes" if e["is_available"] else "no", e["found"], e["fix"]) for e in found["engines"]]
    lines = [
        f"CPU: {environment['cpu']}, {environment['num_cores']} cores, {' '.join(environment['cpu_features'])}",
        f"GPU: {', '.join(gpu['name'] for gpu in environment['gpus']) or 'none that the NVIDIA driver reports'}",
        f"Training: {'possible' if found['can_train'] else 'not possible; pip install lineproof[train]'}",
        "",
    ]
    for name, state, seen, fix in rows:
        lines.append(f"{name:9} {state:4} {seen}")
        if fix:
            lines.append(f"{'':14} to fix: {fix}")
    return (*lines, *(f"Conflict: {item}" for item in found["conflicts"]))


def list_detectors() -> tuple[tuple[str, str], ...]:
    """Name and one-line summary of each detector; nothing is imported, so it works without PyTorch."""
    from ..detectors.table import DETECTORS

    return tuple((name, _summary(target.partition(":")[0])) for name, target in sorted(DETECTORS.items()))


def _summary(module: str) -> str:
    """First line of a module's docstring, read from its source."""
    folder = Path(__file__).resolve().parent.parent / "detectors"
    source = (folder / f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def detector_parameters(name: str) -> dict[str, Any]:
    """Every parameter of a detector with the paper's default; needs PyTorch."""
    from ..detectors.table import DETECTORS

    config_class = resolve(DETECTORS, name, kind="detector").config_class
    return {field.name: field.default for field in dataclasses.fields(config_class)}


def bundle_sentences(bundle: Bundle) -> tuple[str, ...]:
    """A bundle for people."""
    manifest = bundle.manifest
    spec, figures = manifest.preprocessing, manifest.figures
    flops = ", ".join(f"{stage} {count / 1e9:.3f}" for stage, count in figures.flops.items())
    lines = [
        f"{bundle.path}: {manifest.detector.name} on {figures.backbone or 'no backbone'}, {manifest.precision}, "
        f"made {manifest.created}, parity {manifest.parity}.",
        f"Input: frames uint8 ({', '.join(map(str, manifest.inputs[0].shape))}), 1 to {manifest.max_batch} at once, "
        f"{'RGB' if spec.frame_channels == 3 else 'mono'} as the camera gives them.",
        f"In the graph: antialiased resize to {spec.resize_height_px}x{spec.resize_width_px}, centre crop to "
        f"{spec.crop_height_px}x{spec.crop_width_px}, mean {spec.mean}, std {spec.std}.",
        *(f"Output: {item.name} {item.dtype} ({', '.join(map(str, item.shape))})." for item in manifest.outputs),
        f"Threshold {manifest.threshold.value:.6g} (NG where score > threshold): {manifest.threshold.sentence()}; "
        f"{manifest.threshold.source}.",
        *(
            f"Threshold on {name}: {item.value:.6g}: {item.sentence()}."
            for name, item in sorted(manifest.engine_thresholds.items())
        ),
        f"Trained on {manifest.training.num_images} images of {manifest.training.dataset} {manifest.training.category}, "
        f"seed {manifest.training.seed}, data sha256 {manifest.training.fingerprint[:12]}…",
        f"Extra parameters {figures.extra_parameters / 1e6:.2f} M, backbone {figures.backbone_parameters / 1e6:.2f} M, "
        f"constants {figures.constants_bytes / 1e6:.2f} MB; GFLOP per frame: {flops}.",
        f"Nodes: {', '.join(f'{count} {dtype}' for dtype, count in figures.nodes_per_dtype.items())}.",
        aligned(
            ("file", "MB", "sha256"),
            [(n, f"{r.num_bytes / 1e6:.2f}", r.sha256[:12]) for n, r in manifest.files.items()],
        ),
        *(f"Plan {plan.file}: {plan.engine} {plan.engine_version} for {plan.target}." for plan in manifest.plans),
    ]
    return tuple(lines)
