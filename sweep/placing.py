"""How much a new bundle takes, and when it takes the place of the one that was there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..bundle.place import Place, bundle_records, left_words, take_place
from ..bundle.runs.folder import CHECKPOINT
from ..eval.parity.prove import ExportResult


def num_bytes(run: Path, *, has_reference: bool, precision: str) -> int:
    """Bytes that the export of a run takes at least: its tensors in the graph, and once more as the reference."""
    num_bytes = (run / CHECKPOINT).stat().st_size
    return num_bytes // (2 if precision == "fp16" else 1) + has_reference * num_bytes


def settle(place: Place, proof: ExportResult, *, accept_undecided: bool) -> ExportResult:
    """Let a bundle that another one's place was waiting for take it, unless it failed or is undecided unaccepted."""
    if place.is_free:
        return proof
    accepted = ("passed", "undecided") if accept_undecided else ("passed",)
    if proof.parity and proof.parity.state not in accepted:
        return dataclasses.replace(proof, notes=(*proof.notes, left_words(place)))
    records = bundle_records(place.out)
    kept = take_place(place, keeps_old=bool(records) and proof.parity is None)
    words = f"It took the place of a bundle that held {', '.join(records)}." if records else ""
    if kept:
        words += f" That one is kept at {kept}, since the new one is not proved."
    bundle = dataclasses.replace(proof.bundle, path=place.out)
    return dataclasses.replace(proof, bundle=bundle, notes=(*proof.notes, *((words,) if words else ())))
