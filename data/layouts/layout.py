"""What the layouts share: what a layout is, and how folders are listed and images paired with their masks."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..records import Problem, Sample, Split, is_image, relative, subfolders, visible
from .names import GOOD_WORDS, sounds_good, spelled

#: One in this many good images is a test image, where a layout has no splits.
TEST_EVERY = 5

#: What is wrong with a folder of masks of good images.
MASKS_OF_GOOD = "masks of good images, which have nothing to mark; the images count as good"
#: Among folders of defective parts.
MASKS_AMONG_PARTS = "is called like a folder of masks, which are no images of parts; ignored"

_MASK = "_mask"


@final
class Findings:
    """Collects problems, and remarks about what was assumed, while the folders under one root are read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.remarks: list[str] = []

    def problem(self, where: Path, what: str, *, kind: str = "") -> None:
        """Add a problem: the path, the rest of the sentence, and its kind where the sentence is particular."""
        self.problems.append(Problem(self.name(where), what, kind))

    def remark(self, sentence: str) -> None:
        """Add a whole sentence about what was assumed."""
        self.remarks.append(sentence)

    def name(self, path: Path) -> str:
        """The path relative to the root."""
        return relative(path, self.root)


@final
@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the folders of one category are arranged.

    Attributes:
        title: name of the layout in words, as reports say it.
        tree: where the images and masks lie, in one line, for the error that no layout fits.
        is_category: whether a folder is one category in this layout.
        read: reads such a folder, an absolute path, into samples in any order, and adds what is odd to the findings.
    """

    title: str
    tree: str
    is_category: Callable[[Path], bool]
    read: Callable[[Path, Findings], Iterable[Sample]]


@final
@dataclass(frozen=True)
class Mask:
    """A candidate for one image's mask.

    Attributes:
        where: the file, or the folder of files.
        paths: the files whose union is the mask.
    """

    where: Path
    paths: tuple[Path, ...]


def folders_named(folder: Path, names: Collection[str]) -> list[Path]:
    """Folders directly under ``folder`` that are called one of ``names``, which are spelled as ``spelled`` does."""
    return [entry for entry in subfolders(folder) if spelled(entry.name) in names]


def images_in(folder: Path, findings: Findings, *, skip: Collection[Path] = ()) -> list[Path]:
    """Images directly under ``folder``, by name; everything else there, save ``skip``, becomes a problem."""
    images = []
    for entry in visible(folder):
        if is_image(entry):
            images.append(entry)
        elif entry not in skip:
            findings.problem(entry, f"{_what_it_is(entry)} among images; ignored")
    stems = {image.stem for image in images}
    masks = [p for p in images if p.stem.endswith(_MASK) and p.stem.removesuffix(_MASK) in stems]
    for mask in masks:
        findings.problem(mask, "is called like the mask of an image beside it, and counts as none; ignored")
    images = [image for image in images if image not in masks]
    _name_twins(images, findings)
    return images


def _what_it_is(entry: Path) -> str:
    if entry.is_dir():
        return "a folder"
    return "a link that leads nowhere" if entry.is_symlink() and not entry.exists() else "no image file"


def _name_twins(files: Iterable[Path], findings: Findings) -> None:
    by_stem = dict[str, Path]()
    for file in files:
        if (twin := by_stem.setdefault(file.stem, file)) is not file:
            kind = "has the same name as another but for the suffix"
            findings.problem(file, f"has the same name as {twin.name} but for the suffix", kind=kind)


def masks_in(folder: Path, findings: Findings, *, skip: Collection[Path] = ()) -> list[Mask]:
    """Masks directly under ``folder``: image files, then folders of image files; the rest becomes a problem."""
    masks = [Mask(file, (file,)) for file in _mask_files(folder, findings)]
    for place in subfolders(folder):
        if place in skip:
            continue
        if files := _mask_files(place, findings):
            masks.append(Mask(place, tuple(files)))
        else:
            findings.problem(place, "is a folder of masks with no mask in it")
    return masks


def _mask_files(folder: Path, findings: Findings) -> list[Path]:
    for entry in visible(folder):
        if not is_image(entry) and not entry.is_dir():
            findings.problem(entry, f"{_what_it_is(entry)} among masks; ignored")
    return [entry for entry in visible(folder) if is_image(entry)]


def pair_masks(images: Sequence[Path], masks: Iterable[Mask], findings: Findings) -> dict[Path, tuple[Path, ...]]:
    """Find each image's masks: ``NAME_mask.*`` before ``NAME.*`` before the folder ``NAME/``.

    Names are compared without their suffix and in one Unicode form. Images without a mask, masks without an image
    and masks that two images could have are added to the problems.
    """
    by_name = dict[str, Mask]()
    left = list[Mask]()
    for mask in masks:
        name = mask.where.name if mask.where.is_dir() else mask.where.stem
        if by_name.setdefault(_composed(name), mask) is not mask:
            left.append(mask)
    claims = dict[Mask, list[Path]]()
    for image in images:
        stem = _composed(image.stem)
        claimed = by_name.get(stem + _MASK) or by_name.get(stem)
        if claimed is not None:
            claims.setdefault(claimed, []).append(image)
    owned = {claimants[0]: mask.paths for mask, claimants in claims.items() if len(claimants) == 1}
    for image in images:
        if image not in owned:
            findings.problem(image, "has no mask")
    for mask, claimants in claims.items():
        if len(claimants) > 1:
            names = " or ".join(map(findings.name, claimants))
            findings.problem(mask.where, f"may belong to {names}; not used", kind="may belong to several images")
    for mask in [*left, *(mask for mask in by_name.values() if mask not in claims)]:
        what = "is a folder of masks" if mask.where.is_dir() else "is a mask"
        findings.problem(mask.where, f"{what} without an image")
    return {image: owned.get(image, ()) for image in images}


def _composed(name: str) -> str:
    # Copies from a Mac may hold "u" + "¨" in one name and "ü" in the other.
    return unicodedata.normalize("NFC", name)


def good_samples(images: Iterable[Path], split: Split) -> list[Sample]:
    """Good images of one split."""
    return [Sample(path=image, label=0, defect="good", split=split) for image in images]


def held_out_samples(images: Sequence[Path]) -> list[Sample]:
    """Good images of a layout without splits: every ``TEST_EVERY``-th in their order tests, the rest trains."""
    return [
        sample
        for position, image in enumerate(images, start=1)
        for sample in good_samples([image], "test" if position % TEST_EVERY == 0 else "train")
    ]


def defective_samples(masks_of: dict[Path, tuple[Path, ...]], defect: str) -> list[Sample]:
    """Defective test images of one type with their masks."""
    return [Sample(path=p, label=1, defect=defect, mask_paths=m, split="test") for p, m in masks_of.items()]


def good_test_samples(masks_of: dict[Path, tuple[Path, ...]]) -> list[Sample]:
    """Good test images with the masks that came with them; whether one marks something is seen when it is read."""
    return [Sample(path=p, label=0, defect="good", mask_paths=m, split="test") for p, m in masks_of.items()]


def name_doubtful(folder: Path, findings: Findings) -> None:
    """Say so where a folder that counts as a type of defect is called as if it held good parts."""
    if sounds_good(folder.name):
        findings.problem(
            folder,
            f"counts as a type of defect, though its name may mean good parts; those are called {GOOD_WORDS}",
        )


def name_unknown(root: Path, known: Collection[Path], findings: Findings) -> None:
    """Name the folders and images directly under ``root`` that the layout does not know."""
    for entry in visible(root):
        if entry not in known and (entry.is_dir() or is_image(entry)):
            findings.problem(entry, "not in a folder that the layout knows; ignored")
