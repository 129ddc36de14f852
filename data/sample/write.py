"""The built-in sample: a small data set in the layout of MVTec AD, drawn here, so that a first run needs no download.

Two categories: ``flange`` (an object) and ``weave`` (a texture), with six kinds of defects each. Light, pose, turned
grooves and threads differ from image to image, defects are small: comparing with the mean image does not show
them. A mask marks exactly the pixels that the defect changes by more than ``MASK_LEVELS`` of 255 in some channel,
because each defective image is made twice, with and without the defect, in equal light and noise.

Equal arguments give equal bytes with equal versions of NumPy and Pillow. The images carry no licence of anyone else.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.progress import Progress, silent
from . import flange as sample_flange
from . import weave as sample_weave
from .canvas import Scene, photograph
from .defects import PAINTERS
from .place import MARKER as MARKER
from .place import Files, check_numbers, drawn_until_it_shows, mark, mask_pixels, sample_folder, save_all

#: A pixel belongs to a mask where a channel differs by more than this many of 255 levels.
MASK_LEVELS = 4

_PIXELS_OF_A_MASK = 12


@dataclass(frozen=True)
class _Category:
    name: str
    render: Callable[..., Scene]
    missing: str

    @property
    def defects(self) -> tuple[str, ...]:
        return tuple(sorted([*PAINTERS, self.missing]))


_CATEGORIES = (
    _Category("flange", sample_flange.render, "missing_part"),
    _Category("weave", sample_weave.render, "missing_thread"),
)


def write_sample(  # noqa: PLR0913 (how many of each, by name)
    directory: Path | str,
    *,
    seed: int = 0,
    num_train: int = 40,
    num_test_good: int = 12,
    num_test_defect: int = 24,
    size_px: int = 256,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the built-in sample, whole or not at all.

    Args:
        directory: becomes the folder of all categories. A sample written earlier is replaced; any other folder that
            is not empty is left alone.
        seed: seed of every random choice, 0 or more; another seed gives other images.
        num_train: good training images per category, at least 1.
        num_test_good: good test images per category.
        num_test_defect: defective test images per category, dealt out evenly over the kinds of defects.
        size_px: side of the square images, at least 64.
        progress: called after each image.

    Returns:
        The names of the categories, for ``open_dataset(directory, category=name)``.

    Raises:
        UsageError: a number is out of its range.
        BadInputError: ``directory`` holds something that is not a sample.
    """
    counts = {"train": num_train, "good": num_test_good, "defect": num_test_defect}
    check_numbers(counts, seed=seed, size_px=size_px)
    images = itertools.chain.from_iterable(
        _images(category, [seed, number], counts, size_px) for number, category in enumerate(_CATEGORIES)
    )
    with sample_folder(directory) as folder:
        files = save_all(folder, images, total=sum(counts.values()) * len(_CATEGORIES), progress=progress)
        mark(folder, files, {"what": "lineproof built-in sample", "seed": seed, "size_px": size_px})
    return tuple(category.name for category in _CATEGORIES)


def _images(category: _Category, seed: list[int], counts: dict[str, int], size_px: int) -> Iterator[Files]:
    """Images with their masks, in the order of writing; no image depends on how many there are."""
    for stream, (place, key) in enumerate((("train/good", "train"), ("test/good", "good"))):
        for i in range(counts[key]):
            yield {f"{category.name}/{place}/{i:03d}.png": _good([*seed, stream, i], category, size_px)}
    kinds = category.defects
    for i in range(counts["defect"]):
        defect = kinds[i % len(kinds)]
        image, mask = _defective([*seed, 2, i], category, defect, size_px)
        name = f"{defect}/{i // len(kinds):03d}"
        yield {
            f"{category.name}/test/{name}.png": image,
            f"{category.name}/ground_truth/{name}_mask.png": mask_pixels(mask),
        }


def _stream(seed: list[int], purpose: int) -> np.random.Generator:
    return np.random.default_rng([*seed, purpose])


def _good(seed: list[int], category: _Category, size_px: int) -> NDArray[np.uint8]:
    scene = category.render(_stream(seed, 0), size_px)
    return photograph(scene.colour, _stream(seed, 1))


def _defective(
    seed: list[int], category: _Category, defect: str, size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    scene = category.render(_stream(seed, 0), size_px)
    without = photograph(scene.colour, _stream(seed, 1)).astype(np.int16)

    def draw(stream: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        chance = _stream(seed, stream)
        if defect == category.missing:
            colour = category.render(_stream(seed, 0), size_px, missing=chance.random()).colour
        else:
            colour = PAINTERS[defect](scene, chance)
        image = photograph(colour, _stream(seed, 1))
        return image, np.abs(image - without).max(axis=2) > MASK_LEVELS

    return drawn_until_it_shows(draw, least_px=_PIXELS_OF_A_MASK * (size_px / 256) ** 2)
