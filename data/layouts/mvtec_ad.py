"""The layout of MVTec AD, which many data sets share.

    CATEGORY/train/good/NNN.png
    CATEGORY/validation/good/NNN.png                 optional, not in MVTec AD itself
    CATEGORY/test/{good,DEFECT}/NNN.png
    CATEGORY/ground_truth/DEFECT/NNN_mask.png        or NNN.png

VisA's own script converts it to this layout, with the one type of defect ``bad``.
Data set: Bergmann, Fauser, Sattlegger and Steger, "MVTec AD", CVPR 2019.
"""

from .layout import Layout
from .splits import is_split_tree, read_splits

LAYOUT = Layout(
    title="MVTec AD layout",
    tree="train/good/*.png, test/good/*.png, test/DEFECT/*.png, ground_truth/DEFECT/*_mask.png",
    is_category=is_split_tree,
    read=read_splits,
)
