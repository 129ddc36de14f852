"""The layout of MVTec AD, which many data sets share.

    CATEGORY/train/good/NNN.png
    CATEGORY/validation/good/NNN.png                 optional, not in MVTec AD itself
    CATEGORY/test/{good,DEFECT}/NNN.png
    CATEGORY/ground_truth/DEFECT/NNN_mask.png        or NNN.png

Data set: Bergmann, Fauser, Sattlegger and Steger, "MVTec AD", CVPR 2019.
"""

from pathlib import Path

from .records import Dataset, Sample, Split, images_in, is_image, ordered, pair_masks, relative, subfolders, visible

_FOLDERS = frozenset({"train", "validation", "test", "ground_truth"})


def is_category(folder: Path) -> bool:
    """Whether ``folder`` is one category in this layout."""
    tops = (folder / "train" / "good", folder / "test" / "good", folder / "ground_truth")
    return any(top.is_dir() and not (top / "rgb").is_dir() for top in tops)


def read(root: Path) -> Dataset:
    """Read one category's folder.

    Args:
        root: an absolute path for which :func:`is_category` holds.

    Returns:
        The data set, with everything odd named in ``problems``.
    """
    problems: list[str] = []
    samples = [*_good(root, "train", problems), *_good(root, "validation", problems), *_test(root, problems)]
    problems.extend(
        f"{relative(entry, root)}: not in a folder that the layout knows; ignored."
        for entry in visible(root)
        if entry.name not in _FOLDERS and (entry.is_dir() or is_image(entry))
    )
    return Dataset(
        name="MVTec AD layout",
        category=root.name,
        layout="mvtec-ad",
        root=root,
        samples=ordered(samples, root),
        problems=tuple(problems),
    )


def _good(root: Path, split: Split, problems: list[str]) -> list[Sample]:
    folder = root / split
    problems.extend(
        f"{relative(entry, root)}: only good pictures belong into {split}; ignored."
        for entry in visible(folder)
        if entry.name != "good"
    )
    pictures = images_in(folder / "good", root=root, problems=problems)
    if not pictures and split == "train":
        problems.append("train/good: holds no picture.")
    return [Sample(path=p, label=0, defect="good", mask_path=None, split=split) for p in pictures]


def _test(root: Path, problems: list[str]) -> list[Sample]:
    samples = [
        Sample(path=picture, label=0, defect="good", mask_path=None, split="test")
        for picture in images_in(root / "test" / "good", root=root, problems=problems)
    ]
    if not samples:
        problems.append("test/good: holds no picture.")
    defects = {entry.name for entry in subfolders(root / "test")} - {"good"}
    for defect in sorted(defects):
        samples.extend(_defective(root, defect, problems))
    if not defects:
        problems.append("test: holds no folder of defective pictures.")
    problems.extend(
        f"{relative(entry, root)}: a file among folders; ignored."
        for top in (root / "test", root / "ground_truth")
        for entry in visible(top)
        if not entry.is_dir()
    )
    problems.extend(
        f"{relative(folder, root)}: masks without a folder test/{folder.name} of defective pictures; ignored."
        for folder in subfolders(root / "ground_truth")
        if folder.name not in defects
    )
    return samples


def _defective(root: Path, defect: str, problems: list[str]) -> list[Sample]:
    pictures = images_in(root / "test" / defect, root=root, problems=problems)
    if not pictures:
        problems.append(f"test/{defect}: holds no picture.")
    masks = images_in(root / "ground_truth" / defect, root=root, problems=problems)
    pairs = pair_masks(pictures, masks, root=root, problems=problems)
    return [Sample(path=p, label=1, defect=defect, mask_path=mask, split="test") for p, mask in pairs.items()]
