"""Folders of splits, as MVTec AD has them and many sets since: train/GOOD, test/GOOD, test/DEFECT, ground_truth/DEFECT.

GOOD is good, ok, okay or normal, in any case; so are the other names compared without regard to case. Several folders
that answer to one name are all read.
"""

from pathlib import Path

from ..records import Sample, Split, is_image, subfolders, visible
from .layout import (
    MASKS_AMONG_PARTS,
    MASKS_OF_GOOD,
    Findings,
    defective_samples,
    folders_named,
    good_samples,
    good_test_samples,
    images_in,
    masks_in,
    name_doubtful,
    name_unknown,
    pair_masks,
)
from .names import GOOD_NAMES, GOOD_WORDS, is_good_name, is_mask_name, spelled


def folders_of(root: Path, name: str) -> list[Path]:
    """The folders of one split, or those of masks (``"ground_truth"``)."""
    return folders_named(root, {name, name.replace("_", "")})


def good_folders(root: Path, split: str) -> list[Path]:
    """The folders of good images of one split."""
    return [folder for top in folders_of(root, split) for folder in folders_named(top, GOOD_NAMES)]


def is_split_tree(root: Path) -> bool:
    """Whether ``root`` has good images in a split, images directly in train, or masks beside a split."""
    splits = [*folders_of(root, "train"), *folders_of(root, "test")]
    goods = [*good_folders(root, "train"), *good_folders(root, "test")]
    # A folder rgb in it is MVTec 3D-AD's.
    if any(not folders_named(good, {"rgb"}) for good in goods):
        return True
    if splits and folders_of(root, "ground_truth"):
        return True
    return any(is_image(entry) for top in folders_of(root, "train") for entry in visible(top))


def read_splits(root: Path, findings: Findings) -> list[Sample]:
    """Read all splits; masks may be files or folders of files."""
    known = [folder for name in ("train", "validation", "test", "ground_truth") for folder in folders_of(root, name)]
    samples = [*_good(root, "train", findings), *_good(root, "validation", findings), *_test(root, findings)]
    name_unknown(root, known, findings)
    return samples


def _good(root: Path, split: Split, findings: Findings) -> list[Sample]:
    samples = []
    for top in folders_of(root, split):
        goods = folders_named(top, GOOD_NAMES)
        for folder in goods:
            samples.extend(good_samples(_images(folder, findings), split))
        others = [entry for entry in visible(top) if entry not in goods]
        if not goods and any(is_image(entry) for entry in others):
            name = findings.name(top)
            findings.remark(f"The images directly in {name} count as good: it has no folder {GOOD_WORDS}.")
            others = subfolders(top)
            samples.extend(good_samples(images_in(top, findings, skip=others), split))
        for entry in others:
            findings.problem(entry, f"only good images belong into {split}, in a folder {GOOD_WORDS}; ignored")
    return samples


def _images(folder: Path, findings: Findings) -> list[Path]:
    images = images_in(folder, findings)
    if not images:
        findings.problem(folder, "holds no image")
    return images


def _test(root: Path, findings: Findings) -> list[Sample]:
    mask_tops = folders_of(root, "ground_truth")
    tops = folders_of(root, "test")
    samples, used = [], set[Path]()
    for folder in (folder for top in tops for folder in subfolders(top)):
        if is_mask_name(folder.name):
            findings.problem(folder, MASKS_AMONG_PARTS)
            continue
        mask_folders = _same_name(folder, mask_tops)
        used.update(mask_folders)
        if is_good_name(folder.name):
            samples.extend(_good_test(folder, mask_folders, findings))
            continue
        name_doubtful(folder, findings)
        masks = [mask for place in mask_folders for mask in masks_in(place, findings)]
        images = _images(folder, findings)
        pairs: dict[Path, tuple[Path, ...]] = dict.fromkeys(images, ())
        samples.extend(defective_samples(pair_masks(images, masks, findings) if mask_tops else pairs, folder.name))
    _name_left(root, [*tops, *mask_tops], used, findings)
    if not mask_tops and any(sample.label for sample in samples):
        findings.problem(root / "ground_truth", "is not there; no defective image has a mask")
    return samples


def _same_name(folder: Path, tops: list[Path]) -> list[Path]:
    """Folders of masks called as a folder of images: exactly, or else but for case and the like."""
    inside = [place for top in tops for place in subfolders(top)]
    exact = [place for place in inside if place.name == folder.name]
    return exact or [place for place in inside if spelled(place.name) == spelled(folder.name)]


def _good_test(folder: Path, mask_folders: list[Path], findings: Findings) -> list[Sample]:
    images = _images(folder, findings)
    for place in mask_folders:
        findings.problem(place, MASKS_OF_GOOD)
    masks = [mask for place in mask_folders for mask in masks_in(place, Findings(findings.root))]
    return good_test_samples(pair_masks(images, masks, Findings(findings.root)))


def _name_left(root: Path, tops: list[Path], used: set[Path], findings: Findings) -> None:
    for top in tops:
        for entry in visible(top):
            if not entry.is_dir():
                findings.problem(entry, "a file among folders; ignored")
    for top in folders_of(root, "ground_truth"):
        for place in subfolders(top):
            if place not in used:
                findings.problem(place, "masks without a folder of that name in test; ignored")
