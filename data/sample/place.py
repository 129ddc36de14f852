"""The folder of a sample: written whole or not at all, and replaced only where it holds nothing else."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import BadInputError

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


def save_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG: uint8 (S, S, 3) or (S, S); missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=3)


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
