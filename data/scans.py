"""A look at the training scans before any work: sizes, how far they reach, and the camera that saw them."""

from __future__ import annotations

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
from .files import scan_files
from .inputs.scan import check_sizes_agree, is_measured, read_scan

_MOST_TRIMMED = 0.2


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
        extents: how far each scan's points reach, in order; None of one without a measurement.
    """

    sizes: Mapping[Size, int]
    conversions: Conversions
    hashes: tuple[str, ...]
    extents: tuple[Extent | None, ...]

    def extent(self, num: int) -> Extent:
        """How far the first ``num`` scans reach together.

        Raises:
            BadInputError: none of them holds a measurement.
        """
        measured = [item for item in self.extents[:num] if item]
        if not measured:
            raise BadInputError(
                f"None of the {num} training scans holds a measured point. Expected x, y, z in metres in xyz/NNN.tiff, "
                "(0, 0, 0) where nothing was measured."
            )
        return Extent.around(measured)


def survey_scans(paths: Sequence[Path], *, has_rgb: bool, trim: float = 0.0, progress: Progress = silent) -> ScanSurvey:
    """Read every scan once.

    Args:
        paths: scans, named by their cloud or their image.
        has_rgb: whether the colours are read too.
        trim: see ``Extent.of``.
        progress: called after each scan.

    Raises:
        BadInputError: a file cannot be read, or cloud and image differ in size.
        UsageError: ``trim`` is out of its range.
    """
    if not 0.0 <= trim <= _MOST_TRIMMED:
        raise UsageError(f"trim is {trim}; expected a share from 0 to {_MOST_TRIMMED}.")
    sizes, conversions = Counter[Size](), Conversions(channels=3)
    hashes, extents = list[str](), list[Extent | None]()
    for number, path in enumerate(paths, start=1):
        cloud, _ = read_scan(path, has_rgb=False)
        image_path = scan_files(path)[1]
        image = decode_with_facts(image_path, channels=3) if has_rgb else None
        if image:
            check_sizes_agree(image_path, image.pixels, cloud)
            conversions.add(image.facts)
        sizes[cloud.shape[0], cloud.shape[1]] += 1
        hashes.append(hash_scan(cloud, image, image_path))
        extents.append(Extent.of(cloud, trim=trim))
        progress("scans", number, len(paths))
    return ScanSurvey(sizes=sizes, conversions=conversions, hashes=tuple(hashes), extents=tuple(extents))


def camera_for(root: Path, paths: Sequence[Path], *, size: Size, frame: Size, fit: Fit) -> tuple[DivisionCamera, bool]:
    """The camera of a category as it sees frames, and whether it is calibrated; else a pinhole fitted to the clouds.

    Args:
        root: the category's folder.
        paths: scans that a camera is fitted to where there is no calibration; those of other sizes are left out.
        size: height and width of most scans, in pixels.
        frame: height and width of the frames, in pixels.
        fit: how scans are brought to frames.
    """
    calibrated = read_camera(root)
    if calibrated is not None:
        return camera_of_frames(calibrated, size=size, frame=frame, fit=fit), True
    clouds = (read_scan(path, has_rgb=False)[0] for path in paths)
    fitted = fit_pinhole(cloud for cloud in clouds if cloud.shape[:2] == size)
    return camera_of_frames(fitted, size=size, frame=frame, fit=fit), False
