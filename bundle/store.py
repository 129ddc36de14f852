"""Bundles on disk: written whole or not at all, hashed on write, checked on open."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import BundleError
from ..core.prediction import Prediction
from ..core.spec import Frames
from .atomic import file_sha256, replace_directory, sync_tree, write_atomic
from .lock import exclusive
from .manifest import FileRecord, Manifest, PlanRecord
from .parse import parse_manifest
from .runs.folder import refuse_run
from .transaction import MANIFEST as MANIFEST
from .transaction import PROFILE as PROFILE
from .transaction import PROOF as PROOF
from .transaction import Transaction
from .transaction import now as now

MODEL = "model.onnx"
GOLDEN = "golden.npz"
REFERENCE = "reference.safetensors"
#: Folder of an imported model's own file and, where they lie beside it, its weights.
ORIGINAL = "original"
_REQUIRED = (MODEL, GOLDEN)
#: A change of a bundle takes milliseconds, a plan of gigabytes on a slow disk some seconds.
WAIT_S = 60.0
#: How often a bundle that is exchanged while it is being opened is opened again.
_NUM_OPENINGS = 5


@dataclass(frozen=True, eq=False)
class Golden:
    """Real frames, with the scores and the anomaly maps of the PyTorch reference.

    Attributes:
        frames: N frames, as the graph takes them (``manifest.inputs``).
        names: name of each frame's source, N of them.
        reference: float32 scores (N,) and maps (N, h, w) of the reference, before any lowering.
    """

    frames: Frames
    names: tuple[str, ...]
    reference: Prediction


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: folder of the bundle.
        manifest: its manifest, as it was when the bundle was opened or last changed through this handle.
    """

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """Path of model.onnx."""
        return self.path / MODEL

    @property
    def model_sha256(self) -> str:
        """See ``Manifest.model_sha256``."""
        return self.manifest.model_sha256

    def golden(self) -> Golden:
        """Read golden.npz.

        Raises:
            BundleError: the file is not the one that this manifest names: the bundle was exchanged meanwhile.
        """
        content = (self.path / GOLDEN).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest.files[GOLDEN].sha256:
            raise _exchanged(self.path)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            reference = Prediction(arrays["score"], arrays["anomaly_map"])
            return Golden(arrays["frames"], tuple(str(name) for name in arrays["names"]), reference)

    def check_same_files(self) -> None:
        """Raise BundleError where another bundle took this one's place on disk."""
        if read_manifest(self.path).files != self.manifest.files:
            raise _exchanged(self.path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the bundle alone and see it as it is on disk now; everything that changes it goes through here.

        Raises:
            BusyError: somebody else holds it for longer than a change takes.
            BundleError: there is no bundle any more.
            OSError: the bundle cannot be written to.
        """
        if not (self.path / MANIFEST).is_file():
            raise BundleError(f"{self.path} is no bundle any more; what was to be written into it was not.")
        with exclusive(self.path, what="a change of the bundle", wait_s=WAIT_S):
            for left_by_a_kill in self.path.glob(".*.tmp"):
                left_by_a_kill.unlink()
            yield Transaction(self.path, read_manifest(self.path).with_edit_noted(time=now()))

    def change(self, edit: Callable[[Manifest], Manifest]) -> Bundle:
        """Replace the manifest by an edited copy of the one that is on disk now.

        Args:
            edit: makes the new manifest from the one on disk, which may be newer than this bundle's own.

        Returns:
            The bundle as it is on disk after that.

        Raises:
            BusyError, BundleError, OSError: see ``transaction``.
        """
        with self.transaction() as change:
            change.write(edit(change.manifest))
            return Bundle(self.path, change.manifest)

    def append_report(self, file: str, report: Mapping[str, Any]) -> None:
        """Append a report with its time to proof.json or profile.json; see ``Transaction.append_report``."""
        with self.transaction() as change:
            change.append_report(file, report)

    def add_plan(self, content: bytes, record: PlanRecord) -> Bundle:
        """Store a plan and record its hash; a plan of the same file name is replaced.

        A proof of an earlier plan of that engine says nothing about this one: the engine becomes unverified.

        Args:
            content: bytes of the plan.
            record: record of the plan, with the hash of ``content``.

        Returns:
            The bundle as it is on disk after that.

        Raises:
            BusyError, BundleError, OSError: see ``transaction``.
        """
        with self.transaction() as change:
            path = self.path / record.file
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, content)
            others = tuple(plan for plan in change.manifest.plans if plan.file != record.file)
            parity = {name: item for name, item in change.manifest.parity.items() if name != record.engine}
            change.write(dataclasses.replace(change.manifest, plans=(*others, record), parity=parity))
            return Bundle(self.path, change.manifest)


def write_bundle(path: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Bundle:
    """Write a bundle: all of it, or nothing.

    Args:
        path: the bundle's folder; an older bundle there is exchanged for the new one in one step, once nobody is
            changing it.
        manifest: manifest of the bundle, with ``files`` and ``history`` still empty.
        fill: writes the files (model.onnx, golden.npz, …) into the folder that is its argument.

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
        manifest = manifest.with_entry("export", time=manifest.created, reason=manifest.threshold.source)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        sync_tree(temporary)
        held = exclusive(path, what="an export", wait_s=WAIT_S) if path.exists() else contextlib.nullcontext()
        with held:
            replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(path, manifest)


def check_place(path: Path) -> None:
    """Raise BundleError unless a bundle may be written to ``path``; meant to be called before hours of work."""
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
    for _ in range(_NUM_OPENINGS - 1):
        manifest = read_manifest(path)
        try:
            _check_files(path, manifest)
        except (BundleError, FileNotFoundError):
            # A bundle that was exchanged between the two readings is not an altered one.
            if read_manifest(path).files != manifest.files:
                continue
            raise
        return Bundle(path, manifest)
    raise _exchanged(path)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a bundle; no other file is looked at.

    Raises:
        BundleError: not a bundle, or a manifest that this release cannot read.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        refuse_run(path)
        seen = "a folder without manifest.json" if path.is_dir() else ("a file" if path.exists() else "nothing there")
        raise BundleError(f"{path} is not a bundle ({seen}). Make one with `lineproof export`.") from None
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: manifest.json is not UTF-8 ({error}). Copy the bundle again.") from None
    return parse_manifest(text, where=str(path))


def _check_files(path: Path, manifest: Manifest) -> None:
    missing = [name for name in _REQUIRED if name not in manifest.files]
    if missing:
        raise BundleError(f"{path}: the manifest lists no {' and no '.join(missing)}. Export the bundle again.")
    for name, record in manifest.files.items():
        _check_file(path, name, record)


def _exchanged(path: Path) -> BundleError:
    return BundleError(f"{path} was exchanged for another bundle while it was being read. Open it again.")


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


def is_bundle(path: Path) -> bool:
    """Whether a path holds a bundle rather than a training run."""
    return (path / MANIFEST).is_file()
