"""Images: from an image in a file to the uint8 frame that a bundle takes.

``stretch`` is Pillow's bilinear filter, antialiased, rounded to grey levels. ``pad`` repeats the image's outermost
pixels, because a border of one colour would itself be an anomaly. An image of the frame's size is never touched. Masks
follow their image pixel by pixel; the padded border of a mask is not defective.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.spec import FrameRule, Frames, Preprocessing
from ..decoding.conversions import Conversions, ImageFacts
from ..decoding.decode import decode_with_facts
from .base import AbstractInput, View


@final
@dataclass(frozen=True)
class ImageInput(AbstractInput[Preprocessing | FrameRule]):
    """Images, uint8 (H, W, 3) RGB or (H, W, 1) mono, 0 to 255."""

    @property
    def dtype(self) -> str:
        """NumPy name of a frame's element type."""
        return "uint8"

    @property
    def orders(self) -> tuple[str, ...]:
        """``"rgb"``, or in OpenCV's order ``"bgr"``; of one channel ``"mono"``."""
        return ("rgb", "bgr") if self.spec.frame_channels == 3 else ("mono",)

    def as_rgb(self, frame: Frames, view: View | None = None) -> NDArray[np.uint8]:
        """A frame for people: uint8 (H, W, 3), grey repeated."""
        self.check_view(view)
        plain = np.asarray(frame, np.uint8)
        return np.repeat(plain, 3, axis=2) if plain.shape[2] == 1 else plain

    def conversions(self) -> Conversions:
        """An empty account of what decoding does to images."""
        return Conversions(channels=self.spec.frame_channels, bit_depth=self.spec.bit_depth)

    def _decode(self, path: Path) -> tuple[Frames, ImageFacts | None]:
        image = decode_with_facts(path, channels=self.spec.frame_channels, bit_depth=self.spec.bit_depth)
        return image.pixels, image.facts

    def _stretch(self, image: Frames) -> Frames:
        plane = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        height, width = self.frame_size
        resized = plane.resize((width, height), Image.Resampling.BILINEAR)
        # A copy, since Pillow's own memory is read-only and torch.from_numpy warns of that.
        return np.array(resized).reshape(height, width, image.shape[2])

    def _pad(self, image: Frames, widths: tuple[tuple[int, int], ...]) -> Frames:
        return np.pad(image, widths, mode="edge")

    def _distorted(self, patch: Frames) -> Frames:
        return np.asarray(255 - patch)
