"""Specifications of tensors and of the preprocessing that stands in the graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BadInputError, UsageError

PRECISIONS = ("fp32", "fp16", "int8")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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

    def check(self, array: NDArray[Any]) -> None:
        """Raise BadInputError unless ``array`` has this dtype and shape."""
        fits = array.ndim == len(self.shape) and all(
            isinstance(want, str) or want == got for want, got in zip(self.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            raise BadInputError(
                f"{self.name} is {array.dtype} {array.shape}, but this bundle takes {self.dtype} "
                f"({', '.join(map(str, self.shape))}). Give frames as the camera makes them: no resize, "
                "no normalisation, RGB; or export again with --frame for the new camera."
            )


@dataclass(frozen=True)
class Preprocessing:
    """What the graph does to a camera frame before the backbone: resize, centre crop, normalise.

    The resize is the antialiased bilinear one (a triangle filter whose support grows with the down-scale
    factor), in float32, without rounding to grey levels in between.

    Attributes:
        frame_height_px: height H of the camera frame.
        frame_width_px: width W of the camera frame.
        frame_channels: 3 (RGB) or 1 (mono; repeated to three channels in the graph).
        resize_height_px: height after the resize.
        resize_width_px: width after the resize.
        crop_height_px: height after the centre crop (equal to the resize height where nothing is cropped).
        crop_width_px: width after the centre crop.
        mean: per-channel mean on RGB in [0, 1].
        std: per-channel standard deviation on RGB in [0, 1].
    """

    frame_height_px: int
    frame_width_px: int
    frame_channels: int
    resize_height_px: int
    resize_width_px: int
    crop_height_px: int
    crop_width_px: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.frame_channels not in (1, 3):
            raise UsageError(f"A frame has {self.frame_channels} channels; expected 3 (RGB) or 1 (mono).")
        if self.crop_height_px > self.resize_height_px or self.crop_width_px > self.resize_width_px:
            raise UsageError(
                f"The crop {self.crop_height_px}x{self.crop_width_px} is larger than the resized image "
                f"{self.resize_height_px}x{self.resize_width_px}; make the crop smaller or the resize larger."
            )
        if min(self.frame_height_px, self.frame_width_px, self.crop_height_px, self.crop_width_px) < 1:
            raise UsageError(f"Every size must be at least 1 pixel: {self}.")

    @property
    def frames(self) -> TensorSpec:
        """Specification of the graph's input."""
        shape = ("N", self.frame_height_px, self.frame_width_px, self.frame_channels)
        return TensorSpec("frames", "uint8", shape)
