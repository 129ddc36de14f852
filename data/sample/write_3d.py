"""The built-in 3D sample: a small data set in the layout of MVTec 3D-AD, seen by a camera that is drawn here.

Two categories: ``bracket`` (rigid, always in almost the same place) and ``bun`` (soft, no two alike), with five kinds
of faults each, see ``faults``. Each scan is a cloud, float32 x, y, z in metres, and an image pixel by pixel beside it,
with the pixels lost that a sensor loses (see ``relief``); ``calibration/camera_parameters.json`` holds the camera. A
mask marks exactly the pixels where the fault moved the surface by more than ``MASK_M`` along z, or changed its colour
by more than ``MASK_LEVELS`` of 255, whether they were measured or not: each faulty part is seen twice, with the fault
and without. As in MVTec 3D-AD a good test scan has a mask too, of zeros.

Equal arguments give equal bytes with equal versions of NumPy and Pillow. The scans carry no licence of anyone else.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.camera import DivisionCamera
from ...core.progress import Progress, silent
from ..calibration import write_camera
from ..decoding.xyz import CLOUD_SUFFIX
from ..files import CALIBRATION
from . import bracket as sample_bracket
from . import bun as sample_bun
from .faults import FAULTS
from .place import Files, check_numbers, drawn_until_it_shows, mark, mask_pixels, sample_folder, save_all
from .relief import Part, Scan, make_camera, scan

#: A pixel belongs to a mask where the surface moved farther than this, in metres along z.
MASK_M = 1.5e-4
#: Or where a channel of its colour changed by more than this many of 255 levels.
MASK_LEVELS = 4

_PIXELS_OF_A_MASK = 12


@dataclass(frozen=True)
class _Category:
    name: str
    make: Callable[[np.random.Generator], Part]


_CATEGORIES = (_Category("bracket", sample_bracket.make), _Category("bun", sample_bun.make))


def write_sample_3d(  # noqa: PLR0913 (how many of each, by name)
    directory: Path | str,
    *,
    seed: int = 0,
    num_train: int = 40,
    num_validation: int = 10,
    num_test_good: int = 12,
    num_test_defect: int = 25,
    size_px: int = 128,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the built-in 3D sample, whole or not at all.

    Args:
        directory: becomes the folder of all categories. A sample written earlier is replaced; any other folder that
            is not empty is left alone.
        seed: seed of every random choice, 0 or more; another seed gives other scans.
        num_train: good training scans per category, at least 1.
        num_validation: good scans per category held out from training.
        num_test_good: good test scans per category.
        num_test_defect: faulty test scans per category, dealt out evenly over the kinds of faults.
        size_px: side of the square scans, at least 64.
        progress: called after each scan.

    Returns:
        The names of the categories, for ``open_dataset(directory, category=name)``.

    Raises:
        UsageError: a number is out of its range.
        BadInputError: ``directory`` holds something that is not a sample.
    """
    counts = {"train": num_train, "validation": num_validation, "good": num_test_good, "defect": num_test_defect}
    check_numbers(counts, seed=seed, size_px=size_px)
    camera = make_camera(size_px)
    scans = itertools.chain.from_iterable(
        _scans(category, [seed, number], counts, camera) for number, category in enumerate(_CATEGORIES)
    )
    with sample_folder(directory) as folder:
        files = save_all(folder, scans, total=sum(counts.values()) * len(_CATEGORIES), progress=progress)
        for category in _CATEGORIES:
            write_camera(camera, folder / category.name)
            files.append(f"{category.name}/{CALIBRATION.as_posix()}")
        mark(folder, files, {"what": "lineproof built-in 3D sample", "seed": seed, "size_px": size_px})
    return tuple(category.name for category in _CATEGORIES)


def _scans(category: _Category, seed: list[int], counts: dict[str, int], camera: DivisionCamera) -> Iterator[Files]:
    """Scans with their masks, in the order of writing; no scan depends on how many there are."""
    for stream, (place, key) in enumerate(
        (("train/good", "train"), ("validation/good", "validation"), ("test/good", "good"))
    ):
        for i in range(counts[key]):
            mask = np.zeros(camera.size, bool) if key == "good" else None
            seen = _good([*seed, stream, i], category, camera)
            yield _files(f"{category.name}/{place}", f"{i:03d}", seen, mask)
    kinds = tuple(FAULTS)
    for i in range(counts["defect"]):
        fault = kinds[i % len(kinds)]
        faulty = _faulty([*seed, 3, i], category, fault, camera)
        yield _files(f"{category.name}/test/{fault}", f"{i // len(kinds):03d}", *faulty)


def _stream(seed: list[int], purpose: int) -> np.random.Generator:
    return np.random.default_rng([*seed, purpose])


def _good(seed: list[int], category: _Category, camera: DivisionCamera) -> Scan:
    return scan(category.make(_stream(seed, 0)), camera, _stream(seed, 1))


def _faulty(seed: list[int], category: _Category, fault: str, camera: DivisionCamera) -> tuple[Scan, NDArray[np.bool_]]:
    part = category.make(_stream(seed, 0))
    without = scan(part, camera, _stream(seed, 1))

    def draw(stream: int) -> tuple[Scan, NDArray[np.bool_]]:
        seen = scan(FAULTS[fault](part, _stream(seed, stream)), camera, _stream(seed, 1))
        return seen, marked(seen, without)

    return drawn_until_it_shows(draw, least_px=_PIXELS_OF_A_MASK * (camera.width_px / 128) ** 2)


def marked(seen: Scan, without: Scan) -> NDArray[np.bool_]:
    """The pixels that a fault changed: bool (S, S), by the surface and colour that noise and holes do not touch."""
    moved = np.abs(seen.true_points - without.true_points)[..., 2] > MASK_M
    coloured = np.abs(seen.reflectance - without.reflectance).max(axis=-1) * 255 > MASK_LEVELS
    return np.asarray(moved | coloured)


def _files(place: str, name: str, seen: Scan, mask: NDArray[np.bool_] | None) -> Files:
    files: dict[str, NDArray[Any]] = {
        f"{place}/rgb/{name}.png": seen.image,
        f"{place}/xyz/{name}{CLOUD_SUFFIX}": seen.points,
    }
    return files if mask is None else {**files, f"{place}/gt/{name}.png": mask_pixels(mask)}
