"""The layout of MVTec 3D-AD, of which the colour pictures are read; xyz is read on request (``data/xyz.py``).

    CATEGORY/{train,validation}/good/{rgb,xyz}/NNN.{png,tiff}
    CATEGORY/test/{good,DEFECT}/{rgb,xyz,gt}/NNN.{png,tiff,png}

A mask is gt > 0: the values name the class of a defect. The gt of test/good is all zeros and not needed.
Data set: Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset", VISAPP 2022.
"""

from pathlib import Path

from .records import Dataset, Sample, Split, images_in, is_image, ordered, pair_masks, relative, subfolders, visible

_FOLDERS = frozenset({"train", "validation", "test", "calibration"})
_PARTS = frozenset({"rgb", "xyz", "gt"})


def is_category(folder: Path) -> bool:
    """Whether ``folder`` is one category in this layout."""
    tops = (folder / "train" / "good", folder / "test" / "good")
    return any((top / "rgb").is_dir() for top in tops)


def read(root: Path) -> Dataset:
    """Read one category's folder.

    Args:
        root: an absolute path for which :func:`is_category` holds.

    Returns:
        The data set, with everything odd named in ``problems``.
    """
    problems: list[str] = []
    samples: list[Sample] = []
    for split in ("train", "validation", "test"):
        folders = subfolders(root / split)
        problems.extend(
            f"{relative(entry, root)}: a file among folders; ignored."
            for entry in visible(root / split)
            if not entry.is_dir()
        )
        for folder in folders:
            samples.extend(_scans(root, folder, split, problems))
        if root / split / "good" not in folders:
            problems.append(f"{split}/good: holds no picture.")
    problems.extend(
        f"{relative(entry, root)}: not in a folder that the layout knows; ignored."
        for entry in visible(root)
        if entry.name not in _FOLDERS and (entry.is_dir() or is_image(entry))
    )
    return Dataset(
        name="MVTec 3D-AD layout",
        category=root.name,
        layout="mvtec-3d-ad",
        root=root,
        samples=ordered(samples, root),
        problems=tuple(problems),
    )


def xyz_path(sample: Sample) -> Path:
    """Where the organised point cloud of a sample's picture lies; the file need not be there.

    Args:
        sample: of a data set in this layout.

    Returns:
        ``.../xyz/NNN.tiff`` for ``.../rgb/NNN.png``.
    """
    return sample.path.parent.parent / "xyz" / f"{sample.path.stem}.tiff"


def _scans(root: Path, folder: Path, split: Split, problems: list[str]) -> list[Sample]:
    good = folder.name == "good"
    if split != "test" and not good:
        problems.append(f"{relative(folder, root)}: only good pictures belong into {split}; ignored.")
        return []
    problems.extend(
        f"{relative(entry, root)}: not one of rgb, xyz, gt; ignored."
        for entry in visible(folder)
        if entry.name not in _PARTS
    )
    pictures = images_in(folder / "rgb", root=root, problems=problems)
    if not pictures:
        problems.append(f"{relative(folder / 'rgb', root)}: holds no picture.")
    if good:
        return [Sample(path=p, label=0, defect="good", mask_path=None, split=split) for p in pictures]
    masks = images_in(folder / "gt", root=root, problems=problems)
    pairs = pair_masks(pictures, masks, root=root, problems=problems)
    return [Sample(path=p, label=1, defect=folder.name, mask_path=mask, split=split) for p, mask in pairs.items()]
