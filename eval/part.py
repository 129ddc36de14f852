"""Checks that a data set shows the part that a bundle was trained on: parity on another part would prove nothing."""

from __future__ import annotations

from pathlib import Path

from ..bundle.manifest import Manifest, TrainingRecord
from ..core.errors import BadInputError
from ..data.dataset import Dataset, check_contents, open_category


def open_part_data(manifest: Manifest, data: Path, category: str | None = None) -> Dataset:
    """Open a data set for a bundle, its masks looked at, so that an image with an empty mask counts as one without.

    Args:
        manifest: of the bundle.
        data: folder of the data set, or of one category.
        category: category asked for; None for the one that the bundle was trained on, where the folder has it.

    Raises:
        BadInputError: the folder holds no known layout.
        UsageError: it holds no such category.
    """
    dataset = open_category(data, category, bundle_category=manifest.training.category)
    return check_contents(dataset, manifest.preprocessing.reads)


def check_same_part(manifest: Manifest, dataset: Dataset, *, other_data: bool) -> str:
    """Compare a data set with the one that a bundle was trained on.

    The same training images are the same part, whatever the folder is called. Otherwise the category's name decides:
    another one is refused unless the caller accepts it. Where the name is the same and the training images
    differ or are missing, a sentence says so: a newer copy of the data set looks like that, and a copy that holds test
    images alone.

    Args:
        manifest: manifest of the bundle.
        dataset: data set whose images are to be judged.
        other_data: whether another category is accepted.

    Of an imported bundle it is not known what it was trained on: the name alone decides.

    Returns:
        One sentence, or "" where the training images are the same.

    Raises:
        BadInputError: the category is another, and ``other_data`` is False.
    """
    training = manifest.training
    if manifest.imported:
        return check_same_category(manifest, dataset.category, other_data=other_data, where=str(dataset.root)) or (
            f"{manifest.name} was imported, and what it was trained on is not recorded: that {dataset.root} shows its "
            "part, and none of the images that it learned from, is not checked."
        )
    seen = dataset.fingerprint(manifest.preprocessing.reads) if dataset.train else ""
    if seen and seen == training.fingerprint:
        return ""
    return check_same_category(manifest, dataset.category, other_data=other_data, where=str(dataset.root)) or (
        _images_sentence(training, dataset, seen)
    )


def check_same_category(manifest: Manifest, category: str, *, other_data: bool, where: str) -> str:
    """Compare the names of categories alone, without regard to case; an unknown name matches every other.

    Args:
        manifest: manifest of the bundle.
        category: category of the images; "" where it is not known.
        other_data: whether another category is accepted.
        where: folder of the images, for the message.

    Returns:
        One sentence where the names differ, else "".

    Raises:
        BadInputError: the names differ, and ``other_data`` is False.
    """
    trained = manifest.training.category
    if not trained or not category or trained.casefold() == category.casefold():
        return ""
    seen = f"{manifest.name} was trained on {trained}; the images of {where} are of {category}"
    if not other_data:
        raise BadInputError(
            f"{seen}, and none of them is known from its training. Give images of {trained} (a plain folder is "
            "called by its own name), or accept these with --other-data where they show the same part."
        )
    return f"Other data: {seen}; accepted as asked (--other-data)."


def _images_sentence(training: TrainingRecord, dataset: Dataset, seen: str) -> str:
    """Why the training images are not those of a bundle; ``seen`` is their fingerprint, "" where there are none."""
    if not seen:
        return f"{dataset.root} holds no training images: that it is the bundle's part is told by its name alone."
    if not training.fingerprint:
        return (
            f"Which images the bundle's detector was trained on is not known: that {dataset.root} shows its part is "
            "told by its name alone."
        )
    return (
        f"The training images of {dataset.root} are not those that the bundle was trained on (fingerprint "
        f"{seen[:12]}… and {training.fingerprint[:12]}…): another copy or version of "
        f"{dataset.category}."
    )
