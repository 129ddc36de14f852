"""Images and scans that lie in a data set twice: in training and in test, or as good and as defective."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ..core.spec import Reads
from .files import files_read
from .records import Dataset, Problem, Sample, Split, relative

_EXCERPT_BYTES = 1024
_TWINS: Mapping[Split, str] = {"train": "training", "validation": "validation", "test": "good test"}


def check_leaks(dataset: Dataset, reads: Reads = "image") -> Dataset:
    """Find test images that are byte for byte training or validation images, or have two labels.

    Few files are read in full: those that agree with another in size and excerpts. The same image saved anew has
    other bytes and is not recognised.

    Args:
        dataset: the data set.
        reads: what the detector reads of each sample: scans are the same where that is, whatever lies beside it.

    Returns:
        The data set with a problem for each such test image; nothing is taken away.
    """
    problems = []
    for same in _identical(dataset.samples, reads):
        fitted = [sample for sample in same if sample.split != "test"]
        tested = [sample for sample in same if sample.split == "test"]
        for sample in tested if fitted else ():
            problems.append(_problem(sample, fitted[0], dataset.root, reads))
        labels = {sample.label: sample for sample in reversed(tested)}
        if len(labels) == 2:
            problems.append(_problem(labels[1], labels[0], dataset.root, reads))
    ranked = sorted(problems, key=lambda problem: (problem.kind, problem.where))
    return replace(dataset, noticed=(*dataset.noticed, *ranked))


def _problem(sample: Sample, twin: Sample, root: Path, reads: Reads) -> Problem:
    kind = f"is byte-identical to a {_TWINS[twin.split]} {'image' if reads == 'image' else 'scan'}"
    return Problem(relative(sample.path, root), f"{kind}, {relative(twin.path, root)}", kind)


def _identical(samples: Iterable[Sample], reads: Reads) -> list[list[Sample]]:
    """Groups of samples with the same bytes, a test image among them."""
    groups = [list(samples)]
    # Ever dearer keys: bitmaps of one camera all have one size, and few of them the same bytes in a few places.
    for key in (_size, _excerpt, _digest):
        groups = [part for group in groups for part in _parted(group, key, reads)]
    return groups


def _parted(samples: list[Sample], key: Callable[[Path], object], reads: Reads) -> list[list[Sample]]:
    """The samples by their key, without groups of one or without a test image."""
    by_key = dict[object, list[Sample]]()
    for sample in samples:
        try:
            by_key.setdefault(tuple(map(key, files_read(sample.path, reads))), []).append(sample)
        except OSError:
            # Whoever reads an image that cannot be read reports it.
            continue
    groups = by_key.values()
    return [group for group in groups if len(group) > 1 and any(sample.split == "test" for sample in group)]


def _size(path: Path) -> int:
    return path.stat().st_size


def _excerpt(path: Path) -> bytes:
    """Bytes from five places of the file."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return b"".join(_bytes_at(stream, size * part // 5) for part in range(5))


def _bytes_at(stream: BinaryIO, offset: int) -> bytes:
    stream.seek(offset)
    return stream.read(_EXCERPT_BYTES)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
