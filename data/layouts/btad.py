"""The layout of BTAD (beanTech), where good parts are ok and defective ones ko.

    CATEGORY/train/ok/NNNN.{png,bmp}
    CATEGORY/test/{ok,ko}/NNNN.{png,bmp}
    CATEGORY/ground_truth/ko/NNNN.{png,bmp}          the suffix may differ from the image's

Eleven of the released masks mark nothing (1 of category 02, 10 of 03): those images count as unmarked.
Data set: Mishra, Verk, Fornasier, Piciarelli and Foresti, "VT-ADL", ISIE 2021.
"""

from pathlib import Path

from .layout import Layout, folders_named
from .names import spelled
from .splits import folders_of, good_folders, is_split_tree, read_splits


def is_category(folder: Path) -> bool:
    """Whether ``folder`` is one category: defective parts are ko, and good ones ok in one split at least."""
    goods = [spelled(good.name) for split in ("train", "test") for good in good_folders(folder, split)]
    has_ko = any(folders_named(top, {"ko"}) for top in folders_of(folder, "test"))
    return has_ko and "ok" in goods and is_split_tree(folder)


LAYOUT = Layout(
    title="BTAD layout",
    tree="train/ok/*.png, test/ok/*.png, test/ko/*.png, ground_truth/ko/*.png",
    is_category=is_category,
    read=read_splits,
)
