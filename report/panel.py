"""One image of several with their captions, for a file that no page stands around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .overlays import Tile

_GAP_PX, _TEXT_PX, _LINE_PX = 8, 13, 16
_PAPER, _INK = (255, 255, 255), (29, 39, 51)


def panel(columns: Sequence[tuple[int, Sequence[Tile]]]) -> NDArray[np.uint8]:
    """Columns of images, from left to right, each image above its caption.

    Args:
        columns: for each its width in pixels, at least, and its images; an image that is narrower is enlarged by a
            whole factor, so that its pixels stay what they are.

    Returns:
        uint8 (H, W, 3) RGB on white.
    """
    drawn = [_stack([_captioned(tile, least_px=width) for tile in tiles]) for width, tiles in columns]
    height = max(item.height for item in drawn) + 2 * _GAP_PX
    paper = Image.new("RGB", (sum(item.width + _GAP_PX for item in drawn) + _GAP_PX, height), _PAPER)
    left = _GAP_PX
    for item in drawn:
        paper.paste(item, (left, _GAP_PX))
        left += item.width + _GAP_PX
    return np.asarray(paper)


def _stack(images: Sequence[Image.Image]) -> Image.Image:
    paper = Image.new("RGB", (max(item.width for item in images), sum(item.height for item in images)), _PAPER)
    top = 0
    for item in images:
        paper.paste(item, (0, top))
        top += item.height
    return paper


def _captioned(tile: Tile, *, least_px: int) -> Image.Image:
    image = Image.fromarray(tile[0])
    factor = max(1, -(-least_px // image.width))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    font = ImageFont.load_default(_TEXT_PX)
    lines = [""]
    for word in tile[1].split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= image.width:
            lines[-1] = longer
        else:
            lines.append(word)
    paper = Image.new("RGB", (image.width, image.height + _LINE_PX * len(lines) + _GAP_PX), _PAPER)
    paper.paste(image, (0, 0))
    draw = ImageDraw.Draw(paper)
    for number, line in enumerate(lines):
        draw.text((0, image.height + 2 + _LINE_PX * number), line, fill=_INK, font=font)
    return paper
