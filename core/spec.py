"""Specifications of tensors and of the preprocessing that stands in the graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import BadInputError, UsageError
from .geometry import Axis
from .size import Size, size_text
from .strict import IN_FILE
from .tiles import Tiles

PRECISIONS = ("fp32", "fp16", "int8")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: One frame (H, W, C) or several (N, H, W, C): what a camera gives, and what a graph takes.
Frames = NDArray[np.uint8 | np.float32]
#: How an image of another size is brought to the frame, see ``data.inputs``.
Fit = Literal["none", "stretch", "pad", "crop"]
FITS: tuple[Fit, ...] = get_args(Fit)
#: What becomes of an image of another size, after "images of another size".
FIT_WORDS: dict[Fit, str] = {
    "none": "are refused",
    "stretch": "are resized to the frame (fit stretch)",
    "pad": "are padded to the frame, larger ones refused (fit pad)",
    "crop": "are cropped to the frame, smaller ones refused (fit crop)",
}
#: What a detector reads of a sample: an image; or of a scan its cloud, with or without the image beside it.
Reads = Literal["image", "cloud", "cloud+rgb"]
_ORDERS = {1: "mono", 3: "rgb"}
_ADVICE = (
    "Give frames as the camera makes them: no resize, no normalisation, RGB; or export again with --frame for the new "
    "camera."
)


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output of a graph.

    Attributes:
        name: name in the graph.
        dtype: NumPy name of the element type, ``"uint8"`` or ``"float32"``.
        shape: sizes; a string is a symbolic dimension (``"N"``, the batch).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def check(self, array: NDArray[Any], *, advice: str) -> None:
        """Raise BadInputError unless ``array`` has this dtype and shape; ``advice`` says in sentences what to do."""
        fits = array.ndim == len(self.shape) and all(
            isinstance(expected, str) or expected == seen
            for expected, seen in zip(self.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            raise BadInputError(
                f"{self.name} is {array.dtype} {array.shape}, but this bundle takes {self.dtype} "
                f"({', '.join(map(str, self.shape))}). {advice}"
            )


@dataclass(frozen=True, kw_only=True)
class FrameRule:
    """How an image becomes a frame, before the graph; ``Preprocessing`` says the same of a bundle.

    Attributes:
        frame_height_px: height H of the frame.
        frame_width_px: width W of the frame.
        frame_channels: 3 (RGB) or 1 (mono).
        fit: how an image of another size is brought to the frame; ``"none"`` refuses it.
        bit_depth: bits that the camera used in 16-bit images, 8 to 16; None takes all 16.
    """

    kind: ClassVar[str] = "image"
    reads: ClassVar[Reads] = "image"
    advice: ClassVar[str] = _ADVICE

    frame_height_px: int
    frame_width_px: int
    frame_channels: int = 3
    fit: Fit = "none"
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        check_fit(self.fit)
        check_bit_depth(self.bit_depth)

    @classmethod
    def of(cls, size: Size, *, fit: Fit = "none", bit_depth: int | None = None) -> FrameRule:
        """The rule for RGB frames of this height and width."""
        return cls(frame_height_px=size[0], frame_width_px=size[1], fit=fit, bit_depth=bit_depth)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return self.frame_height_px, self.frame_width_px, self.frame_channels


def check_fit(fit: str) -> Fit:
    """Return ``fit`` if there is such a rule, else raise UsageError."""
    for known in FITS:
        if fit == known:
            return known
    raise UsageError(
        f"fit (--fit) is {fit!r}; expected {', '.join(FITS[1:])}; leave it out where all images have one size."
    )


def check_bit_depth(bit_depth: int | None) -> None:
    """Raise UsageError unless ``bit_depth`` is None or 8 to 16."""
    if bit_depth is not None and not 8 <= bit_depth <= 16:
        raise UsageError(
            f"bit_depth (--bit-depth) is {bit_depth}; expected 8 to 16: how many bits of a 16-bit image the camera "
            "used, for example 12. Leave it out for 8-bit images, and where the values reach up to 65535."
        )


def check_whole_tiles(resize_px: Size, crop_px: Size) -> None:
    """Raise UsageError where a centre crop would leave stripes between tiles unseen."""
    if resize_px != crop_px:
        raise UsageError(
            f"tiles (--tiles) and a centre crop from {size_text(resize_px)} to {size_text(crop_px)} leave stripes "
            f"between tiles that nobody sees. Crop nothing: --image-size {size_text(crop_px)} alone."
        )


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a frame, and what the graph does to the frame: cut, resize, centre crop, normalise.

    Where there are tiles, every tile is resized and normalised like a frame of its own. The resize is the antialiased
    bilinear one (a triangle filter whose support grows with the down-scale factor), in float32, without rounding to
    grey levels in between. ``fit``, ``bit_depth`` and ``channel_order`` concern images in files, before the graph; see
    ``data.inputs.image``.

    Attributes:
        frame_height_px: height H of the camera frame.
        frame_width_px: width W of the camera frame.
        frame_channels: 3 (RGB) or 1 (mono; repeated to three channels in the graph).
        resize_height_px: height after the resize, of the frame or of each tile.
        resize_width_px: width after the resize, likewise.
        crop_height_px: height after the centre crop (equal to the resize height where nothing is cropped).
        crop_width_px: width after the centre crop.
        mean: per-channel mean on RGB in [0, 1].
        std: per-channel standard deviation on RGB in [0, 1].
        fit: how an image of another size is brought to the frame; ``"none"`` refuses it.
        bit_depth: bits that the camera used in 16-bit images, so that value >> (bit_depth - 8) is the grey level;
            None takes all 16.
        channel_order: ``"rgb"`` or ``"mono"``, the order in which the graph takes channels; it follows from
            ``frame_channels`` where left out.
        tiles: how the frame is cut into tiles; None looks at it as a whole.
    """

    kind: ClassVar[str] = "image"
    reads: ClassVar[Reads] = "image"
    advice: ClassVar[str] = _ADVICE

    frame_height_px: int
    frame_width_px: int
    frame_channels: int
    resize_height_px: int
    resize_width_px: int
    crop_height_px: int
    crop_width_px: int
    mean: tuple[float, float, float] = field(default=IMAGENET_MEAN, metadata={IN_FILE: True})
    std: tuple[float, float, float] = field(default=IMAGENET_STD, metadata={IN_FILE: True})
    fit: Fit = "none"
    bit_depth: int | None = None
    channel_order: str = ""
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        if self.frame_channels not in _ORDERS:
            raise UsageError(f"A frame has {self.frame_channels} channels; expected 3 (RGB) or 1 (mono).")
        if not self.channel_order:
            object.__setattr__(self, "channel_order", _ORDERS[self.frame_channels])
        if self.channel_order != _ORDERS[self.frame_channels]:
            raise UsageError(
                f"channel_order is {self.channel_order!r} for {self.frame_channels} channels; expected "
                f"{_ORDERS[self.frame_channels]!r}."
            )
        check_fit(self.fit)
        check_bit_depth(self.bit_depth)
        if self.crop_height_px > self.resize_height_px or self.crop_width_px > self.resize_width_px:
            raise UsageError(
                f"The crop {self.crop_height_px}x{self.crop_width_px} is larger than the resized image "
                f"{self.resize_height_px}x{self.resize_width_px}; make the crop smaller or the resize larger."
            )
        if min(self.frame_height_px, self.frame_width_px, self.crop_height_px, self.crop_width_px) < 1:
            raise UsageError(f"Every size must be at least 1 pixel: {self}.")
        if self.tiles:
            self.tiles.axes(self.frame_shape[:2])
            check_whole_tiles((self.resize_height_px, self.resize_width_px), (self.crop_height_px, self.crop_width_px))

    @classmethod
    def of(
        cls,
        frame_shape: tuple[int, int, int],
        resize_px: Size,
        crop_px: Size,
        *,
        normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] = (IMAGENET_MEAN, IMAGENET_STD),
        fit: Fit = "none",
        bit_depth: int | None = None,
    ) -> Preprocessing:
        """The preprocessing from sizes.

        Args:
            frame_shape: height, width and channels of a frame.
            resize_px: height and width after the resize.
            crop_px: height and width after the centre crop.
            normalisation: mean and standard deviation per channel, on RGB in [0, 1].
            fit: how an image of another size is brought to the frame.
            bit_depth: bits that the camera used in 16-bit images; None takes all.
        """
        mean, std = normalisation
        return cls(
            frame_height_px=frame_shape[0],
            frame_width_px=frame_shape[1],
            frame_channels=frame_shape[2],
            resize_height_px=resize_px[0],
            resize_width_px=resize_px[1],
            crop_height_px=crop_px[0],
            crop_width_px=crop_px[1],
            mean=mean,
            std=std,
            fit=fit,
            bit_depth=bit_depth,
        )

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return self.frame_height_px, self.frame_width_px, self.frame_channels

    @property
    def frames(self) -> TensorSpec:
        """Specification of the graph's input."""
        return TensorSpec("frames", "uint8", ("N", *self.frame_shape))

    @property
    def each(self) -> Preprocessing:
        """What is done to each tile, as if it were a frame; the whole where there are no tiles."""
        if self.tiles is None:
            return self
        return replace(self, frame_height_px=self.tiles.height_px, frame_width_px=self.tiles.width_px, tiles=None)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns: where the anomaly map lies on the frame; that of tiles covers all of it."""
        if self.tiles:
            frame = self.frame_shape[:2]
            sizes = self.tiles.map_size(frame, (self.crop_height_px, self.crop_width_px))
            return Axis(frame[0], sizes[0], sizes[0]), Axis(frame[1], sizes[1], sizes[1])
        return (
            Axis(self.frame_height_px, self.resize_height_px, self.crop_height_px),
            Axis(self.frame_width_px, self.resize_width_px, self.crop_width_px),
        )

    @property
    def content(self) -> str:
        """What a frame holds, in words."""
        return f"{'RGB' if self.frame_channels == 3 else 'mono'} as the camera gives them"

    def summary_lines(self) -> tuple[str, ...]:
        """What happens to an image before the graph, and in it."""
        return (
            f"Images in files: of another size {FIT_WORDS[self.fit]}; 16-bit images hold {self.bit_depth or 16} bits.",
            f"In the graph: {self._tiling()}antialiased resize to {self.resize_height_px}x{self.resize_width_px}, "
            f"centre crop to {self.crop_height_px}x{self.crop_width_px}, mean {self.mean}, std {self.std}.",
        )

    def _tiling(self) -> str:
        """How the frame is cut, at the head of what is done to each tile; "" where it is not."""
        if self.tiles is None:
            return ""
        rows, columns = self.tiles.axes(self.frame_shape[:2])
        return f"{rows.num} x {columns.num} tiles of {self.tiles.words()}, the score is the largest of theirs; of each "

    def differences(self, trained: FrameRule) -> tuple[str, ...]:
        """How these frames differ from those that training saw, in sentences."""
        notes = []
        size, seen = self.frame_shape[:2], trained.frame_shape[:2]
        if self.tiles and self.tiles.size == seen:
            notes.append(
                f"Frames are {size_text(size)} (height x width), looked at in tiles of {size_text(seen)}. Training saw "
                "the centre of each image in that size alone: what never lies there is new to the detector. The "
                "threshold is that of whole held-out frames."
            )
        elif size != seen:
            notes.append(
                f"Frames are {size_text(size)} (height x width), training saw {size_text(seen)}: images are brought "
                f"to them with fit {self.fit}."
            )
        if self.frame_channels < trained.frame_channels:
            notes.append("Frames are mono, repeated to three channels in the graph; training read its images as RGB.")
        return tuple(notes)
