"""Bundles on disk: written whole or not at all, hashed on write, checked on open."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BundleError
from ..core.prediction import Prediction
from .atomic import file_sha256, replace_directory, sync_tree, write_atomic
from .manifest import FileRecord, Manifest, PlanRecord, parse_manifest

MODEL = "model.onnx"
GOLDEN = "golden.npz"
REFERENCE = "reference.safetensors"
MANIFEST = "manifest.json"
_REQUIRED = (MODEL, GOLDEN)


@dataclass(frozen=True, eq=False)
class Golden:
    """Real frames and what the PyTorch reference said about them.

    Attributes:
        frames: uint8 (N, H, W, C).
        names: where each frame came from.
        reference: float32 scores (N,) and maps (N, h, w) of the reference, before any lowering.
    """

    frames: NDArray[np.uint8]
    names: tuple[str, ...]
    reference: Prediction


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: its path and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """Path of model.onnx."""
        return self.path / MODEL

    @property
    def model_sha256(self) -> str:
        """Digest of the model: of the graph and, where weights lie beside it, of those too."""
        records = self.manifest.files
        parts = sorted((name, item.sha256) for name, item in records.items() if name.startswith(MODEL))
        return parts[0][1] if len(parts) == 1 else "+".join(digest[:32] for _, digest in parts)

    def golden(self) -> Golden:
        """Read golden.npz."""
        with np.load(self.path / GOLDEN, allow_pickle=False) as arrays:
            reference = Prediction(arrays["score"], arrays["anomaly_map"])
            return Golden(arrays["frames"], tuple(str(name) for name in arrays["names"]), reference)

    def with_manifest(self, manifest: Manifest) -> Bundle:
        """Replace the manifest, on disk (atomically) and in the bundle returned."""
        write_atomic(self.path / MANIFEST, manifest.to_json().encode())
        return Bundle(self.path, manifest)

    def append_report(self, file: str, report: dict[str, Any]) -> None:
        """Append a report with its time to proof.json or profile.json, a JSON list, atomically."""
        path = self.path / file
        entries = json.loads(path.read_text()) if path.exists() else []
        entries.append({"time": now(), **report})
        write_atomic(path, (json.dumps(entries, indent=2) + "\n").encode())

    def add_plan(self, content: bytes, record: PlanRecord) -> Bundle:
        """Store a plan and record its hash; a plan of the same file name is replaced."""
        path = self.path / record.file
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, content)
        others = tuple(plan for plan in self.manifest.plans if plan.file != record.file)
        return self.with_manifest(dataclasses.replace(self.manifest, plans=(*others, record)))


def now() -> str:
    """Time of day in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_bundle(path: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Bundle:
    """Write a bundle: all of it, or nothing.

    Args:
        path: the bundle's folder; an older bundle there is exchanged for the new one in one step.
        manifest: its manifest, with ``files`` still empty.
        fill: writes the files (model.onnx, golden.npz, …) into the folder it is given.

    Raises:
        BundleError: ``path`` is something else than a bundle or an empty place, or a required file is missing.
    """
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
        missing = [name for name in _REQUIRED if not (temporary / name).exists()]
        if missing:
            raise BundleError(f"{path}: {', '.join(missing)} was not written, so there is no bundle.")
        manifest = dataclasses.replace(manifest, files=_records(temporary))
        (temporary / MANIFEST).write_text(manifest.to_json())
        sync_tree(temporary)
        replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(path, manifest)


def check_place(path: Path) -> None:
    """Raise BundleError unless a bundle may be written to ``path``; meant to be asked before hours of work."""
    if path.exists() and not (path / MANIFEST).exists() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not a bundle; nothing was written. Give another --out.")
    above = next(folder for folder in Path(os.path.abspath(path)).parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        seen = "is not writable" if above.is_dir() else "is a file"
        raise BundleError(f"{path} cannot be written: {above} {seen}. Give another --out.")


def _records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    return {item.relative_to(folder).as_posix(): FileRecord(file_sha256(item), item.stat().st_size) for item in files}


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle and check every hash.

    Raises:
        BundleError: not a bundle, another format version, a missing or an altered file; the message says which.
    """
    path = Path(path)
    if not (path / MANIFEST).is_file():
        seen = "a folder without manifest.json" if path.is_dir() else ("a file" if path.exists() else "nothing there")
        raise BundleError(f"{path} is not a bundle ({seen}). Make one with `lineproof export`.")
    manifest = parse_manifest((path / MANIFEST).read_text(), where=str(path))
    missing = [name for name in _REQUIRED if name not in manifest.files]
    if missing:
        raise BundleError(f"{path}: the manifest lists no {' and no '.join(missing)}. Export the bundle again.")
    for name, record in manifest.files.items():
        _check_file(path, name, record)
    return Bundle(path, manifest)


def _check_file(path: Path, name: str, record: FileRecord) -> None:
    file = path / name
    if not file.resolve().is_relative_to(path.resolve()):
        raise BundleError(f"{path}: the manifest names {name!r}, which lies outside the bundle; refused.")
    if not file.is_file():
        raise BundleError(f"{path}: {name} is missing. Copy the whole bundle again, or export it again.")
    seen = file_sha256(file)
    if seen != record.sha256:
        raise BundleError(
            f"{path}: {name} was altered: its sha256 is {seen[:12]}…, the manifest says {record.sha256[:12]}…. "
            "Copy the bundle again, or export it again."
        )
