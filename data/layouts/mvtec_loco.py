"""The layout of MVTec LOCO AD: an image has a folder of masks, one file for each of its defects.

    CATEGORY/{train,validation}/good/NNN.png
    CATEGORY/test/{good,logical_anomalies,structural_anomalies}/NNN.png
    CATEGORY/ground_truth/{logical_anomalies,structural_anomalies}/NNN/MMM.png

A pixel's value names the type of defect and any but 0 is marked; an image's mask is the union of its files.
``defects_config.json``, with which the benchmark saturates its sPRO, is not read.
Data set: Bergmann, Batzner, Fauser, Sattlegger and Steger, "Beyond Dents and Scratches", IJCV 2022.
"""

from pathlib import Path

from ..records import is_image, subfolders, visible
from .layout import Layout, folders_named
from .splits import folders_of, is_split_tree, read_splits

_TYPES = frozenset({"logical_anomalies", "structural_anomalies"})


def is_category(folder: Path) -> bool:
    """Whether ``folder`` is one category: its types of defect are LOCO's, or images have folders of masks."""
    if not is_split_tree(folder):
        return False
    if any(folders_named(top, _TYPES) for top in folders_of(folder, "test")):
        return True
    types = (place for top in folders_of(folder, "ground_truth") for place in subfolders(top))
    return any(is_image(entry) for place in types for inner in subfolders(place) for entry in visible(inner))


LAYOUT = Layout(
    title="MVTec LOCO AD layout",
    tree="as MVTec AD, with ground_truth/DEFECT/NAME/*.png, several masks per image",
    is_category=is_category,
    read=read_splits,
)
