"""A notice where the resize changes the proportions of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.size import parse_size, size_text

_LARGEST_STRETCH = 1.5
_MULTIPLE_PX = 32


def shape_notice(frame: Sequence[int], resized: Any) -> tuple[str, ...]:
    """Return a sentence where the resize squeezes one axis more than 1.5 times as much as the other, else nothing.

    Args:
        frame: height and width of the images, in pixels.
        resized: size after the resize in pixels, ``[height, width]``, or one number for a square.
    """
    height, width = parse_size(resized)
    aspect = frame[0] / frame[1]
    stretch = aspect * width / height
    if 1.0 / _LARGEST_STRETCH <= stretch <= _LARGEST_STRETCH:
        return ()
    # Sides of the same area, in steps that most detectors take.
    sides = ((height * width * aspect) ** 0.5, (height * width / aspect) ** 0.5)
    better = size_text([_MULTIPLE_PX * max(2, round(side / _MULTIPLE_PX)) for side in sides])
    return (
        f"Shape: images of {size_text(frame)} are resized to {size_text(resized)}, which squeezes them "
        f"{max(stretch, 1.0 / stretch):.1f}-fold along one axis. --image-size {better} would keep their proportions.",
    )
