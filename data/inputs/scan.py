"""Organised scans: x, y, z of every pixel of a camera, with RGB beside it where there is RGB.

A scan is named by its cloud or by its image, whose folders stand side by side: ``xyz/000.tiff`` and ``rgb/000.png``,
as in MVTec 3D-AD. A cloud in any other folder has its image beside it, as ``000.png``; ``data.files`` says which other
suffixes are found.

A point counts as no measurement where it is (0, 0, 0) or holds NaN or infinity; it becomes (0, 0, 0).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError, UsageError
from ...core.inputs import DepthPreprocessing, VoxelPreprocessing
from ...core.size import size_text
from ...core.spec import Frames
from ..decoding.conversions import Conversions, ImageFacts
from ..decoding.decode import decode_with_facts
from ..decoding.xyz import read_xyz
from ..files import scan_files
from .base import AbstractInput, View, nearest_resize

#: How people are shown that nothing was measured: neither a grey nor a colour of a heat map.
UNMEASURED_RGB = (40, 74, 140)
_LIGHT, _DARK = 190.0, 40.0
_CLOUD_DIMS, _POINT = 3, 3
#: How many times as near or as far as every training scan a scan is that must have another unit.
_FAR_OFF = 3.0

ScanSpec_co = TypeVar("ScanSpec_co", bound=DepthPreprocessing | VoxelPreprocessing, covariant=True)


def read_scan(path: Path, *, has_rgb: bool) -> tuple[NDArray[np.float32], ImageFacts | None]:
    """Read a scan at its own size.

    Args:
        path: the cloud or the image of the scan.
        has_rgb: whether the colours are read too.

    Returns:
        float32 (h, w, 3), x, y, z in metres, (0, 0, 0) for no measurement; with RGB (h, w, 6), colours from 0 to 255.
        With them the facts about the image's file, None without RGB.

    Raises:
        BadInputError: a file cannot be read, or cloud and image differ in size.
    """
    cloud_path, image_path = _files_there(path, has_rgb=has_rgb)
    points = read_xyz(cloud_path)
    points[~np.isfinite(points).all(axis=2)] = 0.0
    if not has_rgb:
        return points, None
    image = decode_with_facts(image_path, channels=3)
    check_sizes_agree(image_path, image.pixels, points)
    return np.concatenate([points, image.pixels.astype(np.float32)], axis=2), image.facts


def _files_there(path: Path, *, has_rgb: bool) -> tuple[Path, Path]:
    """``scan_files``; of the two the one that nobody named is looked for here, so that its lack is said in words."""
    cloud_path, image_path = scan_files(path)
    if path != cloud_path and path.is_file() and not cloud_path.is_file():
        raise BadInputError(
            f"{path}: there is no cloud beside this image; expected {cloud_path}. Scans are read here (docs/data.md); "
            "a detector of images needs no cloud."
        )
    if has_rgb and path != image_path and path.is_file() and not image_path.is_file():
        raise BadInputError(
            f"{path}: there is no image beside this cloud; expected {image_path}. The colours of scans are read here "
            "too (docs/data.md); a detector without rgb needs no image."
        )
    return cloud_path, image_path


def check_sizes_agree(image_path: Path, image: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
    """Raise BadInputError unless a scan's image (h, w, 3) has the size of its cloud (h, w, 3)."""
    if image.shape[:2] != points.shape[:2]:
        raise BadInputError(
            f"{image_path}: the image is {size_text(image.shape[:2])} (height x width), its cloud "
            f"{scan_files(image_path)[0].name} {size_text(points.shape[:2])}; they must be equal. Pair the files anew."
        )


def is_measured(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points are measurements: float (…, 3) → bool (…)."""
    return np.asarray((points != 0.0).any(axis=-1))


def check_in_front(points: NDArray[np.floating], path: Path | None = None) -> None:
    """Raise BadInputError where most measured points (…, 3) lie behind the camera, at a z below 0.

    Args:
        points: float (…, 3), (0, 0, 0) for no measurement.
        path: a file of the scan, whose cloud the error names; None for a scan in memory.
    """
    behind, measured = np.count_nonzero(points[..., 2] < 0.0), np.count_nonzero(is_measured(points))
    if 2 * behind > measured:
        where = scan_files(path)[0] if path else "xyz"
        raise BadInputError(
            f"{where}: {behind} of {measured} measured points have a z below 0, behind the camera. Give x, y, z in "
            "metres in the camera's coordinates, z pointing away from it."
        )


def grey_of(values: NDArray[np.float32], *, near: float, far: float) -> NDArray[np.uint8]:
    """Depths for people: near is light grey, far is dark grey, no measurement (0) is blue.

    Neither is white nor black, so that the colours of a heat map stand out.

    Args:
        values: float32 (H, W) in metres.
        near: depth in metres that becomes light grey, as everything nearer does.
        far: depth in metres that becomes dark grey, as everything farther does; at least ``near``.

    Returns:
        uint8 (H, W, 3).
    """
    place = np.clip((values.astype(np.float64) - near) / max(far - near, 1e-12), 0.0, 1.0)
    grey = np.rint(_LIGHT - (_LIGHT - _DARK) * place)[:, :, None]
    return np.where(values[:, :, None] == 0.0, UNMEASURED_RGB, grey).astype(np.uint8)


class AbstractScanInput(AbstractInput[ScanSpec_co]):
    """An input that is read from scans: float32 frames in which 0 is no measurement.

    ``stretch`` takes the nearest pixel, so that nothing is invented between a measurement and a hole; ``pad`` adds 0.
    """

    @property
    def dtype(self) -> str:
        """NumPy name of a frame's element type."""
        return "float32"

    def conversions(self) -> Conversions:
        """An empty account of what decoding does to the colours of scans."""
        return Conversions(channels=3, of_scans=True)

    @property
    def views(self) -> tuple[View, ...]:
        """The colours where there are some, and the depth."""
        return ("rgb", "depth") if self.spec.has_rgb else ("depth",)

    @final
    def as_rgb(self, frame: Frames, view: View | None = None) -> NDArray[np.uint8]:
        """A frame for people: its colours, or its depth as grey, see ``grey_of``."""
        if self.check_view(view) == "rgb":
            return np.rint(np.clip(frame[:, :, -_POINT:], 0.0, 255.0)).astype(np.uint8)
        near, far = self.depth_range_m
        return grey_of(self.depths(frame), near=near, far=far)

    @final
    def view_words(self, view: View) -> str:
        """``"RGB"``, or what grey and blue stand for."""
        if view == "rgb":
            return "RGB"
        near, far = (f"{1000.0 * end:.1f} mm" for end in self.depth_range_m)
        return f"depth from {near} (light) to {far} (dark), blue where nothing was measured"

    @property
    @abstractmethod
    def depth_range_m(self) -> tuple[float, float]:
        """The nearest and the farthest depth of the training set, in metres."""

    @abstractmethod
    def depths(self, frame: Frames) -> NDArray[np.float32]:
        """The depth of each pixel in metres, 0 for no measurement: (H, W, C) → float32 (H, W)."""

    @final
    def check_seen(self, frame: Frames) -> None:
        """Raise BadInputError where nothing was measured, or nothing at depths like those learned.

        Where a pixel without a measurement is no anomaly, a scan without any would pass as good.
        """
        depths = self.depths(frame)
        measured = depths[depths != 0.0]
        if not measured.size:
            raise BadInputError(
                "the scan holds no measured point: x, y, z are 0 or not finite everywhere. Nothing of the part was "
                "seen; check the sensor, or the file."
            )
        near, far = self.depth_range_m
        if not ((measured > near / _FAR_OFF) & (measured < far * _FAR_OFF)).any():
            raise BadInputError(
                f"the scan's depths are {measured.min():.4g} to {measured.max():.4g} m, those of the training scans "
                f"were {near:.4g} to {far:.4g} m. Give x, y, z in metres, in the coordinates of the training scans."
            )

    @abstractmethod
    def of_cloud(self, cloud: NDArray[np.float32]) -> Frames:
        """What a frame holds of a cloud: float32 (h, w, 3 or 6) as ``read_scan`` gives it → (h, w, C)."""

    def frame_of(self, xyz: NDArray[np.floating] | None, rgb: NDArray[np.uint8] | None) -> Frames:
        """Return the frame of a scan in memory.

        Args:
            xyz: float32 or float64 (H, W, 3), x, y, z in metres; (0, 0, 0), NaN or infinity for no measurement.
            rgb: uint8 (H, W, 3) of the same size; None where the input has no colours.

        Raises:
            UsageError: there are no points.
            BadInputError: an array has another shape or dtype, or colours are missing or not wanted.
        """
        if xyz is None:
            seen = "Neither a frame nor a scan was given" if rgb is None else "rgb was given without xyz"
            expected = "xyz and rgb" if self.spec.has_rgb else "xyz alone"
            raise UsageError(f"{seen}; the bundle takes scans: give a frame, or {expected}.")
        points = np.asarray(xyz)
        if points.ndim != _CLOUD_DIMS or points.shape[2] != _POINT or points.dtype.kind != "f":
            raise BadInputError(
                f"xyz is {points.dtype} {points.shape}; expected float32 (H, W, 3): x, y, z in metres of a pixel."
            )
        points = np.where(np.isfinite(points).all(axis=2, keepdims=True), points, 0.0)
        if points.size and (largest := np.abs(points).max()) > np.finfo(np.float32).max:
            raise BadInputError(
                f"xyz holds {largest:.4g} m, which is no float32. Give metres; NaN where nothing was measured."
            )
        points = points.astype(np.float32)
        check_in_front(points)
        if not self.spec.has_rgb:
            if rgb is not None:
                raise BadInputError("rgb was given, and the bundle takes points alone. Leave it out.")
            return self.of_cloud(points)
        if rgb is None:
            raise BadInputError("The bundle takes colours beside the points. Give rgb too, uint8 (H, W, 3).")
        colours = np.asarray(rgb)
        if colours.dtype != np.uint8 or colours.shape != points.shape:
            raise BadInputError(
                f"rgb is {colours.dtype} {colours.shape}; expected uint8 {points.shape}, a colour for every point."
            )
        return self.of_cloud(np.concatenate([points, colours.astype(np.float32)], axis=2))

    def _decode(self, path: Path) -> tuple[Frames, ImageFacts | None]:
        scan, facts = read_scan(path, has_rgb=self.spec.has_rgb)
        check_in_front(scan[..., :_POINT], path)
        return self.of_cloud(scan), facts

    def _stretch(self, image: Frames) -> Frames:
        return np.asarray(nearest_resize(image, self.frame_size), np.float32)

    def _pad(self, image: Frames, widths: tuple[tuple[int, int], ...]) -> Frames:
        return np.pad(image, widths)
