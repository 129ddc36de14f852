"""The built-in 3D sample: a small data set in the layout of MVTec 3D-AD, seen by a camera that is drawn here.

Two categories: ``bracket`` (rigid, always in almost the same place) and ``bun`` (soft, no two alike), with five kinds
of faults each, see ``faults``. Each scan is a cloud, float32 x, y, z in metres, and an image pixel by pixel beside it,
with the pixels lost that a sensor loses (see ``relief``); ``calibration/camera_parameters.json`` holds the camera. A
mask marks exactly the pixels where the fault moved the surface by more than ``MASK_M`` along z, or changed its colour
by more than ``MASK_LEVELS`` of 255, whether they were measured or not: each faulty part is seen twice, with the fault
and without. As in MVTec 3D-AD a good test scan has a mask too, of zeros.

Equal arguments give equal bytes with equal versions of NumPy and Pillow. The scans carry no licence of anyone else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.camera import DivisionCamera
from ...core.errors import UsageError
from ...core.progress import Progress, silent
from ..calibration import CALIBRATION, write_camera
from ..decoding.xyz import CLOUD_SUFFIX, write_xyz
from . import bracket as sample_bracket
from . import bun as sample_bun
from .faults import FAULTS
from .place import mark, sample_folder, save_image
from .relief import Part, Scan, make_camera, scan

#: A pixel belongs to a mask where the surface moved farther than this, in metres along z.
MASK_M = 1.5e-4
#: Or where a channel of its colour changed by more than this many of 255 levels.
MASK_LEVELS = 4

_PIXELS_OF_A_MASK = 12
_MIN_SIZE_PX = 64


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
    if seed < 0 or num_train < 1 or min(counts.values()) < 0 or size_px < _MIN_SIZE_PX:
        asked = ", ".join(f"{name} {value}" for name, value in {"seed": seed, **counts, "size_px": size_px}.items())
        raise UsageError(
            f"{asked} were asked for; expected train from 1, size_px from {_MIN_SIZE_PX}, the others from 0."
        )
    camera = make_camera(size_px)
    with sample_folder(directory) as folder:
        files: list[str] = []
        total, done = sum(counts.values()) * len(_CATEGORIES), 0
        for number, category in enumerate(_CATEGORIES):
            write_camera(camera, folder / category.name)
            files.append(f"{category.name}/{CALIBRATION.as_posix()}")
            for place, name, seen, mask in _scans(category, [seed, number], counts, camera):
                files += _save(folder, f"{category.name}/{place}", name, seen, mask)
                done += 1
                progress("drawing the sample", done, total)
        mark(folder, files, {"what": "lineproof built-in 3D sample", "seed": seed, "size_px": size_px})
    return tuple(category.name for category in _CATEGORIES)


def _scans(
    category: _Category, seed: list[int], counts: dict[str, int], camera: DivisionCamera
) -> Iterator[tuple[str, str, Scan, NDArray[np.bool_] | None]]:
    """Folder, name, scan and mask, in the order of writing; no scan depends on how many there are."""
    for purpose, (place, key) in enumerate(
        (("train/good", "train"), ("validation/good", "validation"), ("test/good", "good"))
    ):
        for i in range(counts[key]):
            mask = np.zeros(camera.size, bool) if key == "good" else None
            yield place, f"{i:03d}", _good([*seed, purpose, i], category, camera), mask
    kinds = tuple(FAULTS)
    for i in range(counts["defect"]):
        fault = kinds[i % len(kinds)]
        yield f"test/{fault}", f"{i // len(kinds):03d}", *_faulty([*seed, 3, i], category, fault, camera)


def _stream(seed: list[int], purpose: int) -> np.random.Generator:
    return np.random.default_rng([*seed, purpose])


def _good(seed: list[int], category: _Category, camera: DivisionCamera) -> Scan:
    return scan(category.make(_stream(seed, 0)), camera, _stream(seed, 1))


def _faulty(seed: list[int], category: _Category, fault: str, camera: DivisionCamera) -> tuple[Scan, NDArray[np.bool_]]:
    part = category.make(_stream(seed, 0))
    without = scan(part, camera, _stream(seed, 1))
    attempt = 2
    while True:
        seen = scan(FAULTS[fault](part, _stream(seed, attempt)), camera, _stream(seed, 1))
        mask = marked(seen, without)
        # A fault that a slope hides is drawn again elsewhere.
        if np.count_nonzero(mask) >= _PIXELS_OF_A_MASK * (camera.width_px / 128) ** 2:
            return seen, mask
        attempt += 1


def marked(seen: Scan, without: Scan) -> NDArray[np.bool_]:
    """The pixels that a fault changed: bool (S, S), by the surface and colour that noise and holes do not touch."""
    moved = np.abs(seen.true_points - without.true_points)[..., 2] > MASK_M
    coloured = np.abs(seen.reflectance - without.reflectance).max(axis=-1) * 255 > MASK_LEVELS
    return np.asarray(moved | coloured)


def _save(folder: Path, place: str, name: str, seen: Scan, mask: NDArray[np.bool_] | None) -> list[str]:
    files = [f"{place}/rgb/{name}.png", f"{place}/xyz/{name}{CLOUD_SUFFIX}"]
    save_image(folder / files[0], seen.image)
    write_xyz(folder / files[1], seen.points)
    if mask is not None:
        files.append(f"{place}/gt/{name}.png")
        save_image(folder / files[-1], mask.astype(np.uint8) * np.uint8(255))
    return files
