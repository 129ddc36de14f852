"""The camera of an organised point cloud: HALCON's division model, from points to pixels and from pixels to rays.

Pixels are counted as HALCON counts them: whole numbers are centres, (0, 0) is the centre of the first pixel. (The
positions of ``core.geometry`` lie half a pixel higher.) Lenz, "Linsenfehlerkorrigierte Eichung von Halbleiterkameras",
1987, has the division model; HALCON's reference calls its camera ``area_scan_division``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from .errors import BadInputError, UsageError
from .size import Size, size_text
from .words import counted

_FEWEST_POINTS = 8


@final
@dataclass(frozen=True, kw_only=True)
class DivisionCamera:
    """A camera in the origin that looks along z, x to the right and y downwards, whose lens may distort.

    With (u, v) = f (x, y) / z, undistorted and in metres on the sensor, the lens shows (ũ, ṽ) for which
    (u, v) = (ũ, ṽ) / (1 + κ (ũ² + ṽ²)).

    Attributes:
        focus_m: focal length f, in metres.
        kappa_per_m2: distortion κ, in 1/m²; 0 for a pinhole.
        pixel_width_m: distance of two columns on the sensor, in metres.
        pixel_height_m: distance of two rows on the sensor, in metres.
        centre_column_px: column through which the axis goes.
        centre_row_px: row through which the axis goes.
        width_px: columns of an image.
        height_px: rows of an image.

    Raises:
        UsageError: a length is not positive, or the distortion is so strong that two rays meet one pixel.
    """

    focus_m: float
    kappa_per_m2: float
    pixel_width_m: float
    pixel_height_m: float
    centre_column_px: float
    centre_row_px: float
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        lengths = (self.focus_m, self.pixel_width_m, self.pixel_height_m)
        others = (self.kappa_per_m2, self.centre_column_px, self.centre_row_px)
        if not all(map(math.isfinite, (*lengths, *others))) or min(*lengths, *self.size) <= 0:
            raise UsageError(
                f"The camera has focus {self.focus_m} m, pixels of {self.pixel_width_m} x {self.pixel_height_m} m and "
                f"images of {self.height_px}x{self.width_px} (height x width); expected finite values above 0."
            )
        # The model is one to one where |κ| r² < 1: beyond it rays turn back.
        largest = max(
            self._radius2(row, column) for row in (0, self.height_px - 1) for column in (0, self.width_px - 1)
        )
        if abs(self.kappa_per_m2) * largest < 1.0:
            return
        row, column = self.centre_row_px, self.centre_column_px
        if not (0 <= row < self.height_px and 0 <= column < self.width_px):
            raise UsageError(
                f"The camera's axis goes through column {column:.6g} and row {row:.6g}, outside of its images of "
                f"{size_text(self.size)} (height x width), where two pixels have one ray at a distortion kappa of "
                f"{self.kappa_per_m2} 1/m2. Check cx, cy and kappa."
            )
        raise UsageError(
            f"The camera's distortion kappa is {self.kappa_per_m2} 1/m2; expected less than {1.0 / largest:.6g} in "
            "size, so that each pixel of its images has a ray of its own. Check kappa, sx, sy and the sizes."
        )

    @property
    def size(self) -> Size:
        """Height and width of an image in pixels."""
        return self.height_px, self.width_px

    def project(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where points appear.

        Args:
            points: float (…, 3): x, y, z in metres.

        Returns:
            Rows and columns, float64 (…), which may lie outside of the image; NaN for a point that no pixel shows,
            because it does not lie in front of the camera or its ray misses the lens's model.
        """
        x, y, z = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        depth = np.where(z > 0.0, z, np.nan)
        u, v = self.focus_m * x / depth, self.focus_m * y / depth
        room = 1.0 - 4.0 * self.kappa_per_m2 * (u * u + v * v)
        shrink = 2.0 / (1.0 + np.sqrt(np.where(room >= 0.0, room, np.nan)))
        rows = v * shrink / self.pixel_height_m + self.centre_row_px
        columns = u * shrink / self.pixel_width_m + self.centre_column_px
        return np.asarray(rows), np.asarray(columns)

    def unproject(self, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> NDArray[np.float64]:
        """The rays of pixels: undoes ``project``, save for the distance.

        Args:
            rows: float (…), of the image or near it.
            columns: float (…), likewise.

        Returns:
            float64 (…, 3): the ray's point at z = 1; times z it is the point at that depth.
        """
        v = (np.asarray(rows, np.float64) - self.centre_row_px) * self.pixel_height_m
        u = (np.asarray(columns, np.float64) - self.centre_column_px) * self.pixel_width_m
        scale = self.focus_m * (1.0 + self.kappa_per_m2 * (u * u + v * v))
        return np.stack([u / scale, v / scale, np.ones_like(u)], axis=-1)

    def rays(self) -> NDArray[np.float64]:
        """The ray of every pixel of the image: float64 (H, W, 3), see ``unproject``."""
        rows, columns = np.mgrid[: self.height_px, : self.width_px].astype(np.float64)
        return self.unproject(rows, columns)

    def resized(self, size: Size) -> DivisionCamera:
        """The camera whose images of another size show the same field of view.

        Args:
            size: height and width in pixels.
        """
        height, width = size
        tall, wide = height / self.height_px, width / self.width_px
        return replace(
            self,
            pixel_width_m=self.pixel_width_m / wide,
            pixel_height_m=self.pixel_height_m / tall,
            centre_column_px=(self.centre_column_px + 0.5) * wide - 0.5,
            centre_row_px=(self.centre_row_px + 0.5) * tall - 0.5,
            width_px=width,
            height_px=height,
        )

    def moved(self, size: Size, *, top_px: int, left_px: int) -> DivisionCamera:
        """The camera whose images are cut out of this one's, or have this one's in them, unscaled.

        Args:
            size: height and width in pixels.
            top_px: rows by which the first one lies below this image's first one; negative where it lies above.
            left_px: columns by which the first one lies to the right of this image's first one.
        """
        return replace(
            self,
            centre_column_px=self.centre_column_px - left_px,
            centre_row_px=self.centre_row_px - top_px,
            width_px=size[1],
            height_px=size[0],
        )

    def _radius2(self, row: float, column: float) -> float:
        """Squared distance of a pixel from the axis, on the sensor, in m²."""
        v = (row - self.centre_row_px) * self.pixel_height_m
        u = (column - self.centre_column_px) * self.pixel_width_m
        return u * u + v * v


def fit_pinhole(clouds: Iterable[NDArray[np.floating]]) -> DivisionCamera:
    """The camera without distortion that comes nearest to organised clouds, by least squares along each axis.

    Our guess for a data set without a calibration: what the distortion moves stays as an error, at most a few pixels
    for the lenses of MVTec 3D-AD.

    Args:
        clouds: float (H, W, 3) each, of one size; x, y, z in metres, (0, 0, 0) for no measurement.

    Raises:
        BadInputError: there is no cloud, they differ in size, or hold too few points for a line along each axis.
    """
    sums, size = np.zeros((2, 5)), None
    for cloud in clouds:
        if size not in (None, cloud.shape[:2]):
            raise BadInputError(
                f"A cloud is {size_text(cloud.shape[:2])}, others {size_text(size)}; expected one size."
            )
        size = cloud.shape[0], cloud.shape[1]
        rows, columns = np.nonzero(cloud[..., 2] > 0.0)
        points = cloud[rows, columns].astype(np.float64)
        for axis, pixels in enumerate((columns, rows)):
            slope = points[:, axis] / points[:, 2]
            sums[axis] += len(slope), slope.sum(), pixels.sum(), slope @ slope, slope @ pixels
    num, of_slope, of_pixel, squares, products = sums.T
    spread = num * squares - of_slope**2
    if size is None or num[0] < _FEWEST_POINTS or not (spread > 0.0).all():
        raise BadInputError(
            f"The clouds hold {counted(int(num[0]), 'point')} in all; a camera is fitted to {_FEWEST_POINTS} at "
            f"least, not all in "
            "one row or column. Put the data set's calibration/camera_parameters.json beside its splits."
        )
    per_slope = (num * products - of_slope * of_pixel) / spread
    centre = (of_pixel - per_slope * of_slope) / num
    return DivisionCamera(
        focus_m=1.0,
        kappa_per_m2=0.0,
        pixel_width_m=float(1.0 / per_slope[0]),
        pixel_height_m=float(1.0 / per_slope[1]),
        centre_column_px=float(centre[0]),
        centre_row_px=float(centre[1]),
        width_px=size[1],
        height_px=size[0],
    )
