"""What a data set is: samples with a label, a split and a mask, and the problems seen while reading the folders."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import BadInputError
from .decode import IMAGE_SUFFIXES

Split = Literal["train", "validation", "test"]

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture of a data set.

    Attributes:
        path: the image file.
        label: 0 good, 1 defective.
        defect: ``"good"`` or the type of defect, as the data set's folder is called.
        mask_path: the ground truth mask; None where the picture is good, or defective without a mask.
        split: ``"train"``, ``"validation"`` or ``"test"``. Training and validation pictures are good.
    """

    path: Path
    label: Literal[0, 1]
    defect: str
    mask_path: Path | None
    split: Split


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One category: pictures of one kind of part or surface.

    Attributes:
        name: what the set is called in reports: the layout's name, or the folder's for plain folders.
        category: the kind of part.
        layout: ``"mvtec-ad"``, ``"mvtec-3d-ad"`` or ``"folder"``.
        root: the category's folder, absolute.
        samples: all pictures, ordered by split (train, validation, test) and then by relative path.
        problems: what is missing, left over or unknown under ``root``, one sentence each, naming the file.
    """

    name: str
    category: str
    layout: Literal["mvtec-ad", "mvtec-3d-ad", "folder"]
    root: Path
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]

    @property
    def train(self) -> tuple[Sample, ...]:
        """The good pictures a detector learns from."""
        return self._of("train")

    @property
    def validation(self) -> tuple[Sample, ...]:
        """Good pictures held out from training, for thresholds; empty where the layout has none."""
        return self._of("validation")

    @property
    def test(self) -> tuple[Sample, ...]:
        """Good and defective pictures that nothing was fitted to."""
        return self._of("test")

    def _of(self, split: Split) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.split == split)

    def fingerprint(self) -> str:
        """Identify the training split: the same names and bytes give the same fingerprint on every machine.

        Returns:
            sha256 in hexadecimal over, for each training picture in order, its path relative to ``root`` (UTF-8, ``/``
            between folders) and its bytes, each preceded by its length as 8 bytes, big endian.

        Raises:
            BadInputError: there is no training picture.
        """
        if not self.train:
            raise BadInputError(
                f"{self.root}: there is no training picture to take a fingerprint of; expected at least one."
            )
        digest = hashlib.sha256()
        for sample in self.train:
            name = relative(sample.path, self.root).encode("utf-8", "surrogateescape")
            for part in (name, sample.path.read_bytes()):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return digest.hexdigest()


def visible(folder: Path) -> list[Path]:
    """Entries of ``folder`` by name, without what file managers leave behind; empty where it is no folder."""
    if not folder.is_dir():
        return []
    entries = (e for e in folder.iterdir() if not e.name.startswith(".") and e.name.lower() not in _LITTER)
    return sorted(entries, key=lambda entry: entry.name)


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly under ``folder``, by name."""
    return [entry for entry in visible(folder) if entry.is_dir()]


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def images_in(folder: Path, *, root: Path, problems: list[str], skip: Iterable[str] = ()) -> list[Path]:
    """Image files directly under ``folder``, by name; everything else there, save ``skip``, becomes a problem."""
    found, by_stem = [], dict[str, Path]()
    for entry in visible(folder):
        if is_image(entry):
            found.append(entry)
            if (twin := by_stem.setdefault(entry.stem, entry)) is not entry:
                problems.append(f"{relative(entry, root)}: has the same name as {twin.name} but for the suffix.")
        elif entry.name not in skip:
            kind = "a folder" if entry.is_dir() else "no image file"
            problems.append(f"{relative(entry, root)}: {kind} among pictures; ignored.")
    return found


def relative(path: Path, root: Path) -> str:
    """``path`` as seen from ``root``, with ``/`` between folders."""
    return path.relative_to(root).as_posix()


def ordered(samples: Iterable[Sample], root: Path) -> tuple[Sample, ...]:
    """Samples by split, then by relative path."""
    rank = {"train": 0, "validation": 1, "test": 2}
    return tuple(sorted(samples, key=lambda sample: (rank[sample.split], relative(sample.path, root))))


def pair_masks(
    pictures: Iterable[Path], masks: Iterable[Path], *, root: Path, problems: list[str]
) -> dict[Path, Path | None]:
    """Find each picture's mask: ``NAME_mask.*`` before ``NAME.*``, by the name without its suffix.

    Pictures without a mask and masks without a picture are added to ``problems``.
    """
    by_stem = {mask.stem: mask for mask in masks}
    pairs: dict[Path, Path | None] = {}
    used = set[Path]()
    for picture in pictures:
        mask = by_stem.get(f"{picture.stem}_mask", by_stem.get(picture.stem))
        pairs[picture] = mask
        if mask is None:
            problems.append(f"{relative(picture, root)}: has no mask.")
        else:
            used.add(mask)
    problems.extend(f"{relative(m, root)}: is a mask without a picture." for m in by_stem.values() if m not in used)
    return pairs
