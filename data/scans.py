"""A look at the training scans before any work: sizes, how far they reach, and the camera that saw them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..core.camera import DivisionCamera, fit_pinhole
from ..core.errors import BadInputError, UsageError
from ..core.progress import Progress, silent
from ..core.size import Size
from ..core.spec import Fit
from .calibration import camera_of_frames, read_camera
from .content import hash_scan
from .decoding.conversions import Conversions
from .decoding.decode import decode_with_facts
from .files import CALIBRATION, scan_files
from .inputs.scan import check_in_front, check_sizes_agree, is_measured, read_scan

#: Share of a scan's points that may be left out at each end.
MOST_TRIMMED = 0.2
#: Depth in metres that no inspection measures: beyond it x, y, z have another unit.
_FARTHEST_M = 50.0
#: How many times as large as the median scan one is, or how many of its sizes away, that shows something else.
_OTHER_SIZE, _AWAY = 10.0, 2.0
#: Scans that a calibration is held against, and the pixels by which their points may miss their own.
_HELD_AGAINST, _MISS_PX = 5, 2.0


@final
@dataclass(frozen=True, kw_only=True)
class Extent:
    """How far measured points reach, in metres.

    Attributes:
        low_m: smallest x, y, z.
        high_m: largest x, y, z.
        near_m: smallest distance to the camera's centre.
        far_m: largest distance to it.
    """

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    near_m: float
    far_m: float

    @classmethod
    def of(cls, points: NDArray[np.floating], *, trim: float = 0.0) -> Extent | None:
        """Measure points; None where none was measured.

        Args:
            points: float (…, 3), (0, 0, 0) for no measurement.
            trim: share of the points that is left out at each end of each measure, as outliers of the sensor; 0 takes
                all.
        """
        valid = points[is_measured(points)].astype(np.float64)
        if not len(valid):
            return None
        ends = [trim, 1.0 - trim]
        distances = np.sqrt(np.square(valid).sum(axis=1))
        low, high = np.quantile(valid, ends, axis=0)
        near, far = np.quantile(distances, ends)
        return cls(low_m=tuple(low.tolist()), high_m=tuple(high.tolist()), near_m=float(near), far_m=float(far))

    @classmethod
    def around(cls, extents: Iterable[Extent]) -> Extent:
        """The smallest one that holds all of them; there must be one at least."""
        every = list(extents)
        low = np.min([item.low_m for item in every], axis=0).tolist()
        high = np.max([item.high_m for item in every], axis=0).tolist()
        near, far = min(item.near_m for item in every), max(item.far_m for item in every)
        return cls(low_m=tuple(low), high_m=tuple(high), near_m=near, far_m=far)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class ScanSurvey:
    """What a set of scans holds, each decoded once.

    Attributes:
        sizes: (height, width) in pixels → number of scans.
        conversions: what decoding did to the colours; an empty account where they are not read.
        hashes: content hash of each scan, see ``data.content``, in order.
        extents: how far each scan's points reach, in order.
    """

    sizes: Mapping[Size, int]
    conversions: Conversions
    hashes: tuple[str, ...]
    extents: tuple[Extent, ...]

    def extent(self, num: int) -> Extent:
        """How far the first ``num`` scans reach together."""
        return Extent.around(self.extents[:num])


def survey_scans(paths: Sequence[Path], *, has_rgb: bool, trim: float = 0.0, progress: Progress = silent) -> ScanSurvey:
    """Read every scan once.

    Args:
        paths: scans, named by their cloud or their image.
        has_rgb: whether the colours are read too.
        trim: see ``Extent.of``.
        progress: called after each scan.

    Raises:
        BadInputError: a file cannot be read, cloud and image differ in size, or a scan cannot be one of the others:
            it measured nothing, is not in metres, or lies elsewhere.
        UsageError: ``trim`` is out of its range.
    """
    if not 0.0 <= trim <= MOST_TRIMMED:
        raise UsageError(f"trim is {trim}; expected a share from 0 to {MOST_TRIMMED}.")
    sizes, conversions = Counter[Size](), Conversions(channels=3, of_scans=True)
    hashes, extents = list[str](), list[Extent]()
    for number, path in enumerate(paths, start=1):
        cloud, _ = read_scan(path, has_rgb=False)
        check_in_front(cloud, path)
        image_path = scan_files(path)[1]
        image = decode_with_facts(image_path, channels=3) if has_rgb else None
        if image:
            check_sizes_agree(image_path, image.pixels, cloud)
            conversions.add(image.facts)
        sizes[cloud.shape[0], cloud.shape[1]] += 1
        hashes.append(hash_scan(cloud, image, image_path))
        extents.append(_extent_of(path, cloud, trim=trim))
        progress("scans", number, len(paths))
    _check_alike(paths, extents)
    return ScanSurvey(sizes=sizes, conversions=conversions, hashes=tuple(hashes), extents=tuple(extents))


def _extent_of(path: Path, cloud: NDArray[np.float32], *, trim: float) -> Extent:
    """How far a scan reaches; raise BadInputError where it measured nothing, or is not in metres."""
    extent = Extent.of(cloud, trim=trim)
    if extent is None:
        raise BadInputError(
            f"{scan_files(path)[0]}: holds no measured point; expected x, y, z in metres, (0, 0, 0) where nothing was "
            "measured. Scan the part again, or move the file away."
        )
    if extent.near_m > _FARTHEST_M:
        raise BadInputError(
            f"{scan_files(path)[0]}: its nearest point is {extent.near_m:.4g} m away; expected metres, at most "
            f"{_FARTHEST_M:g}. Divide millimetres by 1000."
        )
    return extent


def _check_alike(paths: Sequence[Path], extents: Sequence[Extent]) -> None:
    """Raise BadInputError, which names the scan, where one would spoil what is learned of all."""
    if not extents:
        return
    low = np.median([extent.low_m for extent in extents], axis=0)
    high = np.median([extent.high_m for extent in extents], axis=0)
    size = max(float((high - low).max()), 1e-9)
    for path, extent in zip(paths, extents, strict=True):
        own_low, own_high = np.array(extent.low_m), np.array(extent.high_m)
        is_elsewhere = (own_low > high + _AWAY * size) | (own_high < low - _AWAY * size)
        if is_elsewhere.any() or (own_high - own_low).max() > _OTHER_SIZE * size:
            raise BadInputError(
                f"{scan_files(path)[0]}: its points reach from {_point(own_low)} to {_point(own_high)} m, those of the "
                f"median scan from {_point(low)} to {_point(high)}. It would stretch what is learned of all: give it "
                "in the same unit and coordinates, leave wrong points out (--set trim=0.001), or move it away."
            )


def _point(point: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in point)})"


def _check_calibration(camera: DivisionCamera, root: Path, clouds: Iterable[NDArray[np.float32]]) -> None:
    """Raise BadInputError where points do not appear at their own pixels."""
    for cloud in clouds:
        measured = is_measured(cloud)
        if not measured.any():
            continue
        rows, columns = camera.project(cloud[measured])
        own_rows, own_columns = np.nonzero(measured)
        miss = float(np.nanmedian(np.hypot(rows - own_rows, columns - own_columns)))
        if not miss <= _MISS_PX:
            raise BadInputError(
                f"{root / CALIBRATION}: by this camera the points of a scan appear {miss:.1f} pixels beside their own, "
                f"in the median; expected at most {_MISS_PX:g}. It is another camera's, or of another size. Give the "
                "right one, or move it away: a pinhole is then fitted to the clouds."
            )


def camera_for(root: Path, paths: Sequence[Path], *, size: Size, frame: Size, fit: Fit) -> tuple[DivisionCamera, bool]:
    """The camera of a category as it sees frames, and whether it is calibrated; else a pinhole fitted to the clouds.

    Args:
        root: the category's folder.
        paths: scans that a camera is fitted to where there is no calibration; those of other sizes are left out.
        size: height and width of most scans, in pixels.
        frame: height and width of the frames, in pixels.
        fit: how scans are brought to frames.

    Raises:
        BadInputError: the calibration cannot be read, or contradicts the clouds.
    """
    calibrated = read_camera(root)
    every = (read_scan(path, has_rgb=False)[0] for path in paths)
    clouds = (cloud for cloud in every if cloud.shape[:2] == size)
    if calibrated is not None:
        seen = camera_of_frames(calibrated, size=size, frame=size, fit="none")
        _check_calibration(seen, root, itertools.islice(clouds, _HELD_AGAINST))
        return camera_of_frames(calibrated, size=size, frame=frame, fit=fit), True
    fitted = fit_pinhole(clouds)
    return camera_of_frames(fitted, size=size, frame=frame, fit=fit), False
