"""What a step of EfficientAD learns from, drawn as in Algorithm 1 of the paper (arXiv 2303.14535)."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from ...core.size import Size
from ...core.words import counted
from ..training.images import ImageSet, image_files
from ..training.task import BatchSource, Draw

_GREY_SHARE = 0.3
_LEAST_FACTOR, _LARGEST_FACTOR = 0.8, 1.2


@final
class GoodAndOthers(BatchSource[tuple[Tensor, ...]]):
    """Good images, the same in another light, and, where there is a folder of them, images of all kinds.

    Args:
        images: good images to learn from.
        crop_px: height and width of the images.
        folder: folder with images of all kinds, searched with its sub-folders; "" for none.
        normalisation: mean and standard deviation of the images, RGB in [0, 1].

    Attributes:
        penalty: source of the images of all kinds, in words.
    """

    def __init__(
        self, images: ImageSet, crop_px: Size, *, folder: str, normalisation: tuple[tuple[float, ...], ...]
    ) -> None:
        self._images = images
        self._mean, self._std = (torch.tensor(item)[:, None, None] for item in normalisation)
        self._others: ImageSet | None = None
        self.penalty = "none"
        if folder:
            files = image_files(Path(folder), parameter="penalty_source", without="for no penalty")
            height, width = crop_px
            black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            self._others = ImageSet(files, (2 * height, 2 * width), crop_px=crop_px, mean=black, std=white)
            self.penalty = counted(len(files), "image")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, ...]:
        generator = draw.generator()
        images = self._images.batch(draw.indices.tolist())
        changed = torch.stack([self._in_another_light(image, generator) for image in images])
        if self._others is None:
            return images, changed
        return images, changed, torch.stack([self._other(self._others, generator) for _ in images])

    def _in_another_light(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Change brightness, contrast or saturation, one of them, by up to a fifth."""
        adjust = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation)
        kind = int(torch.randint(3, (), generator=generator))
        share = float(torch.rand((), generator=generator))
        factor = _LEAST_FACTOR + (_LARGEST_FACTOR - _LEAST_FACTOR) * share
        plain = (image * self._std + self._mean).clamp(0.0, 1.0)
        changed: Tensor = adjust[kind](plain, factor)
        return (changed - self._mean) / self._std

    def _other(self, others: ImageSet, generator: torch.Generator) -> Tensor:
        image = others.batch([int(torch.randint(len(others), (), generator=generator))])[0]
        if float(torch.rand((), generator=generator)) < _GREY_SHARE:
            image = vision.rgb_to_grayscale(image, num_output_channels=3)
        return (image - self._mean) / self._std
