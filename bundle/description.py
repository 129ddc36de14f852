"""A bundle in words: its inputs and outputs, its thresholds, what is proved, and how it was trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.size import value_text
from ..core.strict import read_as
from ..core.table import aligned
from ..core.words import clause, counted
from .manifest import NOT_RECORDED, Manifest
from .record import ParityState
from .store import PROOF, Bundle


@dataclass(frozen=True)
class BundleDescription:
    """What ``lineproof inspect`` says of a bundle, as lines and as JSON.

    Attributes:
        bundle: the bundle, already opened and checked.
    """

    bundle: Bundle

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, with ``decision``, ``is_decision_recorded`` and ``proof_states`` added."""
        manifest = self.bundle.manifest
        values: dict[str, Any] = json.loads(manifest.to_json())
        states = {name: manifest.parity_of(name) for name in manifest.parity}
        recorded = manifest.is_decision_recorded
        return {**values, "decision": manifest.decision, "is_decision_recorded": recorded, "proof_states": states}

    def summary_lines(self) -> tuple[str, ...]:
        """The bundle for people, a line each: proofs, inputs, outputs, thresholds, training, files and plans."""
        return (*_interface(self.bundle), *_origin(self.bundle.manifest), *_contents(self.bundle.manifest))


def _interface(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    spec, frames = manifest.preprocessing, manifest.inputs[0]
    thresholds = {"": manifest.threshold, **{f" on {k}": v for k, v in sorted(manifest.engine_thresholds.items())}}
    return [
        f"{bundle.path}: {manifest.detector.name}, {manifest.precision}, made {manifest.created}.",
        *_proofs(manifest, *_filed_proofs(bundle.path / PROOF)),
        f"Input: {frames.name} {frames.dtype} ({', '.join(map(str, frames.shape))}), "
        f"1 to {manifest.max_batch} at once, {spec.content}.",
        *spec.summary_lines(),
        *(f"Output: {item.name} {item.dtype} ({', '.join(map(str, item.shape))})." for item in manifest.outputs),
        *(
            f"Threshold{where} {item.value:.6g} (NG where score > threshold): {item.sentence()}; {item.source}."
            for where, item in thresholds.items()
        ),
        *([manifest.caveat_for("")] if manifest.caveat_for("") else []),
    ]


@dataclass(frozen=True)
class _FiledProof:
    """As much of a report in proof.json as says what it proves; None where an earlier release did not say."""

    proof_name: str | None = None
    decision: str | None = None
    state: ParityState | None = None


def _filed_proofs(path: Path) -> tuple[set[_FiledProof], list[str]]:
    """What the reports in proof.json prove, and what is wrong with the file; a report that is wrong is left out."""
    if not path.is_file():
        return set(), []
    proofs, problems = set[_FiledProof](), list[str]()
    try:
        entries = read_as(tuple[Any, ...], json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        return proofs, [f"{PROOF} cannot be read: {clause(error)}."]
    for index, entry in enumerate(entries):
        try:
            proofs.add(read_as(_FiledProof, entry, where=str(index), refuses_unknown=False))
        except ValueError as error:
            problems.append(f"{PROOF}: {clause(error)}. The report does not count.")
    return proofs, problems


def _proofs(manifest: Manifest, filed: set[_FiledProof], problems: list[str]) -> list[str]:
    """The proofs, the decision that they hold for, and its history, a line each."""
    proved = [name for name in sorted(manifest.parity) if manifest.parity_of(name) == "passed"]
    bare = [name for name in proved if _FiledProof(name, manifest.decision, "passed") not in filed]
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
    lines[1:1] = problems
    if not manifest.is_decision_recorded:
        lines.append(f"  What stands here (decision, proofs, tolerances, training) {NOT_RECORDED}")
    return lines


def _origin(manifest: Manifest) -> list[str]:
    training, imported = manifest.training, manifest.imported
    values = {key: value_text(value) for key, value in manifest.detector.parameters.items()}
    if imported:
        values.pop("weights", None)
    parameters = ", ".join(f"{key} {value}" for key, value in values.items())
    part = f"{training.dataset} {training.category}".strip()
    good = counted(training.num_holdout, "good image")
    if imported:
        split = f" ({imported.good_split} split)" if imported.good_split else ""
        # A file or a module has no parameters of training; a detector of ours has them all, whoever trained it.
        unused = "" if manifest.is_of_file else " (those of training are this program's defaults, which were not used)"
        return [
            imported.sentence(),
            f"What it was trained on is not recorded. {good} of {part}{split} served for golden frames.",
            f"Parameters{unused}: {parameters}.",
        ]
    fitted = (
        f"Trained on {training.num_images} images of {part} (seed {training.seed}, data sha256 "
        f"{training.fingerprint[:12]}…), {training.num_holdout} {training.held_out_words}."
    )
    return [
        fitted,
        f"Parameters: {parameters}.",
        *([manifest.detector.pretrained.sentence()] if manifest.detector.pretrained else []),
    ]


def _contents(manifest: Manifest) -> list[str]:
    figures = manifest.figures
    flops = ", ".join(f"{stage} {count / 1e9:.3f}" for stage, count in figures.flops.items()) or "not known"
    files = [(name, f"{item.num_bytes / 1e6:.2f}", item.sha256[:12]) for name, item in manifest.files.items()]
    return [
        f"Extra parameters {figures.extra_parameters / 1e6:.2f} M, backbone {figures.backbone_parameters / 1e6:.2f} M, "
        f"constants {figures.constants_bytes / 1e6:.2f} MB; GFLOP per frame: {flops}.",
        f"Nodes: {', '.join(f'{count} {dtype}' for dtype, count in figures.nodes_per_dtype.items())}.",
        aligned(("file", "MB", "sha256"), files),
        *(f"Plan {plan.file}: {plan.engine} {plan.engine_version} for {plan.target}." for plan in manifest.plans),
    ]
