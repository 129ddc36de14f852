"""Search for image files in the files and folders that a caller names: each once, and never lineproof's own output."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..core.errors import BadInputError
from ..core.spec import Reads
from ..core.words import counted
from ..data.files import each_once, is_cloud_name
from ..data.records import is_image, visible

VERDICTS = "verdicts.jsonl"
OVERLAYS = "overlays"
#: Keys that every line of a verdicts.jsonl has, of this version and of those before it.
_OWN_KEYS = frozenset({"file", "verdict", "score", "threshold"})
_LONGEST_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Images:
    """Image files to inspect.

    Attributes:
        files: paths of the files, each once: in the order in which the caller named files and folders, within a
            folder by name.
        notes: one sentence for each kind of thing that was left out, with the reason.
    """

    files: tuple[str, ...]
    notes: tuple[str, ...]


def find_images(paths: Sequence[Path], *, out: Path | None = None) -> Images:
    """Collect the named files, and every image below the named folders.

    Links are followed, but no file and no folder is entered twice: a circle of links ends, and an image that several
    links lead to counts once, under its own name where that is among them.

    Args:
        paths: image files, whatever their names end in, and folders.
        out: folder that will take the results, or None. It is left out of the search, as is every folder that holds
            results of an earlier run.

    Raises:
        BadInputError: A path does not exist, a named file is a result of an earlier run, or there is no image at all.
        OSError: A folder cannot be read.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise BadInputError(f"No such file or folder: {', '.join(missing)}. Name images, or folders of images.")
    walk = _Walk(out)
    files = [file for path in paths for file in walk.files_of(path)]
    if not files:
        named = ", ".join(map(str, paths))
        raise BadInputError(
            " ".join([f"No image below {named}. Expected PNG, JPEG, BMP, TIFF or WebP.", *walk.notes()])
        )
    return Images(tuple(files), walk.notes())


def to_judge(files: tuple[str, ...], reads: Reads) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that are parts to a bundle: no masks of a data set of scans, and of each scan one file.

    Args:
        files: paths of files, as ``find_images`` collects them.
        reads: what the bundle reads of each. To one that reads images the clouds in ``xyz`` beside ``rgb`` are none.

    Returns:
        The files that name an image or a scan each, in their order, and a sentence for each kind of file that was left
        out.

    Raises:
        BadInputError: All of them were left out.
    """
    notes = []
    kept = tuple(file for file in files if not _is_mask(Path(file)))
    if len(kept) < len(files):
        masks = counted(
            len(files) - len(kept),
            "mask in a folder gt beside rgb or xyz is",
            "masks in folders gt beside rgb or xyz are",
        )
        notes.append(f"{masks} left out.")
    if reads == "image":
        once = tuple(file for file in kept if not _is_cloud_beside_images(Path(file)))
        if len(once) < len(kept):
            clouds = counted(
                len(kept) - len(once), "cloud in a folder xyz beside rgb is", "clouds in folders xyz beside rgb are"
            )
            notes.append(f"{clouds} left out: the bundle reads images.")
    else:
        once = tuple(map(str, each_once(map(Path, kept), reads)))
        if len(once) < len(kept):
            doubled = counted(len(kept) - len(once), "file belongs", "files belong")
            notes.append(f"{doubled} to scans that others name: each scan is judged once.")
    if not once:
        what = "images in rgb" if reads == "image" else "clouds in xyz, or the images beside them"
        raise BadInputError(f"Nothing is left to judge. {' '.join(notes)} Name {what}, or the folder above.")
    return once, tuple(notes)


def _is_mask(file: Path) -> bool:
    above = file.parent.parent
    return file.parent.name == "gt" and ((above / "rgb").is_dir() or (above / "xyz").is_dir())


def _is_cloud_beside_images(file: Path) -> bool:
    return file.parent.name == "xyz" and is_cloud_name(file) and (file.parent.parent / "rgb").is_dir()


def holds_results(folder: Path) -> bool:
    """Whether a folder holds a verdicts.jsonl whose first line was written by lineproof."""
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
    """One search: the files and folders that it has visited, and those that it left out."""

    def __init__(self, out: Path | None) -> None:
        self._out = os.path.realpath(out) if out else None
        self._visited = set[str]()
        self._repeated: list[str] = []
        self._results: list[str] = []

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self._repeated:
            lead = "more path or link leads" if len(self._repeated) == 1 else "more paths or links lead"
            notes.append(
                f"{len(self._repeated)} {lead} to files or folders that were visited before, first "
                f"{self._repeated[0]}: each image is judged once."
            )
        if self._results:
            notes.append(f"Left out, since results of this command lie there: {', '.join(self._results)}.")
        return tuple(notes)

    def files_of(self, path: Path) -> list[str]:
        self._refuse_results(path)
        if not path.is_dir():
            return [str(path)] if self._visit(str(path), os.path.realpath(path)) else []
        own, links = list[tuple[str, str]](), list[tuple[str, str]]()
        for folder, items in self._folders(path):
            for item in filter(is_image, items):
                if item.is_symlink():
                    links.append((str(item), os.path.realpath(item)))
                else:
                    own.append((str(item), os.path.join(folder, item.name)))
        files = [name for name, real in (*own, *links) if self._visit(name, real)]
        return sorted(files, key=lambda name: Path(name).parts)

    def _folders(self, root: Path) -> Iterator[tuple[str, list[Path]]]:
        """Yield the real path and the entries of ``root`` and of every folder below it, each once.

        Folders that only links lead to come last.
        """
        own, links = [root], list[Path]()
        while own or links:
            folder = own.pop() if own else links.pop(0)
            real = os.path.realpath(folder)
            if real == self._out or (folder != root and _is_result(Path(real))):
                self._results.append(str(folder))
            elif self._visit(str(folder), real):
                items = visible(folder)
                yield real, items
                for item in filter(Path.is_dir, items):
                    (links if item.is_symlink() else own).append(item)

    def _visit(self, name: str, real: str) -> bool:
        if real in self._visited:
            self._repeated.append(name)
            return False
        self._visited.add(real)
        return True

    def _refuse_results(self, path: Path) -> None:
        place = path.absolute()
        if path.is_dir() and os.path.realpath(path) == self._out:
            raise BadInputError(
                f"out (--out) is {path}, the folder of the images: results would lie among them. Name another folder."
            )
        above = [item.parent for item in (place, place.parent) if item.name == OVERLAYS]
        for folder in [place, *above] if path.is_dir() else above:
            if holds_results(folder):
                raise BadInputError(
                    f"{path} is a result of an earlier `lineproof run` ({folder / VERDICTS}); expected images. "
                    "Name the folder that holds the images."
                )
