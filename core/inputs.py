"""Specifications of depth images and of voxels, and the reader of a manifest's ``preprocessing``.

A specification is plain values. What reads, checks and shows its frames stands in ``data.inputs``, its part of the
graph in ``detectors.nn``; each finds its own by ``kind``. Both kinds come from an organised point cloud: x, y, z in
metres for every pixel of a camera, z forward, with RGB beside it where ``has_rgb``. A point that is (0, 0, 0) or not
finite is no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from .camera import DivisionCamera
from .errors import UsageError
from .geometry import Axis
from .size import Size, size_text
from .spec import FIT_WORDS, Fit, Preprocessing, Reads, TensorSpec, check_fit
from .strict import read_as

#: What a depth image measures: the distance to the camera's centre, or along its axis.
Quantity = Literal["range", "z"]
#: What a pixel without a measurement becomes, see ``DepthPreprocessing``.
Holes = Literal["zero", "near"]
_NUM_COLOURS = 3
#: Cells are numbered in float32, which holds whole numbers up to here.
_MAX_CELLS = 2**24


def reads_of_scans(*, has_rgb: bool) -> Reads:
    """What is read of a scan by whom has its colours, and by whom has not."""
    return "cloud+rgb" if has_rgb else "cloud"


def _advice(content: str, size: Size, *, has_rgb: bool) -> str:
    """What to do where a frame does not fit, for whom holds a scan in a program."""
    colours, given = (", then RGB from 0 to 255", "xyz=points, rgb=image") if has_rgb else ("", "xyz=points")
    return (
        f"A frame holds {content}, 0 where nothing was measured{colours}, of {size_text(size)} pixels (height x width) "
        f"as in training: line.inspect({given}) makes it of a scan. For scans of another size train again."
    )


@final
@dataclass(frozen=True, kw_only=True)
class DepthPreprocessing:
    """How a point cloud becomes a depth image, and what the graph does to it: resize, scale to −1 … 1.

    The graph takes the nearest pixel's depth, so that a measurement is never mixed with a hole; RGB is resized as an
    image is, antialiased, and scaled to 0 … 1.

    Attributes:
        frame_height_px: height H of the camera's frame.
        frame_width_px: width W of the camera's frame.
        resize_height_px: height after the resize.
        resize_width_px: width after the resize.
        quantity: ``"range"`` is sqrt(x² + y² + z²), ``"z"`` is z.
        near_m: smallest depth of the training set's measured pixels, in metres; becomes −1.
        far_m: largest depth of those pixels, in metres; becomes 1.
        has_rgb: whether each pixel has RGB beside its depth.
        holes: ``"zero"`` scales the 0 of a pixel without a measurement like any depth (the MVTec 3D-AD paper's rule),
            ``"near"`` makes it −1.
        fit: how a scan of another size is brought to the frame; ``"none"`` refuses it.
        kind: ``"depth"``.
    """

    frame_height_px: int
    frame_width_px: int
    resize_height_px: int
    resize_width_px: int
    quantity: Quantity
    near_m: float
    far_m: float
    has_rgb: bool = False
    holes: Holes = "zero"
    fit: Fit = "none"
    kind: Literal["depth"] = "depth"

    def __post_init__(self) -> None:
        check_fit(self.fit)
        _check_sizes(self.frame_height_px, self.frame_width_px, self.resize_height_px, self.resize_width_px)
        _check_word("quantity", self.quantity, get_args(Quantity))
        _check_word("holes", self.holes, get_args(Holes))
        if not (math.isfinite(self.near_m) and math.isfinite(self.far_m) and self.near_m < self.far_m):
            raise UsageError(
                f"near_m is {self.near_m} and far_m {self.far_m}; expected finite metres, the nearer one smaller. "
                "Measure them on the training set's valid pixels."
            )

    @property
    def reads(self) -> Reads:
        """What is read of a scan, and what it is known by."""
        return reads_of_scans(has_rgb=self.has_rgb)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame: depth, then RGB."""
        return self.frame_height_px, self.frame_width_px, 1 + _NUM_COLOURS * self.has_rgb

    @property
    def frames(self) -> TensorSpec:
        """Specification of the graph's input: depth in metres, 0 for none; RGB from 0 to 255."""
        return TensorSpec("frames", "float32", ("N", *self.frame_shape))

    @property
    def advice(self) -> str:
        """What to do where a frame does not fit."""
        return _advice(f"depth in metres ({self.quantity})", self.frame_shape[:2], has_rgb=self.has_rgb)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns: where the anomaly map lies on the frame."""
        return (
            Axis(self.frame_height_px, self.resize_height_px, self.resize_height_px),
            Axis(self.frame_width_px, self.resize_width_px, self.resize_width_px),
        )

    @property
    def content(self) -> str:
        """What a frame holds, in words."""
        return f"{self.quantity} in metres, 0 where nothing was measured{', and RGB' if self.has_rgb else ''}"

    def summary_lines(self) -> tuple[str, ...]:
        """What happens to a scan before the graph, and in it."""
        holes = "0 is scaled likewise" if self.holes == "zero" else "0 becomes -1"
        return (
            f"Scans in files: of another size {FIT_WORDS[self.fit]}.",
            f"In the graph: nearest resize to {self.resize_height_px}x{self.resize_width_px}; {self.near_m} to "
            f"{self.far_m} m becomes -1 to 1, {holes}.",
        )


@final
@dataclass(frozen=True, kw_only=True)
class VoxelPreprocessing:
    """How a point cloud becomes a grid of cubic cells.

    The grid is a cube around the centre of a box, as long as the box's longest side; a point outside counts in the
    nearest cell. Which cell a point lies in is decided on the host, since one rounding more in an engine would move it;
    the graph fills the cells.

    Attributes:
        frame_height_px: height H of the camera's frame.
        frame_width_px: width W of the camera's frame.
        box_low_m: smallest x, y, z of the training set's measured points, in metres.
        box_high_m: largest x, y, z of those points, in metres.
        num_cells: cells G along each edge of the grid.
        has_rgb: whether each point has RGB; then a cell holds the mean colour of its points, else 1.
        fit: how a scan of another size is brought to the frame; ``"none"`` refuses it.
        kind: ``"voxel"``.
    """

    frame_height_px: int
    frame_width_px: int
    box_low_m: tuple[float, float, float]
    box_high_m: tuple[float, float, float]
    num_cells: int = 64
    has_rgb: bool = False
    fit: Fit = "none"
    kind: Literal["voxel"] = "voxel"

    def __post_init__(self) -> None:
        check_fit(self.fit)
        _check_sizes(self.frame_height_px, self.frame_width_px)
        if not (self.num_cells >= 1 and self.num_cells**3 <= _MAX_CELLS):
            raise UsageError(f"num_cells is {self.num_cells}; expected 1 to {round(_MAX_CELLS ** (1 / 3))}.")
        ends = (*self.box_low_m, *self.box_high_m)
        is_box = all(low <= high for low, high in zip(self.box_low_m, self.box_high_m, strict=True))
        if not (all(map(math.isfinite, ends)) and is_box and self.edge_m > 0):
            raise UsageError(
                f"The box reaches from {self.box_low_m} to {self.box_high_m}; expected finite metres, each end at "
                "least its beginning, and one side longer than 0. Measure it on the training set's valid points."
            )

    @property
    def edge_m(self) -> float:
        """Edge of the grid in metres: the longest side of the box."""
        return max(high - low for low, high in zip(self.box_low_m, self.box_high_m, strict=True))

    @property
    def origin_m(self) -> NDArray[np.float64]:
        """Corner of the grid with the smallest x, y, z, in metres: float64 (3,)."""
        return np.asarray((np.array(self.box_low_m) + np.array(self.box_high_m) - self.edge_m) / 2.0)

    @property
    def reads(self) -> Reads:
        """What is read of a scan, and what it is known by."""
        return reads_of_scans(has_rgb=self.has_rgb)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame: x, y, z, then RGB."""
        return self.frame_height_px, self.frame_width_px, 3 + _NUM_COLOURS * self.has_rgb

    @property
    def frames(self) -> TensorSpec:
        """Specification of the graph's input: each pixel's cell, −1 for none, and the mean colour of that cell.

        Cell (z · G + y) · G + x, counted from 0; colours from 0 to 1.
        """
        channels = 1 + _NUM_COLOURS * self.has_rgb
        return TensorSpec("cells", "float32", ("N", self.frame_height_px, self.frame_width_px, channels))

    @property
    def advice(self) -> str:
        """What to do where a frame does not fit."""
        return _advice("x, y, z in metres", self.frame_shape[:2], has_rgb=self.has_rgb)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns: the anomaly map covers the frame, pixel by pixel."""
        height, width = self.frame_height_px, self.frame_width_px
        return Axis(height, height, height), Axis(width, width, width)

    @property
    def content(self) -> str:
        """What a frame holds, in words."""
        colour = " and its mean RGB" if self.has_rgb else ""
        return f"each pixel's cell, -1 where nothing was measured,{colour} from x, y, z in metres"

    def summary_lines(self) -> tuple[str, ...]:
        """What happens to a scan before the graph, and in it."""
        return (
            f"Scans in files: of another size {FIT_WORDS[self.fit]}.",
            f"Before the graph: {self.num_cells}^3 cells around the box from {self.box_low_m} to {self.box_high_m} m, "
            "see FORMAT.md.",
        )


@final
@dataclass(frozen=True, kw_only=True)
class ScanRule:
    """How training scans become what a detector takes, and what saw them.

    Attributes:
        spec: specification of the frames, measured on the training set.
        camera: the camera, as it sees frames.
        is_calibrated: whether the data set says which camera it was; else a pinhole was fitted to its clouds.
    """

    spec: DepthPreprocessing | VoxelPreprocessing
    camera: DivisionCamera
    is_calibrated: bool


#: What a manifest's ``preprocessing`` may be.
InputSpec = Preprocessing | DepthPreprocessing | VoxelPreprocessing


def parse_preprocessing(raw: Mapping[str, Any]) -> InputSpec:
    """Read a specification from the JSON values of ``dataclasses.asdict``; that of images has no ``kind`` there.

    Raises:
        ValueError: an unknown kind, a field that is missing, unknown or of another type, or values that cannot be.
    """
    spec: InputSpec = read_as(InputSpec, raw, where="preprocessing")  # type: ignore[arg-type]
    return spec


def _check_sizes(*sizes_px: int) -> None:
    if min(sizes_px) < 1:
        raise UsageError(f"Sizes are {', '.join(map(str, sizes_px))} pixels; expected at least 1 each.")


def _check_word(name: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise UsageError(f"{name} is {word!r}; expected {' or '.join(known)}.")
