"""What both samples share: a folder that is written whole or not at all, its numbers, and defects that show."""

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import BadInputError, UsageError
from ...core.progress import Progress
from ..decoding.xyz import write_xyz

#: What one image or scan consists of: an array by the name of its file. uint8 becomes a PNG, float32 a cloud.
Files = Mapping[str, NDArray[Any]]
Seen = TypeVar("Seen")

_MIN_SIZE_PX = 64
#: The file that marks a folder as a sample; it lists every file beside it.
MARKER = "lineproof-sample.json"


@contextmanager
def sample_folder(directory: Path | str) -> Iterator[Path]:
    """A folder to write a sample into, which takes its place where the block ends without an error.

    Args:
        directory: becomes the folder of the sample. One written earlier is replaced; any other folder that is not
            empty is left alone.

    Raises:
        BadInputError: ``directory`` holds something that is not a sample.
    """
    _check_replaceable(target := Path(os.path.realpath(directory)))
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        yield scratch
        _put_in_place(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def mark(folder: Path, files: Sequence[str], about: Mapping[str, object]) -> None:
    """Write the marker: what the sample is, and the names of its files relative to ``folder``."""
    text = json.dumps({**about, "files": sorted(files)}, indent=1) + "\n"
    (folder / MARKER).write_text(text, encoding="utf-8")


def check_numbers(counts: Mapping[str, int], *, seed: int, size_px: int) -> None:
    """Raise UsageError unless there is something to train on and every number is in its range.

    Args:
        counts: how many are asked for, by part; that of ``train`` is at least 1, the others 0 or more.
        seed: 0 or more.
        size_px: side of the square images, at least 64.
    """
    if seed < 0 or counts["train"] < 1 or min(counts.values()) < 0 or size_px < _MIN_SIZE_PX:
        asked = ", ".join(f"{name} {value}" for name, value in {"seed": seed, **counts, "size_px": size_px}.items())
        raise UsageError(
            f"{asked} were asked for; expected train from 1, size_px from {_MIN_SIZE_PX}, the others from 0."
        )


def save_all(folder: Path, items: Iterable[Files], *, total: int, progress: Progress) -> list[str]:
    """Write images or scans, one after the other, and return the names of their files.

    Args:
        folder: folder that the names are relative to; missing folders below it are made.
        items: the files of each image or scan.
        total: how many there will be.
        progress: called after each.
    """
    names: list[str] = []
    for done, files in enumerate(items, 1):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.dtype == np.uint8:
                Image.fromarray(content).save(path, compress_level=3)
            else:
                write_xyz(path, content)
            names.append(name)
        progress("drawing the sample", done, total)
    return names


def mask_pixels(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask as its file has it: uint8, 255 where a defect is."""
    return mask.astype(np.uint8) * np.uint8(255)


def drawn_until_it_shows(
    draw: Callable[[int], tuple[Seen, NDArray[np.bool_]]], *, least_px: float
) -> tuple[Seen, NDArray[np.bool_]]:
    """Draw a defect again, elsewhere, until its mask has enough pixels: a dark place or a slope may hide one.

    Args:
        draw: takes the number of the stream of random choices, which begins at 2; returns what is seen, and the mask.
        least_px: least number of pixels of the mask.
    """
    for stream in itertools.count(2):
        seen, mask = draw(stream)
        if np.count_nonzero(mask) >= least_px:
            break
    return seen, mask


def _check_replaceable(target: Path) -> None:
    """Raise BadInputError unless nothing, an empty folder, or an unchanged sample is at ``target``."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInputError(f"{target}: is a file; expected a folder for the sample. Name another place.")
    entries = sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if not p.is_dir())
    if not entries:
        return
    foreign = sorted(set(entries) - _listed_in(target / MARKER))
    if foreign:
        raise BadInputError(
            f"{target}: holds files that are not of a lineproof sample, such as {foreign[0]} ({len(foreign)} in all); "
            "nothing was written. Name an empty or new folder, or move the files away."
        )


def _listed_in(marker: Path) -> set[str]:
    try:
        return {MARKER, *json.loads(marker.read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _put_in_place(scratch: Path, target: Path) -> None:
    # mkdtemp gives rights to the owner only; the sample is to have what any new folder has.
    fresh = scratch / "sample"
    fresh.mkdir()
    for entry in list(scratch.iterdir()):
        if entry != fresh:
            entry.rename(fresh / entry.name)
    if target.exists():
        target.rename(scratch / "replaced")
    fresh.rename(target)
