"""Plain folders, for images that came from a line and not from a benchmark.

    FOLDER/good/*.png           or ok, okay, normal
    FOLDER/bad/*.png            or bad/DEFECT/*.png; or ng, ko, defect, anomaly, ... (``BAD_NAMES``); may be absent
    FOLDER/masks/NAME.png       or NAME_mask.png, or NAME/*.png, for bad/NAME.png; may be absent
    FOLDER/masks/DEFECT/...     the same for bad/DEFECT/NAME.png

Names are compared without regard to case. There is no split in these folders, so one is made: of the good images in
the order of their names every fifth (the 5th, the 10th, ...) is a test image, the others are training images; all
bad ones are test images.
"""

from pathlib import Path

from ...core.words import counted
from ..records import Sample, is_image, subfolders, visible
from .layout import (
    MASKS_AMONG_PARTS,
    MASKS_OF_GOOD,
    TEST_EVERY,
    Findings,
    Layout,
    defective_samples,
    folders_named,
    held_out_samples,
    images_in,
    masks_in,
    name_doubtful,
    pair_masks,
)
from .names import BAD_NAMES, GOOD_NAMES, MASK_NAMES, is_good_name, is_mask_name, spelled


def is_category(folder: Path) -> bool:
    """Whether ``folder`` has a folder of good parts with images in it, directly."""
    return any(is_image(entry) for good in folders_named(folder, GOOD_NAMES) for entry in visible(good))


def read(root: Path, findings: Findings) -> list[Sample]:
    """Read the folders of good parts, bad parts and masks under ``root``, for which :func:`is_category` holds."""
    goods, bads = folders_named(root, GOOD_NAMES), folders_named(root, BAD_NAMES)
    mask_tops = folders_named(root, MASK_NAMES)
    good = [image for folder in goods for image in images_in(folder, findings)]
    samples = held_out_samples(good)
    if len(good) < TEST_EVERY:
        what = f"holds {counted(len(good), 'image')}; from {TEST_EVERY} on, every {TEST_EVERY}th tests"
        findings.problem(goods[0], what)
    samples.extend(_bad(bads, mask_tops, findings))
    for entry in visible(root):
        if entry not in [*goods, *bads, *mask_tops] and (entry.is_dir() or is_image(entry)):
            findings.problem(entry, "is called neither good nor bad nor masks; ignored")
    return samples


def _bad(bads: list[Path], mask_tops: list[Path], findings: Findings) -> list[Sample]:
    samples, used, direct = list[Sample](), set[Path](), list[tuple[Path, list[Path], list[Path]]]()
    for bad in bads:
        own = _called(bad.name, mask_tops)
        for folder in subfolders(bad):
            if is_good_name(folder.name):
                findings.problem(folder, "a folder of good parts among bad ones; ignored")
                continue
            if is_mask_name(folder.name):
                findings.problem(folder, MASKS_AMONG_PARTS)
                continue
            name_doubtful(folder, findings)
            places = [*_called(folder.name, mask_tops), *_called(folder.name, own)]
            used.update(places)
            images = images_in(folder, findings)
            if not images:
                findings.problem(folder, "holds no image")
            samples.extend(_paired({folder: images}, places, mask_tops, used, findings))
        direct.append((bad, images_in(bad, findings, skip=subfolders(bad)), own))
        used.update(own)
    for bad, images, own in direct:
        if own:
            samples.extend(_paired({bad: images}, own, mask_tops, used, findings))
    # Several folders of bad parts share the masks that lie in no folder, so that none is given to two images.
    shared = {bad: images for bad, images, own in direct if not own}
    samples.extend(_paired(shared, mask_tops, mask_tops, used | _of_good(mask_tops, findings), findings))
    return samples


def _paired(
    images_of: dict[Path, list[Path]], places: list[Path], mask_tops: list[Path], used: set[Path], findings: Findings
) -> list[Sample]:
    """Samples of the images of some folders, with the masks in ``places``; ``used`` folders hold others' masks."""
    images = [image for inside in images_of.values() for image in inside]
    pairs: dict[Path, tuple[Path, ...]] = dict.fromkeys(images, ())
    if mask_tops:
        masks = [mask for place in places for mask in masks_in(place, findings, skip=used)]
        pairs = pair_masks(images, masks, findings)
    return [
        sample
        for folder, inside in images_of.items()
        for sample in defective_samples({image: pairs[image] for image in inside}, folder.name)
    ]


def _called(name: str, tops: list[Path]) -> list[Path]:
    return [place for top in tops for place in folders_named(top, {spelled(name)})]


def _of_good(mask_tops: list[Path], findings: Findings) -> set[Path]:
    """Folders of masks of good images, each named as a problem."""
    places = {place for top in mask_tops for place in folders_named(top, GOOD_NAMES)}
    for place in sorted(places):
        findings.problem(place, MASKS_OF_GOOD)
    return places


LAYOUT = Layout(
    title="plain folder",
    tree="good/*.png, bad/*.png and, where there are any, masks/*.png",
    is_category=is_category,
    read=read,
)
