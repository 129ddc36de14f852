"""Which image files are meant by the files and folders that somebody names: each once, and never our own output."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..core.errors import BadInputError
from ..data.records import is_image, visible

VERDICTS = "verdicts.jsonl"
OVERLAYS = "overlays"
#: Keys by which a line of verdicts.jsonl is known as one of ours, of this version and of those before it.
_OWN_KEYS = frozenset({"file", "verdict", "score", "threshold"})
_LONGEST_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Images:
    """Image files to inspect.

    Attributes:
        files: their paths as they were named, by name within each folder named; each file once.
        notes: what was left out and why, a sentence each.
    """

    files: tuple[str, ...]
    notes: tuple[str, ...]


def find_images(paths: Sequence[Path], *, out: Path | None = None) -> Images:
    """The files given, and every image below the folders given.

    Links are followed, but no file and no folder is entered twice: a circle of links ends, and an image that several
    links lead to counts once, under its own name where that is among them.

    Args:
        paths: image files, whatever they are called, and folders.
        out: folder that will take the results; left out of the search, as is every folder that holds results of
            an earlier run.

    Raises:
        BadInputError: a path that does not exist, a result of an earlier run given as an image, or no image at all.
        OSError: a folder that cannot be read.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise BadInputError(f"No such file or folder: {', '.join(missing)}.")
    walk = _Walk(out)
    files = [file for path in paths for file in walk.files_of(path)]
    if not files:
        named = ", ".join(map(str, paths))
        raise BadInputError(
            " ".join([f"No image below {named}. Expected PNG, JPEG, BMP, TIFF or WebP.", *walk.notes()])
        )
    return Images(tuple(files), walk.notes())


def holds_results(folder: Path) -> bool:
    """Whether a folder holds a verdicts.jsonl whose first line is one of ours."""
    try:
        with (folder / VERDICTS).open("rb") as stream:
            entry = json.loads(stream.readline(_LONGEST_LINE_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(entry, dict) and set(entry) >= _OWN_KEYS


def _is_result(real: Path) -> bool:
    return holds_results(real) or (real.name == OVERLAYS and holds_results(real.parent))


@final
class _Walk:
    """One search: what it took already, and what it left out."""

    def __init__(self, out: Path | None) -> None:
        self._out = os.path.realpath(out) if out else None
        self._taken = set[str]()
        self._twice: list[str] = []
        self._own: list[str] = []

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self._twice:
            lead = "more path or link leads" if len(self._twice) == 1 else "more paths or links lead"
            notes.append(
                f"{len(self._twice)} {lead} to what was taken already, first {self._twice[0]}: each image is judged "
                "once."
            )
        if self._own:
            notes.append(f"Left out, since results of this command lie there: {', '.join(self._own)}.")
        return tuple(notes)

    def files_of(self, path: Path) -> list[str]:
        self._refuse_own(path)
        if not path.is_dir():
            return [str(path)] if self._take(str(path), os.path.realpath(path)) else []
        own, links = list[tuple[str, str]](), list[tuple[str, str]]()
        for folder, items in self._folders(path):
            for item in filter(is_image, items):
                if item.is_symlink():
                    links.append((str(item), os.path.realpath(item)))
                else:
                    own.append((str(item), os.path.join(folder, item.name)))
        found = [name for name, real in (*own, *links) if self._take(name, real)]
        return sorted(found, key=lambda name: Path(name).parts)

    def _folders(self, root: Path) -> Iterator[tuple[str, list[Path]]]:
        """``root`` and the folders below it, each once: its real path and its entries.

        Linked ones come after all that are there under their own name.
        """
        own, links = [root], list[Path]()
        while own or links:
            folder = own.pop() if own else links.pop(0)
            real = os.path.realpath(folder)
            if real == self._out or (folder != root and _is_result(Path(real))):
                self._own.append(str(folder))
            elif self._take(str(folder), real):
                items = visible(folder)
                yield real, items
                for item in filter(Path.is_dir, items):
                    (links if item.is_symlink() else own).append(item)

    def _take(self, name: str, real: str) -> bool:
        if real in self._taken:
            self._twice.append(name)
            return False
        self._taken.add(real)
        return True

    def _refuse_own(self, path: Path) -> None:
        place = path.absolute()
        if path.is_dir() and os.path.realpath(path) == self._out:
            raise BadInputError(
                f"--out {path} is the folder of the images: results would lie among them. Name another folder."
            )
        above = [item.parent for item in (place, place.parent) if item.name == OVERLAYS]
        for folder in [place, *above] if path.is_dir() else above:
            if holds_results(folder):
                raise BadInputError(
                    f"{path} is a result of an earlier `lineproof run` ({folder / VERDICTS}); expected images. "
                    "Name the folder that holds the images."
                )
