"""Placing of a new bundle: how much space it needs, and when it takes the place of an older one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..bundle.place import Place, bundle_records, left_words, take_place
from ..bundle.runs.folder import CHECKPOINT
from .export_result import ExportResult


def num_bytes(run: Path, *, has_reference: bool, precision: str) -> int:
    """Smallest size of a run's bundle in bytes: its tensors in the graph, and once more as the reference.

    Args:
        run: run folder.
        has_reference: whether the bundle carries the PyTorch weights too.
        precision: precision of the graph; fp16 halves its part.
    """
    num_bytes = (run / CHECKPOINT).stat().st_size
    return num_bytes // (2 if precision == "fp16" else 1) + has_reference * num_bytes


def settle(place: Place, proof: ExportResult, *, accept_undecided: bool) -> ExportResult:
    """Move a new bundle to the place of the old one, unless its verification failed or is undecided.

    Args:
        place: place that the bundle was exported for.
        proof: result of the export.
        accept_undecided: whether an undecided verification is good enough.

    Returns:
        The result with the bundle's final path, and notes about what became of the old and the new bundle.
    """
    if place.is_free:
        return proof
    accepted = ("passed", "undecided") if accept_undecided else ("passed",)
    if proof.parity and proof.parity.state not in accepted:
        return dataclasses.replace(proof, notes=(*proof.notes, left_words(place)))
    records = bundle_records(place.out)
    old = take_place(place, keeps_old=bool(records) and proof.parity is None)
    words = f"It took the place of a bundle that held {', '.join(records)}." if records else ""
    if old:
        words += f" That one is kept at {old}, since the new one is not proved."
    bundle = dataclasses.replace(proof.bundle, path=place.out)
    return dataclasses.replace(proof, bundle=bundle, notes=(*proof.notes, *((words,) if words else ())))
