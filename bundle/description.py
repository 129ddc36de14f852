"""A bundle in words: what it takes and gives, how it was made, what is proved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.size import value_text
from ..core.table import aligned
from .manifest import NOT_RECORDED, Manifest
from .store import PROOF, Bundle


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


def _interface(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    spec, taken = manifest.preprocessing, manifest.inputs[0]
    thresholds = {"": manifest.threshold, **{f" on {k}": v for k, v in sorted(manifest.engine_thresholds.items())}}
    return [
        f"{bundle.path}: {manifest.detector.name}, {manifest.precision}, made {manifest.created}.",
        *_proofs(manifest, _reports_of(bundle.path / PROOF)),
        f"Input: {taken.name} {taken.dtype} ({', '.join(map(str, taken.shape))}), 1 to {manifest.max_batch} at once, "
        f"{spec.content}.",
        *spec.sentences(),
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


def _origin(manifest: Manifest) -> list[str]:
    training = manifest.training
    parameters = ", ".join(f"{key} {value_text(value)}" for key, value in manifest.detector.parameters.items())
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
