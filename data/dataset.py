"""Opens a folder as a data set: recognises MVTec AD, MVTec 3D-AD and plain folders."""

import os
from pathlib import Path

from ..core.errors import BadInputError, UsageError
from . import folder, mvtec_3d, mvtec_ad
from .counts import check_counts
from .records import Dataset, Sample, subfolders, visible

__all__ = ["Dataset", "Sample", "check_counts", "open_dataset"]

# Ordered: a category of MVTec 3D-AD could be taken for one of MVTec AD, not the other way round.
_LAYOUTS = (mvtec_3d, mvtec_ad, folder)

_EXPECTED = """expected one of
  MVTec AD:     train/good/*.png, test/good/*.png, test/DEFECT/*.png, ground_truth/DEFECT/*_mask.png
  MVTec 3D-AD:  train/good/rgb/*.png, test/DEFECT/{rgb,gt}/*.png
  plain folder: good/*.png, bad/*.png and, where there are any, masks/*.png
or a folder of such folders together with the name of a category."""


def open_dataset(path: Path | str, *, category: str | None = None, strict: bool = False) -> Dataset:
    """Open one category.

    Args:
        path: the category's folder, or the folder that holds all categories.
        category: which category, where ``path`` holds several. May be left out where there is one only, and may be
            given again where ``path`` is that category's folder.
        strict: whether anything in ``problems`` is an error.

    Returns:
        The data set. Hidden files and what file managers leave behind do not count as problems.

    Raises:
        BadInputError: nothing is there, no layout fits, no picture was found, or ``strict`` and there are problems.
        UsageError: a category must be named, or the one named is not there; the message lists them.
    """
    root = Path(os.path.abspath(path))
    if not root.is_dir():
        seen = "is a file" if root.exists() else "does not exist"
        raise BadInputError(f"{root}: {seen}; expected the folder of a data set. Check the path given as data.")
    root = _category_folder(root, category)
    layout = next((layout for layout in _LAYOUTS if layout.is_category(root)), None)
    if layout is None:
        raise BadInputError(f"{root}: {_found(root)}; {_EXPECTED}")
    dataset: Dataset = layout.read(root)
    if not dataset.samples:
        raise BadInputError(f"{root}: no picture was found in the folders of layout {dataset.layout}; {_EXPECTED}")
    if strict and dataset.problems:
        listed = "\n  ".join(dataset.problems)
        raise BadInputError(
            f"{root}: {len(dataset.problems)} problems, expected none (strict):\n  {listed}\n"
            "Mend the files, or open without strict."
        )
    return dataset


def enclosing_dataset(folder: Path) -> Dataset | None:
    """The data set to which a folder of pictures belongs, or None where it is part of none."""
    folder = Path(os.path.abspath(folder))
    # The outermost first: train/ of MVTec AD alone looks like a plain folder with good/ in it.
    for parent in reversed(folder.parents[:3]):
        if _is_category(parent):
            dataset = open_dataset(parent)
            if any(sample.path.parent == folder for sample in dataset.samples):
                return dataset
    return None


def _category_folder(root: Path, category: str | None) -> Path:
    if _is_category(root):
        if category not in (None, root.name):
            raise UsageError(
                f"Category {category!r} was asked for, but {root} is the folder of one category, "
                f"{root.name!r}. Give that folder alone, or the folder above it."
            )
        return root
    categories = [entry.name for entry in subfolders(root) if _is_category(entry)]
    if not categories:
        return root
    if category is None and len(categories) == 1:
        return root / categories[0]
    if category not in categories:
        asked = "none was named" if category is None else f"{category!r} is not among them"
        raise UsageError(f"{root} holds {len(categories)} categories and {asked}. Choose: {', '.join(categories)}.")
    return root / category


def _is_category(root: Path) -> bool:
    return any(layout.is_category(root) for layout in _LAYOUTS)


def _found(root: Path) -> str:
    entries = visible(root)
    if not entries:
        return "the folder is empty"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries[:12]]
    more = f" and {len(entries) - len(names)} more" if len(entries) > len(names) else ""
    return f"no known layout: found {', '.join(names)}{more}"
