"""Images with a piece of themselves pasted elsewhere, as CutPaste learns from them.

Li, Sohn, Yoon, Pfister, "CutPaste", arXiv 2104.04015, sections 2.1 and 2.2. Everything random follows from the
generator that a function is given. Images are float32 (3, H, W), RGB in [0, 1]; sizes are in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor

from ...core.size import Size
from ..training.images import ImageSet
from ..training.task import BatchSource, Draw

Labelled = tuple[Tensor, Tensor]

#: Kinds of images that each variant of the task tells apart; the label is the place in the list.
VARIANTS = {
    "3way": ("good", "cutpaste", "scar"),
    "cutpaste": ("good", "cutpaste"),
    "scar": ("good", "scar"),
}
_AREA_SHARES = (0.02, 0.15)
_ASPECTS = (0.3, 3.3)
_SCAR_WIDTHS = (2, 16)
_SCAR_HEIGHTS = (10, 25)
_SCAR_DEGREES = 45.0


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Return a number drawn evenly from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def whole(low: int, high: int, generator: torch.Generator) -> int:
    """Return a whole number drawn evenly from low … high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def jittered(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, in random order.

    Args:
        image: float32 (3, H, W) in [0, 1].
        strength: largest change: factors lie in 1 ± strength, the hue moves by up to ± strength turns; 0 for none.
        generator: generator of what is random.

    Returns:
        float32 (3, H, W) in [0, 1].
    """
    if strength == 0.0:
        return image
    for kind in torch.randperm(4, generator=generator).tolist():
        change = uniform(-strength, strength, generator)
        if kind == 3:
            image = vision.adjust_hue(image, change)
        else:
            adjust = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation)[kind]
            image = adjust(image, 1.0 + change)
    return image


def translated(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift an image by up to a share of its sides; what enters is mirrored at the border.

    Args:
        image: float32 (3, H, W).
        share: largest shift as a share of each side, below 1; 0 for none.
        generator: generator of what is random.
    """
    height, width = image.shape[-2:]
    margins = int(share * height), int(share * width)
    padded: Tensor = vision.pad(image, [margins[1], margins[0]], padding_mode="reflect")
    top, left = (whole(0, 2 * margin, generator) for margin in margins)
    return padded[:, top : top + height, left : left + width]


def cut_and_paste(image: Tensor, jitter: float, generator: torch.Generator) -> Tensor:
    """Paste a rectangle of the image at another place: 2 % to 15 % of its area, aspect ratio 0.3 to 3.3, jittered."""
    height, width = image.shape[-2:]
    area = uniform(*_AREA_SHARES, generator) * height * width
    # A ratio and its inverse are equally likely.
    aspect = math.exp(uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1]), generator))
    rows = min(max(round(math.sqrt(area * aspect)), 1), height)
    columns = min(max(round(math.sqrt(area / aspect)), 1), width)
    piece = jittered(_piece(image, (rows, columns), generator), jitter, generator)
    return _pasted(image, piece, torch.ones(1, rows, columns), generator)


def paste_scar(image: Tensor, jitter: float, generator: torch.Generator) -> Tensor:
    """Paste a thin piece of the image, 2 to 16 wide and 10 to 25 high, jittered and turned by up to 45°."""
    rows = min(whole(*_SCAR_HEIGHTS, generator), image.shape[-2])
    columns = min(whole(*_SCAR_WIDTHS, generator), image.shape[-1])
    piece = jittered(_piece(image, (rows, columns), generator), jitter, generator)
    degrees = uniform(-_SCAR_DEGREES, _SCAR_DEGREES, generator)
    opaque = torch.cat([piece, torch.ones(1, rows, columns)])
    turned = vision.rotate(opaque, degrees, vision.InterpolationMode.NEAREST, expand=True)
    turned = turned[:, : image.shape[-2], : image.shape[-1]]
    return _pasted(image, turned[:3], turned[3:], generator)


def _piece(image: Tensor, size: Size, generator: torch.Generator) -> Tensor:
    top, left = (whole(0, side - cut, generator) for side, cut in zip(image.shape[-2:], size, strict=True))
    return image[:, top : top + size[0], left : left + size[1]]


def _pasted(image: Tensor, piece: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return a copy of the image with the piece at a random place, where its mask (1, rows, columns) is 1."""
    rows, columns = piece.shape[-2:]
    top, left = (whole(0, side - cut, generator) for side, cut in zip(image.shape[-2:], (rows, columns), strict=True))
    result = image.clone()
    target = result[:, top : top + rows, left : left + columns]
    target.copy_(torch.where(mask > 0.5, piece, target))
    return result


@final
@dataclass(frozen=True, kw_only=True)
class DrawRule:
    """How images of the task are drawn.

    Attributes:
        variant: a key of ``VARIANTS``.
        view_px: height and width of the views, each cut from a random place of its image.
        jitter: strength of the colour jitter of views and of pasted pieces; see ``jittered``.
        translation: largest shift of a view; see ``translated``.
        mean: mean of the images' normalisation, RGB in [0, 1].
        std: its standard deviation.
    """

    variant: str
    view_px: Size
    jitter: float
    translation: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def draw(self, images: Tensor, generator: torch.Generator) -> Labelled:
        """Draw one view of each image in every kind of the variant; the kinds share the view.

        Args:
            images: normalised good images, float32 (B, 3, H, W).
            generator: generator of what is random.

        Returns:
            Normalised views float32 (K·B, 3, *view_px) and labels int64 (K·B,), for K kinds, kind after kind.
        """
        mean, std = (torch.tensor(item).view(3, 1, 1) for item in (self.mean, self.std))
        views = [self._view((image * std + mean).clamp(0.0, 1.0), generator) for image in images]
        kinds = VARIANTS[self.variant]
        drawn = [self._changed(view, kind, generator) for kind in kinds for view in views]
        labels = torch.arange(len(kinds)).repeat_interleave(len(views))
        return (torch.stack(drawn) - mean) / std, labels

    def _view(self, image: Tensor, generator: torch.Generator) -> Tensor:
        view = _piece(translated(image, self.translation, generator), self.view_px, generator)
        return jittered(view, self.jitter, generator)

    def _changed(self, view: Tensor, kind: str, generator: torch.Generator) -> Tensor:
        if kind == "cutpaste":
            return cut_and_paste(view, self.jitter, generator)
        if kind == "scar":
            return paste_scar(view, self.jitter, generator)
        return view


@final
class DrawnViews(BatchSource[Labelled]):
    """Views to train on, drawn anew at every step.

    Args:
        rule: how they are drawn.
        images: good images to fit on.
        num_draws: number of views in an epoch; the images are gone through as often as that needs.
    """

    def __init__(self, rule: DrawRule, images: ImageSet, num_draws: int) -> None:
        self._rule = rule
        self._images = images
        self._num_draws = num_draws

    def __len__(self) -> int:
        return self._num_draws

    def __getitem__(self, draw: Draw) -> Labelled:
        chosen = [int(index) % len(self._images) for index in draw.indices]
        return self._rule.draw(self._images.batch(chosen), draw.generator())
