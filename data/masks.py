"""Ground truth masks: the union of an image's masks, and the check that each marks something."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import BadInputError
from ..core.words import counted
from .decoding.decode import decode_image, decode_mask
from .records import Dataset, Problem, Sample, relative

#: A mask that marks more than this share of an image is taken for an inverted one.
MOST_MARKED = 0.9

_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def read_mask(sample: Sample, *, expected_shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Which pixels of an image are anomalous.

    Args:
        sample: the image and its masks.
        expected_shape: (H, W) of the image, upright.

    Returns:
        bool (H, W), True where any of the image's masks marks it; all False for a good image; None for a defective
        one without a mask, whose pixels are unknown.

    Raises:
        BadInputError: a mask cannot be read, or is not of the image's size.
    """
    marked = np.zeros(expected_shape, dtype=np.bool_)
    if sample.label == 0:
        return marked
    for path in sample.mask_paths:
        marked |= decode_mask(path, expected_shape=expected_shape)
    return marked if sample.mask_paths else None


def check_masks(dataset: Dataset) -> Dataset:
    """Decode every mask once and take away those that cannot be the truth.

    A defective image counts as unmarked, its pixels as unknown, where one of its masks cannot be read, is of another
    size than the image or marks nothing, or where all together mark more than ``MOST_MARKED`` of it. A mask of a good
    image is taken away, and named where it marks something. Of the images only the headers are read.

    Returns:
        The data set without those masks and with a problem for each; the same one where all masks are sound.
    """
    problems = list[Problem]()
    samples = []
    for sample in dataset.samples:
        own = _problems(sample, dataset.root)
        problems.extend(own)
        is_sound = sample.label == 1 and not own
        samples.append(sample if is_sound or not sample.mask_paths else replace(sample, mask_paths=()))
    return replace(dataset, samples=tuple(samples), noticed=(*dataset.noticed, *problems))


def _problems(sample: Sample, root: Path) -> list[Problem]:
    """What is wrong with an image's masks; a good image's are wrong where they mark something."""
    if sample.label == 0:
        return _of_good(sample, root)
    expected = upright_shape(sample.path) if sample.mask_paths else None
    problems, marked = list[Problem](), None
    for path in sample.mask_paths:
        where = relative(path, root)
        try:
            mask = decode_mask(path)
        except BadInputError as error:
            problems.append(Problem(where, f"cannot be used ({_reason(error, path)}){_UNMARKED}", _UNUSABLE))
            continue
        if expected and mask.shape != expected:
            sizes = f"is {mask.shape[1]}x{mask.shape[0]} pixels, its image {expected[1]}x{expected[0]}"
            problems.append(Problem(where, sizes + _UNMARKED, "is not of its image's size" + _UNMARKED))
        elif not mask.any():
            problems.append(Problem(where, "marks nothing" + _UNMARKED))
        elif marked is None or marked.shape == mask.shape:
            marked = mask if marked is None else marked | mask
    if not problems and marked is not None and marked.mean() > MOST_MARKED:
        kind = f"marks more than {MOST_MARKED:.0%}, as an inverted mask does{_UNMARKED}"
        what = f"marks {marked.mean():.1%} of the image, as an inverted mask does{_UNMARKED}"
        problems.append(Problem(relative(sample.mask_paths[0], root), what, kind))
    return problems


_UNMARKED = "; its image counts as unmarked"
_UNUSABLE = "cannot be used" + _UNMARKED


def _of_good(sample: Sample, root: Path) -> list[Problem]:
    problems = []
    for path in sample.mask_paths:
        try:
            num_marked = int(decode_mask(path).sum())
        except BadInputError:
            # Nothing is lost by a mask that is not needed.
            continue
        if num_marked:
            kind = "is in a folder of good images, but has a mask that marks something; it counts as good"
            what = (
                f"is in a folder of good images, but {relative(path, root)} marks {counted(num_marked, 'pixel')} of it"
            )
            problems.append(Problem(relative(sample.path, root), f"{what}; it counts as good", kind))
    return problems


def _reason(error: BadInputError, path: Path) -> str:
    """The error's first clause, without the path."""
    return str(error).removeprefix(f"{path}: ").partition("; ")[0].rstrip(".")


def upright_shape(path: Path) -> tuple[int, int] | None:
    """(H, W) by the image's header; None for an image that cannot be read, which whoever reads it reports."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                is_sideways = image.getexif().get(_ORIENTATION_TAG) in _SIDEWAYS
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, Image.DecompressionBombError):
        return _decoded_shape(path)
    return (width, height) if is_sideways else (height, width)


def _decoded_shape(path: Path) -> tuple[int, int] | None:
    # The decoder reads more kinds of files than Pillow recognises by their headers.
    try:
        height, width, _ = decode_image(path).shape
    except BadInputError:
        return None
    return height, width
