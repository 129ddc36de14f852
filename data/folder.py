"""Plain folders, for pictures that came from a line and not from a benchmark.

    FOLDER/good/*.png
    FOLDER/bad/*.png            or bad/DEFECT/*.png; may be absent
    FOLDER/masks/NAME.png       or NAME_mask.png, for bad/NAME.png; masks/DEFECT/NAME.png for bad/DEFECT/NAME.png

There is no split in these folders, so one is made: of the good pictures in the order of their names every fifth
(the 5th, the 10th, ...) is a test picture, the others are training pictures; all bad ones are test pictures.
"""

from pathlib import Path

from .records import Dataset, Sample, images_in, is_image, ordered, pair_masks, relative, subfolders, visible

#: Every how many good pictures one is kept for testing.
TEST_EVERY = 5

_FOLDERS = frozenset({"good", "bad", "masks"})


def is_category(folder: Path) -> bool:
    """Whether ``folder`` has a folder ``good`` with pictures in it, directly."""
    return any(is_image(entry) for entry in visible(folder / "good"))


def read(root: Path) -> Dataset:
    """Read the folders good, bad and masks under ``root``.

    Args:
        root: an absolute path for which :func:`is_category` holds.

    Returns:
        The data set, with everything odd named in ``problems``.
    """
    problems: list[str] = []
    good = images_in(root / "good", root=root, problems=problems)
    samples = [_good(picture, test=position % TEST_EVERY == 0) for position, picture in enumerate(good, start=1)]
    if len(good) < TEST_EVERY:
        problems.append(f"good: holds {len(good)} pictures; from {TEST_EVERY} on, every {TEST_EVERY}th tests.")
    samples.extend(_bad(root, problems))
    problems.extend(
        f"{relative(entry, root)}: not one of good, bad, masks; ignored."
        for entry in visible(root)
        if entry.name not in _FOLDERS and (entry.is_dir() or is_image(entry))
    )
    return Dataset(
        name=root.name,
        category=root.name,
        layout="folder",
        root=root,
        samples=ordered(samples, root),
        problems=tuple(problems),
    )


def _good(picture: Path, *, test: bool) -> Sample:
    return Sample(path=picture, label=0, defect="good", mask_path=None, split="test" if test else "train")


def _bad(root: Path, problems: list[str]) -> list[Sample]:
    defects = [folder.name for folder in subfolders(root / "bad")]
    samples = _of_type(root, "", defects, problems)
    for defect in defects:
        samples.extend(_of_type(root, defect, [], problems))
    if not samples:
        problems.append("bad: holds no picture; how well defects are found cannot be measured.")
    problems.extend(
        f"{relative(folder, root)}: masks without a folder bad/{folder.name}; ignored."
        for folder in subfolders(root / "masks")
        if folder.name not in defects
    )
    return samples


def _of_type(root: Path, defect: str, nested: list[str], problems: list[str]) -> list[Sample]:
    pictures = images_in(root / "bad" / defect, root=root, problems=problems, skip=nested)
    mask_folders = [folder.name for folder in subfolders(root / "masks")] if not defect else []
    masks = images_in(root / "masks" / defect, root=root, problems=problems, skip=mask_folders)
    if not (root / "masks").is_dir():
        return [_bad_sample(picture, defect, None) for picture in pictures]
    pairs = pair_masks(pictures, masks, root=root, problems=problems)
    return [_bad_sample(picture, defect, mask) for picture, mask in pairs.items()]


def _bad_sample(picture: Path, defect: str, mask: Path | None) -> Sample:
    return Sample(path=picture, label=1, defect=defect or "bad", mask_path=mask, split="test")
