"""Opens a folder as a data set: recognises the layout, reads it, and checks what the files hold."""

import os
from collections.abc import Mapping
from pathlib import Path

from ..core.errors import BadInputError, UsageError
from ..core.registry import resolve
from ..core.spec import Reads
from ..core.words import counted
from .counts import check_counts
from .layouts.layout import Findings, Layout
from .leaks import check_leaks
from .masks import check_masks, read_mask
from .records import Dataset, Problem, Sample, ordered, subfolders, visible

__all__ = [
    "LAYOUTS", "Dataset", "Problem", "Sample", "check_contents", "check_counts", "check_leaks", "check_masks",
    "open_dataset", "read_mask",
]  # fmt: skip

#: The layouts in the order they are tried: each might be taken for one that stands further down.
LAYOUTS: Mapping[str, str] = {
    "visa": "lineproof.data.layouts.visa:LAYOUT",
    "mvtec-3d-ad": "lineproof.data.layouts.mvtec_3d:LAYOUT",
    "mvtec-loco-ad": "lineproof.data.layouts.mvtec_loco:LAYOUT",
    "btad": "lineproof.data.layouts.btad:LAYOUT",
    "mvtec-ad": "lineproof.data.layouts.mvtec_ad:LAYOUT",
    "folder": "lineproof.data.layouts.folder:LAYOUT",
}

#: How many folders are looked into for a hint where no layout fits: the path may be a whole disk's.
_MOST_SEARCHED = 50


def open_dataset(path: Path | str, *, category: str | None = None, strict: bool = False) -> Dataset:
    """Open one category.

    Args:
        path: the category's folder, or the folder that holds all categories.
        category: which category, where ``path`` holds several. May be left out where there is one only, and may be
            named again where ``path`` is that category's folder.
        strict: whether a data set with ``problems`` is an error.

    Returns:
        The data set. Hidden files and what file managers leave behind do not count as problems.

    Raises:
        BadInputError: nothing is there, no layout fits, no image was found, or ``strict`` and there are problems.
        UsageError: a category must be named, or the one named is not there; the message lists them.
    """
    root = Path(os.path.abspath(path))
    if not root.is_dir():
        seen = "is a file" if root.exists() else "does not exist"
        raise BadInputError(f"{root}: {seen}; expected the folder of a data set. Check the path.")
    root = _category_folder(root, category)
    dataset = _read(root)
    if dataset is None:
        raise BadInputError(f"{root}: {_seen(root)}; {_expected()}")
    if not dataset.samples:
        raise BadInputError(f"{root}: no image was found in the folders of layout {dataset.layout}; {_expected()}")
    if strict and dataset.problems:
        listed = "\n  ".join(dataset.problems)
        raise BadInputError(
            f"{root}: {counted(len(dataset.problems), 'problem')}, expected none (strict):\n  {listed}\n"
            "Mend the files, or open without strict."
        )
    return dataset


def check_contents(dataset: Dataset, reads: Reads) -> Dataset:
    """Check what needs files to be read: masks that cannot be the truth, and images that lie in the set twice.

    To be called once before anything is measured; see :func:`check_masks` and :func:`check_leaks`.

    Args:
        dataset: the data set.
        reads: what the detector reads of each sample.

    Returns:
        The data set without unsound masks, and with what the checks noticed among its problems.
    """
    return check_leaks(check_masks(dataset), reads)


def enclosing_dataset(folder: Path) -> Dataset | None:
    """The data set to which a folder of images belongs, or None where it is part of none."""
    folder = Path(os.path.abspath(folder))
    # The outermost first: train/ of MVTec AD alone looks like a plain folder with good/ in it.
    for parent in reversed(folder.parents[:3]):
        dataset = _read(parent) if _is_category(parent) else None
        if dataset and any(sample.path.parent == folder for sample in dataset.samples):
            return dataset
    return None


def _layouts() -> dict[str, Layout]:
    return {name: resolve(LAYOUTS, name, kind="layout") for name in LAYOUTS}


def _read(root: Path) -> Dataset | None:
    """The data set, which may be without images, or None where no layout fits."""
    match = next(((name, layout) for name, layout in _layouts().items() if layout.is_category(root)), None)
    if match is None:
        return None
    name, layout = match
    findings = Findings(root)
    samples = ordered(layout.read(root, findings), root)
    return Dataset(
        name=layout.title,
        category=root.name,
        layout=name,
        root=root,
        samples=samples,
        noticed=tuple(findings.problems),
        remarks=tuple(findings.remarks),
    )


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
    try:
        return any(layout.is_category(root) for layout in _layouts().values())
    except BadInputError:
        # A folder beside the categories that nobody may list, such as lost+found, is none.
        return False


def _categories(folder: Path) -> list[str]:
    try:
        return [inner.name for inner in subfolders(folder)[:_MOST_SEARCHED] if _is_category(inner)]
    except BadInputError:
        return []


def _expected() -> str:
    trees = "".join(f"\n  {layout.title}: {layout.tree}" for layout in _layouts().values())
    return (
        f"expected one of{trees}\n"
        "or a folder of such folders together with the name of a category. Folders of good parts may be called good, "
        "ok, okay or normal, in any case."
    )


def _seen(root: Path) -> str:
    entries = visible(root)
    if not entries:
        return "the folder is empty"
    for entry in subfolders(root)[:_MOST_SEARCHED]:
        if categories := _categories(entry):
            listed = ", ".join(categories)
            return f"no known layout, but {entry.name} in it holds the categories {listed}: give that folder"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries[:12]]
    more = f" and {len(entries) - len(names)} more" if len(entries) > len(names) else ""
    return f"no known layout: found {', '.join(names)}{more}"


def open_category(data: Path, category: str | None, *, bundle_category: str) -> Dataset:
    """Open the category named, else the bundle's own, else the one that the folder is, whose name is checked later.

    Args:
        data: a category's folder, or a folder of several.
        category: name of the category, or None.
        bundle_category: category that the bundle was trained on; "" where it is not known.
    """
    if category or not bundle_category:
        return open_dataset(data, category=category)
    try:
        return open_dataset(data, category=bundle_category)
    except UsageError as error:
        try:
            return open_dataset(data)
        except UsageError:
            raise error from None
