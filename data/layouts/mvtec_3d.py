"""The layout of MVTec 3D-AD, of which the colour images are listed; their clouds lie beside (``data.inputs.scan``).

    CATEGORY/{train,validation}/good/{rgb,xyz}/NNN.{png,tiff}
    CATEGORY/test/{good,DEFECT}/{rgb,xyz,gt}/NNN.{png,tiff,png}
    CATEGORY/calibration/camera_parameters.json

A mask is gt > 0: the values name the class of a defect. The gt of test/good is all zeros. A copy may hold the images
alone; where a folder holds clouds, each image there must have its own.
Data set: Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset", VISAPP 2022.
"""

from collections.abc import Sequence
from pathlib import Path

from ..files import CLOUD_SUFFIXES, is_cloud_name
from ..records import Sample, Split, subfolders, visible
from .layout import (
    Findings,
    Layout,
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
from .names import GOOD_WORDS, is_good_name
from .splits import folders_of, good_folders

_PARTS = frozenset({"rgb", "xyz", "gt"})
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def is_category(folder: Path) -> bool:
    """Whether ``folder`` is one category in this layout."""
    return any(folders_named(good, {"rgb"}) for split in ("train", "test") for good in good_folders(folder, split))


def read(root: Path, findings: Findings) -> list[Sample]:
    """Read one category's folder, an absolute path for which :func:`is_category` holds."""
    samples = []
    for split in _SPLITS:
        for top in folders_of(root, split):
            for entry in visible(top):
                if not entry.is_dir():
                    findings.problem(entry, "a file among folders; ignored")
            for folder in subfolders(top):
                samples.extend(_scans(folder, split, findings))
    known = [top for name in (*_SPLITS, "calibration") for top in folders_of(root, name)]
    name_unknown(root, known, findings)
    return samples


def _scans(folder: Path, split: Split, findings: Findings) -> list[Sample]:
    is_good = is_good_name(folder.name)
    if split != "test" and not is_good:
        findings.problem(folder, f"only good images belong into {split}, in a folder {GOOD_WORDS}; ignored")
        return []
    parts = folders_named(folder, _PARTS)
    for entry in visible(folder):
        if entry not in parts:
            findings.problem(entry, "not one of rgb, xyz, gt; ignored")
    images = [image for rgb in folders_named(folder, {"rgb"}) for image in images_in(rgb, findings)]
    if not images:
        findings.problem(folder / "rgb", "holds no image")
    else:
        _name_clouds(folder, images, findings)
    if split != "test":
        return good_samples(images, split)
    # A good scan needs no mask; whether the one it has marks something is seen when the masks are checked.
    quiet = Findings(findings.root) if is_good else findings
    masks = [mask for gt in folders_named(folder, {"gt"}) for mask in masks_in(gt, quiet)]
    pairs = pair_masks(images, masks, quiet)
    if is_good:
        return good_test_samples(pairs)
    name_doubtful(folder, findings)
    return defective_samples(pairs, folder.name)


def _name_clouds(folder: Path, images: Sequence[Path], findings: Findings) -> None:
    """Name images without a cloud, clouds without an image, and what is neither; nothing where no cloud is there."""
    entries = [entry for xyz in folders_named(folder, {"xyz"}) for entry in visible(xyz)]
    clouds = {entry for entry in entries if is_cloud_name(entry) and entry.is_file()}
    for entry in entries:
        if entry not in clouds:
            findings.problem(entry, f"no {' or '.join(CLOUD_SUFFIXES)} file among clouds; ignored")
    stems = {image.stem for image in images}
    for cloud in sorted(clouds):
        if cloud.stem not in stems:
            findings.problem(cloud, "is a cloud without an image; the scan is left out")
    for image in images:
        if clouds and image.stem not in {cloud.stem for cloud in clouds}:
            findings.problem(image, "has no cloud")


LAYOUT = Layout(
    title="MVTec 3D-AD layout",
    tree="train/good/{rgb,xyz}/*, test/good/{rgb,xyz}/*, test/DEFECT/{rgb,xyz,gt}/*",
    is_category=is_category,
    read=read,
)
