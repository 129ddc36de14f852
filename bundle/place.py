"""The place of a new bundle, where an older one may lie: nothing that it recorded is lost without consent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BundleError, LineproofError, StoppedError
from .atomic import exchange_directory, replace_directory
from .lock import exclusive
from .store import MANIFEST, WAIT_S, check_place

#: Entries of the history that every bundle begins with.
_FIRST_ACTIONS = ("export", "upgrade")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a bundle goes.

    Attributes:
        out: folder that the bundle shall have in the end.
        folder: folder of its own beside ``out``, in which it is written.
        is_free: whether nothing was at ``out``.
        is_replacing: whether a bundle that holds records may be replaced.
    """

    out: Path
    folder: Path
    is_free: bool
    is_replacing: bool


def bundle_records(path: Path) -> tuple[str, ...]:
    """What a bundle holds that another export would not bring back, in words; empty where there is no bundle.

    Returns:
        Of ``"calibration"``, ``"history"``, ``"plans"``, ``"profiles"``, ``"proofs"``, and ``"a manifest that cannot be
        read"``.
    """
    if not (path / MANIFEST).is_file():
        return ()
    try:
        raw: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        actions = [str(entry.get("action", "")) for entry in raw.get("history", ())]
    except (ValueError, AttributeError, TypeError):
        raw, actions = {"": None}, []
    held = {
        "a manifest that cannot be read": "" in raw,
        "calibration": bool(raw.get("engine_thresholds")),
        "history": any(action not in _FIRST_ACTIONS for action in actions),
        "plans": bool(raw.get("plans")) or any((path / "plans").glob("*")),
        "profiles": (path / "profile.json").exists(),
        "proofs": bool(raw.get("parity")) or (path / "proof.json").exists(),
    }
    return tuple(words for words, is_held in held.items() if is_held)


def check_replaceable(out: Path, *, is_replacing: bool) -> None:
    """Raise BundleError unless a bundle may be written to ``out``; meant to be called before any work.

    It may not where something else than a bundle is, where nothing can be written, and where a bundle is that holds
    records, unless ``is_replacing``.
    """
    check_place(out)
    records = bundle_records(out)
    if records and not is_replacing:
        raise BundleError(
            f"{out} is a bundle that holds {', '.join(records)}, which another export does not bring back; it was left "
            "as it is. Give another --out, or --replace: then it is replaced once the new one is proved."
        )


@contextlib.contextmanager
def reserved(out: Path, *, is_replacing: bool) -> Iterator[Place]:
    """A folder beside ``out`` to write a bundle into; an error or Ctrl-C in the block says where it lies.

    Raises:
        BundleError: see ``check_replaceable``.
    """
    check_replaceable(out, is_replacing=is_replacing)
    # A link stays; what it points to is what is replaced.
    out = out.resolve() if out.is_symlink() else out
    out.parent.mkdir(parents=True, exist_ok=True)
    place = Place(out=out, folder=_reserve(out), is_free=not (out / MANIFEST).exists(), is_replacing=is_replacing)
    try:
        yield place
    except LineproofError as error:
        if (place.folder / MANIFEST).exists():
            error.args = (f"{error} {left_words(place)}",)
        raise
    except KeyboardInterrupt:
        if (place.folder / MANIFEST).exists():
            raise StoppedError(f"Stopped. {left_words(place)}") from None
        if place.is_free and (place.out / MANIFEST).exists():
            words = f"Stopped. The bundle at {place.out} is whole and unproved: lineproof verify {place.out}"
            raise StoppedError(words) from None
        raise
    finally:
        with contextlib.suppress(OSError):
            place.folder.rmdir()


def occupy(place: Place) -> Path:
    """Move a bundle that was written at ``place.folder`` to ``place.out`` where nothing is, before it is proved.

    Returns:
        Where it is: at ``place.out``, or still at ``place.folder`` where another bundle is at its place.

    Raises:
        BundleError: a bundle was put there meanwhile.
    """
    if not place.is_free:
        return place.folder
    try:
        with contextlib.suppress(FileNotFoundError):
            place.out.rmdir()
        os.rename(place.folder, place.out)
    except OSError as error:
        if not place.out.exists():
            raise
        raise BundleError(f"Something was put at {place.out} while the bundle was being made ({error}).") from None
    return place.out


def take_place(place: Place, *, keeps_old: bool) -> Path | None:
    """Put the bundle at ``place.folder`` to ``place.out``, in one step where the system can.

    Args:
        place: a place at whose ``out`` another bundle lies.
        keeps_old: whether the bundle that was there is kept beside it, or deleted.

    Returns:
        Path of the old bundle; None where it was deleted.

    Raises:
        BundleError: records were written into the old one meanwhile, and it may not be replaced.
        BusyError: somebody is changing the old one.
    """
    with exclusive(place.out, what="an export", wait_s=WAIT_S):
        check_replaceable(place.out, is_replacing=place.is_replacing)
        if not keeps_old:
            replace_directory(place.folder, place.out)
            return None
        old = _beside(place.out, "old")
        exchange_directory(place.folder, place.out, old=old)
        return old


def left_words(place: Place) -> str:
    """A sentence for a new bundle that did not take its place: where both bundles lie, and how to use the new one."""
    return (
        f"The bundle at {place.out} is as it was. The new one is kept at {place.folder}; to use it all the same, move "
        f"{place.out} away and rename {place.folder} to {place.out}."
    )


def check_changeable(path: Path) -> None:
    """Raise BundleError where a bundle cannot be written to."""
    if not os.access(path, os.W_OK | os.X_OK):
        raise BundleError(
            f"{path} is not writable: a plan would be built and could not be stored. Work on a copy of the bundle."
        )


def check_space(folder: Path, num_bytes: int) -> None:
    """Raise BundleError where the disk that ``folder`` is or will be on has less free space."""
    asked = Path(os.path.abspath(folder))
    above = next(item for item in (asked, *asked.parents) if item.exists())
    free = shutil.disk_usage(above).free
    if free < num_bytes:
        raise BundleError(
            f"{above} has {free / 1e6:.0f} MB free; this needs at least {num_bytes / 1e6:.0f} MB. Nothing was written. "
            "Free some space, or give an --out on another disk."
        )


def _reserve(out: Path) -> Path:
    """Make an empty folder beside ``out`` that no other process writes to."""
    while True:
        folder = _beside(out, "new")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _beside(out: Path, word: str) -> Path:
    """The first free name ``NAME.WORD-N`` beside a bundle."""
    number = 1
    while (path := out.with_name(f"{out.name}.{word}-{number}")).exists():
        number += 1
    return path


def bundle_folder(category: str, detector: str, precision: str) -> Path:
    """``CATEGORY-DETECTOR.bundle``, with the precision in its name where it is not fp32."""
    parts = [category, detector, "" if precision == "fp32" else precision]
    return Path("-".join(part for part in parts if part) + ".bundle")
