"""Training images: decoded, preprocessed by the module of the exported graph, and batched by index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import BadInputError
from ...core.size import Size
from ...core.spec import FrameRule, Frames, Preprocessing
from ...core.tiles import Tiles
from ...data.decoding.decode import IMAGE_SUFFIXES, decode_image
from ...data.inputs.table import input_of
from ..nn.graph import Preprocess

_MEMORY_LIMIT_BYTES = 1 << 30


def image_files(folder: Path, *, parameter: str, without: str) -> list[Path]:
    """Return the image files of a folder and its sub-folders, sorted.

    Args:
        folder: the folder.
        parameter: name of the parameter that names it, for the error.
        without: what its absence means, as the end of a sentence that begins with "leave it empty".

    Raises:
        BadInputError: the folder holds no image.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise BadInputError(
            f"{parameter} {folder}: no folder with images. Give a folder of .png or .jpg files, or leave it empty "
            f"{without}."
        )
    return files


class ImageSet:
    """Images by path, delivered as normalised batches.

    They pass through the preprocessing module of the exported graph, so that training and the line see the same pixels.
    With a rule, every image first becomes a frame of the bundle's size. With tiles, every tile of it is an image of the
    set: those of the first frame row by row, then those of the next.

    Images are kept once they were made, where all of the set take less than 1 GB. Of larger ones the frame that was
    decoded last is kept, so that tiles in their order cost one decoding per frame.

    Args:
        paths: image files.
        resize_px: height and width after the antialiased resize.
        crop_px: height and width of the centre crop.
        mean: normalisation mean, RGB in [0, 1].
        std: normalisation standard deviation.
        rule: rule by which each image becomes a frame; None keeps each at its own size, for files that are no frames,
            such as textures.
        tiles: how each frame is cut into tiles, which needs a rule; None leaves it whole.

    Attributes:
        paths: image files.
        num_tiles: number of images in the set per file.

    Raises:
        BadInputError: there are no paths.
        UsageError: the rule's frames cannot be cut into such tiles.
    """

    def __init__(  # noqa: PLR0913 (sizes and normalisation of a configuration, by name)
        self,
        paths: Sequence[Path],
        resize_px: Size,
        *,
        crop_px: Size,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        rule: FrameRule | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        if not paths:
            raise BadInputError("There is no image to train on. Expected good images under train/good.")
        self.paths = tuple(paths)
        self._sizes = (resize_px, crop_px)
        self._normalisation = (mean, std)
        self._rule, self._tiles = rule, tiles
        self._corners = _corners(rule, tiles)
        self.num_tiles = len(self._corners)
        self._modules: dict[tuple[int, int], Preprocess] = {}
        self._kept: dict[int, Tensor] = {}
        self._last: tuple[Path, Frames] | None = None
        self._may_keep = 12 * math.prod(crop_px) * len(self) <= _MEMORY_LIMIT_BYTES

    def __len__(self) -> int:
        return len(self.paths) * self.num_tiles

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return the normalised images at these indices, float32 (len(indices), 3, *crop_px)."""
        return torch.stack([self._image(index) for index in indices])

    def _image(self, index: int) -> Tensor:
        if self._may_keep and index not in self._kept:
            # All tiles of a frame at once, so that it is decoded once in whatever order they are asked for.
            first = index - index % self.num_tiles
            self._kept |= {number: self._made(number) for number in range(first, first + self.num_tiles)}
        return self._kept[index] if self._may_keep else self._made(index)

    def _made(self, index: int) -> Tensor:
        frame = self._frame(index)
        module = self._modules.get(frame.shape[:2])
        if module is None:
            module = self._modules[frame.shape[:2]] = Preprocess(self.preprocessing(frame.shape[0], frame.shape[1]))
        with torch.no_grad():
            image: Tensor = module(torch.from_numpy(frame)[None])[0]
        return image

    def _frame(self, index: int) -> Frames:
        """The frame, or the tile of one, at an index: uint8 (H, W, 3)."""
        place, number = divmod(index, self.num_tiles)
        path = self.paths[place]
        if self._rule is None:
            return decode_image(path)
        if self._tiles is None:
            return input_of(self._rule).read(path)
        if self._last is None or self._last[0] != path:
            self._last = path, input_of(self._rule).read(path)
        (top, left), (height, width) = self._corners[number], self._tiles.size
        return np.ascontiguousarray(self._last[1][top : top + height, left : left + width])

    def plain(self) -> ImageSet:
        """Return the same images resized alone: neither cropped nor normalised, in [0, 1]."""
        resize_px, black, white = self._sizes[0], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return ImageSet(
            self.paths, resize_px, crop_px=resize_px, mean=black, std=white, rule=self._rule, tiles=self._tiles
        )

    def part(self, files: Sequence[int]) -> ImageSet:
        """Return the files at these places in ``paths``, with all their tiles, as a set of their own."""
        paths, (resize_px, crop_px), (mean, std) = [self.paths[i] for i in files], self._sizes, self._normalisation
        return ImageSet(paths, resize_px, crop_px=crop_px, mean=mean, std=std, rule=self._rule, tiles=self._tiles)

    def preprocessing(self, height_px: int, width_px: int, num_channels: int = 3) -> Preprocessing:
        """Return the preprocessing specification for frames of this height, width and number of channels."""
        resize, crop = self._sizes
        frame_shape = (height_px, width_px, num_channels)
        return Preprocessing.of(frame_shape, resize, crop, normalisation=self._normalisation)


def _corners(rule: FrameRule | None, tiles: Tiles | None) -> tuple[tuple[int, int], ...]:
    """First row and column of each tile of a frame; a frame that is not cut is one at its own corner."""
    if tiles is None:
        return ((0, 0),)
    if rule is None:
        raise ValueError("Tiles lie in frames of one size: a set with tiles needs a rule.")
    rows, columns = tiles.axes(rule.frame_shape[:2])
    return tuple((top, left) for top in rows.starts_px for left in columns.starts_px)
