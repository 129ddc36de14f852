"""Pairs of images with and without a synthetic anomaly, drawn as DRAEM learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from ...core.size import Size
from ...core.words import counted
from ..training.images import ImageSet, image_files
from ..training.task import BatchSource, Draw
from .synthetic import Image, Rng, make_pair, procedural_texture, stack_pairs

#: Streams of random numbers: pairs to train on, those held out, and those that statistics are taken over.
TRAINING = 0
HELD_OUT = 1
CALIBRATION = 2


@final
class PairMaker:
    """Draws pairs of images; each pair follows from (seed, stream, epoch, index) alone.

    Args:
        crop_px: height and width of the images.
        texture_source: folder with images of textures; "" draws textures from noise.
        rotation_share: share of images that are rotated.
        clean_share: share of images that stay without an anomaly.
        seed: seed of the training.

    Attributes:
        source: source of the textures, in words.
    """

    def __init__(
        self, crop_px: Size, *, texture_source: str, rotation_share: float, clean_share: float, seed: int
    ) -> None:
        self._crop_px = crop_px
        self._rotation_share = rotation_share
        self._clean_share = clean_share
        self._seed = seed
        self._files: ImageSet | None = None
        self.source = "procedural"
        if texture_source:
            paths = image_files(
                Path(texture_source), parameter="texture_source", without="for textures drawn from noise"
            )
            side = max(crop_px)
            black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            self._files = ImageSet(paths, (side, side), crop_px=crop_px, mean=black, std=white)
            self.source = counted(len(paths), "file")

    def _texture(self, rng: Rng) -> Image:
        if self._files is None:
            return procedural_texture(self._crop_px, rng)
        return np.asarray(self._files.batch([int(rng.integers(len(self._files)))])[0].numpy())

    def pairs(self, images: ImageSet, indices: Tensor, *, stream: int, epoch: int = 0) -> tuple[Tensor, ...]:
        """Return images, originals and masks; see ``synthetic.stack_pairs``.

        Args:
            images: good images.
            indices: int64 (B,); those past the last image begin again at the first, with other anomalies.
            stream: purpose of the pairs: ``TRAINING``, ``HELD_OUT`` or ``CALIBRATION``.
            epoch: number of the epoch; another one draws other anomalies.
        """
        chosen = [int(index) for index in indices]
        originals = images.batch([index % len(images) for index in chosen])
        pairs = [
            make_pair(
                np.asarray(image.numpy()),
                texture=self._texture,
                rng=np.random.default_rng([self._seed, stream, epoch, index]),
                rotation_share=self._rotation_share,
                clean_share=self._clean_share,
            )
            for image, index in zip(originals, chosen, strict=True)
        ]
        return stack_pairs(pairs)


@final
class DrawnPairs(BatchSource[tuple[Tensor, ...]]):
    """Pairs to train on, drawn anew in every epoch.

    Args:
        maker: maker that draws the pairs.
        images: good images to fit on.
        draws_per_image: number of pairs of every image in an epoch.
    """

    def __init__(self, maker: PairMaker, images: ImageSet, draws_per_image: int) -> None:
        self._maker = maker
        self._images = images
        self._draws_per_image = draws_per_image

    def __len__(self) -> int:
        return len(self._images) * self._draws_per_image

    def __getitem__(self, draw: Draw) -> tuple[Tensor, ...]:
        return self._maker.pairs(self._images, draw.indices, stream=TRAINING, epoch=draw.epoch)
