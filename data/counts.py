"""How many pictures each category of MVTec AD and MVTec 3D-AD officially has, and what a copy lacks."""

from collections.abc import Mapping
from typing import NamedTuple, final

from .records import Dataset


@final
class Counts(NamedTuple):
    """Numbers of pictures: training, validation, good and anomalous test pictures."""

    train: int
    validation: int
    test_good: int
    test_anomalous: int


#: MVTec AD: 3629 training, 467 good and 1258 anomalous test pictures in 15 categories.
MVTEC_AD: Mapping[str, Counts] = {
    "bottle": Counts(209, 0, 20, 63),
    "cable": Counts(224, 0, 58, 92),
    "capsule": Counts(219, 0, 23, 109),
    "carpet": Counts(280, 0, 28, 89),
    "grid": Counts(264, 0, 21, 57),
    "hazelnut": Counts(391, 0, 40, 70),
    "leather": Counts(245, 0, 32, 92),
    "metal_nut": Counts(220, 0, 22, 93),
    "pill": Counts(267, 0, 26, 141),
    "screw": Counts(320, 0, 41, 119),
    "tile": Counts(230, 0, 33, 84),
    "toothbrush": Counts(60, 0, 12, 30),
    "transistor": Counts(213, 0, 60, 40),
    "wood": Counts(247, 0, 19, 60),
    "zipper": Counts(240, 0, 32, 119),
}

#: MVTec 3D-AD: 2656 training, 294 validation, 249 good and 948 anomalous test scans in 10 categories.
MVTEC_3D_AD: Mapping[str, Counts] = {
    "bagel": Counts(244, 22, 22, 88),
    "cable_gland": Counts(223, 23, 21, 87),
    "carrot": Counts(286, 29, 27, 132),
    "cookie": Counts(210, 22, 28, 103),
    "dowel": Counts(288, 34, 26, 104),
    "foam": Counts(236, 27, 20, 80),
    "peach": Counts(361, 42, 26, 106),
    "potato": Counts(300, 33, 22, 92),
    "rope": Counts(298, 33, 32, 69),
    "tire": Counts(210, 29, 25, 87),
}

_OFFICIAL: Mapping[str, Mapping[str, Counts]] = {"mvtec-ad": MVTEC_AD, "mvtec-3d-ad": MVTEC_3D_AD}


def count(dataset: Dataset) -> Counts:
    """Count the pictures of a data set."""
    test_good = sum(sample.label == 0 for sample in dataset.test)
    return Counts(len(dataset.train), len(dataset.validation), test_good, len(dataset.test) - test_good)


def check_counts(dataset: Dataset) -> tuple[str, ...]:
    """Compare a data set with the official numbers of its category.

    Args:
        dataset: in any layout.

    Returns:
        One sentence per difference; empty where all is complete. A category that neither benchmark has gives the one
        sentence that nothing could be compared, so that empty always means checked.
    """
    official = _OFFICIAL.get(dataset.layout, {}).get(dataset.category)
    if official is None:
        return (
            f"{dataset.category}: no official numbers are known for this category in layout {dataset.layout}; "
            "nothing was compared.",
        )
    found = count(dataset)
    differences = [
        f"{dataset.category}: {seen} {what} found, {due} expected ({due - seen} missing)."
        if seen < due
        else f"{dataset.category}: {seen} {what} found, {due} expected ({seen - due} too many)."
        for what, seen, due in zip(_NAMES, found, official, strict=True)
        if seen != due
    ]
    num_masks = sum(sample.mask_path is not None for sample in dataset.test)
    if num_masks < found.test_anomalous:
        differences.append(
            f"{dataset.category}: {num_masks} masks found for {found.test_anomalous} anomalous test pictures."
        )
    return tuple(differences)


_NAMES = ("training pictures", "validation pictures", "good test pictures", "anomalous test pictures")
