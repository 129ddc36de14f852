"""Training images: decoded, preprocessed by the module of the exported graph, and batched by index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...core.errors import BadInputError
from ...core.size import Size
from ...core.spec import FrameRule, Preprocessing
from ...data.decoding.decode import decode_image
from ...data.inputs.table import input_of
from ..nn.graph import Preprocess

_MEMORY_LIMIT_BYTES = 1 << 30


class ImageSet:
    """Images by path, delivered as normalised batches.

    They pass through the preprocessing module of the exported graph, so that training and the line see the same pixels.
    With a rule, every image first becomes a frame of the bundle's size.

    Args:
        paths: image files.
        resize_px: height and width after the antialiased resize.
        crop_px: height and width of the centre crop.
        mean: normalisation mean, RGB in [0, 1].
        std: normalisation standard deviation.
        rule: rule by which each image becomes a frame; None keeps each at its own size, for files that are no frames,
            such as textures.

    Raises:
        BadInputError: there are no paths.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        resize_px: Size,
        *,
        crop_px: Size,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        rule: FrameRule | None = None,
    ) -> None:
        if not paths:
            raise BadInputError("There is no image to train on. Expected good images under train/good.")
        self.paths = tuple(paths)
        self._sizes = (resize_px, crop_px)
        self._normalisation = (mean, std)
        self._rule = rule
        self._modules: dict[tuple[int, int], Preprocess] = {}
        self._kept: dict[int, Tensor] = {}
        self._may_keep = 12 * math.prod(crop_px) * len(paths) <= _MEMORY_LIMIT_BYTES

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return the normalised images at these indices, float32 (len(indices), 3, *crop_px)."""
        return torch.stack([self._image(index) for index in indices])

    def _image(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        path = self.paths[index]
        frame = decode_image(path) if self._rule is None else input_of(self._rule).read(path)
        module = self._modules.get(frame.shape[:2])
        if module is None:
            module = self._modules[frame.shape[:2]] = Preprocess(self.preprocessing(frame.shape[0], frame.shape[1]))
        with torch.no_grad():
            image: Tensor = module(torch.from_numpy(frame)[None])[0]
        if self._may_keep:
            self._kept[index] = image
        return image

    def plain(self) -> ImageSet:
        """Return the same images resized alone: neither cropped nor normalised, in [0, 1]."""
        resize_px, black, white = self._sizes[0], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return ImageSet(self.paths, resize_px, crop_px=resize_px, mean=black, std=white, rule=self._rule)

    def preprocessing(self, height_px: int, width_px: int, num_channels: int = 3) -> Preprocessing:
        """Return the preprocessing specification for frames of this height, width and number of channels."""
        resize, crop = self._sizes
        frame_shape = (height_px, width_px, num_channels)
        return Preprocessing.of(frame_shape, resize, crop, normalisation=self._normalisation)
