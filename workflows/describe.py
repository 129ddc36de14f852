"""What is here: engines and packages, the detectors, a bundle."""

from __future__ import annotations

import ast
import dataclasses
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bundle.manifest import NOT_RECORDED, Manifest
from ..bundle.store import PROOF, Bundle
from ..core.registry import resolve
from ..core.size import size_text
from ..core.table import aligned
from ..detectors.table import DETECTORS
from ..host.environment import describe_environment, package_versions
from ..host.extras import install
from ..runtime.engine import ENGINES, Availability, availability
from .find import open_named


@dataclass(frozen=True)
class Diagnosis:
    """What works here.

    Attributes:
        engines: every engine, whether it can run, and what would make it.
        conflicts: packages that harm each other, in sentences.
        can_train: whether torch and timm are installed.
        environment: see ``host.environment``.
    """

    engines: tuple[Availability, ...]
    conflicts: tuple[str, ...]
    can_train: bool
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def sentences(self) -> tuple[str, ...]:
        """The diagnosis for people."""
        seen = self.environment
        lines = [
            f"CPU: {seen['cpu']}, {seen['num_cores']} cores, {' '.join(seen['cpu_features'])}",
            f"GPU: {', '.join(gpu['name'] for gpu in seen['gpus']) or 'none that the NVIDIA driver reports'}",
            f"Training: {'possible' if self.can_train else 'not possible: ' + install('train')}",
        ]
        for engine in self.engines:
            lines.append(f"{engine.name:9} {'yes' if engine.is_available else 'no':4}{engine.found}")
            if engine.fix:
                lines.append(f"{'':14}to fix: {engine.fix}")
        return (*lines, *(f"Conflict: {item}" for item in self.conflicts))


def examine() -> Diagnosis:
    """Look at engines, packages and GPUs; nothing is opened."""
    return Diagnosis(
        tuple(availability(name) for name in ENGINES if name != "null"),
        _conflicts(package_versions()),
        find_spec("torch") is not None and find_spec("timm") is not None,
        describe_environment(),
    )


def _conflicts(packages: dict[str, str]) -> tuple[str, ...]:
    found = []
    if {"onnxruntime", "onnxruntime-gpu"} <= set(packages):
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. "
            f"Keep one: pip uninstall onnxruntime onnxruntime-gpu, then {install('cpu')} or {install('gpu')}."
        )
    if int(packages.get("tensorrt", "0").split(".")[0]) >= 11 and "onnxruntime-gpu" in packages:
        found.append(
            f"tensorrt {packages['tensorrt']} does not serve ONNX Runtime's TensorRT provider, which needs "
            "libnvinfer.so.10. Use engine trt, or an environment of its own with tensorrt-cu13 10.x for ort-trt."
        )
    return tuple(found)


@dataclass(frozen=True)
class Listing:
    """Names and what stands behind them."""

    entries: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.entries

    def sentences(self) -> tuple[str, ...]:
        """One line per name."""
        return tuple(f"{name:22} {_shown(value)}" for name, value in self.entries.items())


def _shown(value: Any) -> str:
    """Height and width as people write them, anything else as it is."""
    return size_text(value) if isinstance(value, tuple | list) else str(value)


def describe_detectors(detector: str | None) -> Listing:
    """Every detector with one line about it, or every parameter of one with the paper's default.

    The list is read from source and works without PyTorch; the parameters need it.
    """
    if detector is None:
        return Listing({name: _summary(target.partition(":")[0]) for name, target in sorted(DETECTORS.items())})
    config_class = resolve(DETECTORS, detector, kind="detector").config_class
    return Listing({field.name: field.default for field in dataclasses.fields(config_class)})


def _summary(module: str) -> str:
    """First line of a module's docstring, read from its source."""
    root = Path(__file__).resolve().parent.parent
    source = root.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


@dataclass(frozen=True)
class BundleDescription:
    """A bundle for people and for programs."""

    bundle: Bundle

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        manifest = self.bundle.manifest
        values: dict[str, Any] = json.loads(manifest.to_json())
        states = {name: manifest.parity_of(name) for name in manifest.parity}
        recorded = manifest.is_decision_recorded
        return {**values, "decision": manifest.decision, "is_decision_recorded": recorded, "proof_states": states}

    def sentences(self) -> tuple[str, ...]:
        """What it takes, what it gives, how it was made."""
        return (*_interface(self.bundle), *_origin(self.bundle.manifest), *_contents(self.bundle.manifest))


def describe_bundle(path: Path | None) -> BundleDescription:
    """Open the bundle named, or the newest one here.

    Raises:
        BadInputError: a training run was named; the message says how to export or to finish it.
    """
    return BundleDescription(open_named(path))


def _interface(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    spec = manifest.preprocessing
    thresholds = {"": manifest.threshold, **{f" on {k}": v for k, v in sorted(manifest.engine_thresholds.items())}}
    return [
        f"{bundle.path}: {manifest.detector.name}, {manifest.precision}, made {manifest.created}.",
        *_proofs(manifest, _reports_of(bundle.path / PROOF)),
        f"Input: frames uint8 ({', '.join(map(str, manifest.inputs[0].shape))}), 1 to {manifest.max_batch} at once, "
        f"{'RGB' if spec.frame_channels == 3 else 'mono'} as the camera gives them.",
        f"Pictures in files: of another size {_FITS[spec.fit]}; 16-bit pictures hold {spec.bit_depth or 16} bits.",
        f"In the graph: antialiased resize to {spec.resize_height_px}x{spec.resize_width_px}, centre crop to "
        f"{spec.crop_height_px}x{spec.crop_width_px}, mean {spec.mean}, std {spec.std}.",
        *(f"Output: {item.name} {item.dtype} ({', '.join(map(str, item.shape))})." for item in manifest.outputs),
        *(
            f"Threshold{where} {item.value:.6g} (NG where score > threshold): {item.sentence()}; {item.source}."
            for where, item in thresholds.items()
        ),
    ]


def _reports_of(path: Path) -> list[dict[str, Any]]:
    """The reports in a JSON list of them; none where the file is missing or is no such list."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _proofs(manifest: Manifest, reports: list[dict[str, Any]]) -> list[str]:
    """What is proved, for which decision, and how the decision came about."""
    shown = {(item.get("proof_name"), item.get("decision"), item.get("state")) for item in reports}
    proved = [name for name in sorted(manifest.parity) if manifest.parity_of(name) == "passed"]
    bare = [name for name in proved if (name, manifest.decision, "passed") not in shown]
    states = ", ".join(f"{name} {manifest.parity_of(name)}" for name in sorted(manifest.parity))
    lines = [
        f"Parity: {states or 'no engine verified yet'}.",
        f"Decision {manifest.decision[:12]}… (model, preprocessing, thresholds):",
        *(f"  {entry.sentence()}" for entry in manifest.history),
    ]
    if any(manifest.parity_of(name) == "outdated" for name in manifest.parity):
        lines.insert(1, "Outdated: proved for another decision than the present one. Verify again.")
    if bare:
        lines.insert(1, f"{PROOF} shows no such report for {', '.join(bare)}: it was removed, cut or edited.")
    if not manifest.is_decision_recorded:
        lines.append(f"  What stands here (decision, proofs, tolerances, training) {NOT_RECORDED}")
    return lines


_FITS = {
    "none": "are refused",
    "stretch": "are resized to the frame (fit stretch)",
    "pad": "are padded to the frame, larger ones refused (fit pad)",
    "crop": "are cropped to the frame, smaller ones refused (fit crop)",
}


def _origin(manifest: Manifest) -> list[str]:
    training = manifest.training
    parameters = ", ".join(f"{key} {_shown(value)}" for key, value in manifest.detector.parameters.items())
    return [
        f"Trained on {training.num_images} images of {training.dataset} {training.category} (seed {training.seed}, "
        f"data sha256 {training.fingerprint[:12]}…), {training.num_holdout} held out.",
        f"Parameters: {parameters}.",
    ]


def _contents(manifest: Manifest) -> list[str]:
    figures = manifest.figures
    flops = ", ".join(f"{stage} {count / 1e9:.3f}" for stage, count in figures.flops.items())
    files = [(name, f"{item.num_bytes / 1e6:.2f}", item.sha256[:12]) for name, item in manifest.files.items()]
    return [
        f"Extra parameters {figures.extra_parameters / 1e6:.2f} M, backbone {figures.backbone_parameters / 1e6:.2f} M, "
        f"constants {figures.constants_bytes / 1e6:.2f} MB; GFLOP per frame: {flops}.",
        f"Nodes: {', '.join(f'{count} {dtype}' for dtype, count in figures.nodes_per_dtype.items())}.",
        aligned(("file", "MB", "sha256"), files),
        *(f"Plan {plan.file}: {plan.engine} {plan.engine_version} for {plan.target}." for plan in manifest.plans),
    ]
