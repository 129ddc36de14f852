"""Pairs of outputs: the images that both sides judged, and whether their pixels can be compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError
from ...core.geometry import seen_part
from ...core.used import UsedShare
from ...core.words import counted
from ..masks import Resolution
from .outputs import Outputs


def in_step(left: Outputs, right: Outputs) -> tuple[Outputs, Outputs]:
    """The outputs of both sides, cut down to the images that both judged, in the same order.

    Raises:
        BadInputError: the sides judged two categories, share fewer than two images, or images of one name have another
            content or label on the two sides.
    """
    first, second = left.source, right.source
    # Every category of a benchmark has a test/good/000.png.
    if first.category.casefold() != second.category.casefold():
        raise BadInputError(
            f"Left judged images of {first.category or 'no category'} ({first.root}), right of "
            f"{second.category or 'no category'} ({second.root}): equal names are not equal images. Compare outputs "
            "of one data set."
        )
    places = {file: index for index, file in enumerate(right.files)}
    shared = [(index, places[file]) for index, file in enumerate(left.files) if file in places]
    if len(shared) < 2:
        raise BadInputError(
            f"Only {counted(len(shared), 'image is', 'images are')} on both sides: left has {len(left)} such as "
            f"{left.files[0]}, right "
            f"{len(right)} such as {right.files[0]}. Compare outputs of one data set."
        )
    if left.files != right.files:
        mine, theirs = (np.array(column) for column in zip(*shared, strict=True))
        left, right = left.take(mine), right.take(theirs)
    _check_contents(left, right)
    differing = np.flatnonzero(left.label != right.label)
    if len(differing):
        raise BadInputError(
            f"{counted(len(differing), 'image is', 'images are')} labelled differently on the two sides, first "
            f"{left.files[differing[0]]}. "
            "Compare outputs of one version of the data set."
        )
    return left, right


def _check_contents(left: Outputs, right: Outputs) -> None:
    """Raise BadInputError where images of one name are known to be others; of an image and a cloud nothing is known."""
    if left.source.preprocessing.reads != right.source.preprocessing.reads or not (left.contents and right.contents):
        return
    differing = [file for file, a, b in zip(left.files, left.contents, right.contents, strict=True) if a != b]
    if differing:
        raise BadInputError(
            f"Of {counted(len(left), 'image')} the content of {len(differing)} differs between the two sides, first "
            f"{differing[0]}. Compare outputs of one version of the data set."
        )


def used_share(left: Outputs, right: Outputs, *, num_compared: int) -> UsedShare:
    """The share of the images of either side that were compared, and the reason for each of the others."""
    skipped = {**dict(right.source.skipped), **dict(left.source.skipped)}
    for files, others, word in ((left.files, set(right.files), "right"), (right.files, set(left.files), "left")):
        for file in files:
            if file not in others:
                skipped.setdefault(file, f"not on the {word} side")
    return UsedShare(num_compared + len(skipped), tuple(skipped.items()))


def same_pixels(left: Outputs, right: Outputs, resolution: Resolution) -> bool:
    """Whether both sides judge the same pixels of the same frames."""
    first, second = left.source.preprocessing, right.source.preprocessing
    if [side.frame_px for side in first.axes] != [side.frame_px for side in second.axes]:
        return False
    if resolution == "image":
        return seen_part(first) == seen_part(second)
    return first.axes == second.axes and left.anomaly_map.shape == right.anomaly_map.shape


def same_places(left: Outputs, right: Outputs) -> bool:
    """Whether one pixel of the maps shows the same place of an image on both sides: equal frames, crops and maps."""
    first, second = left.source.preprocessing, right.source.preprocessing
    is_alike = left.anomaly_map.shape == right.anomaly_map.shape and first.fit == second.fit
    return is_alike and first.axes == second.axes


def check_masks(left: Outputs, right: Outputs, known: NDArray[np.int64]) -> None:
    """Raise BadInputError unless both sides have the same masks."""
    differing = [int(i) for i in known if not np.array_equal(left.packed_mask[i], right.packed_mask[i])]
    if differing:
        raise BadInputError(
            f"{counted(len(differing), 'image has', 'images have')} another mask on the two sides, first "
            f"{left.files[differing[0]]}. Compare "
            "outputs of one version of the data set."
        )
