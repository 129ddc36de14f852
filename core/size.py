"""Sizes of images: height and width in pixels, and how people and records write them."""

from typing import Any

#: Height, then width, in pixels.
Size = tuple[int, int]
#: In place of a size: that of the frames, whatever it is.
NATIVE: Size = (0, 0)
_NATIVE = "native"


def parse_size(value: Any) -> Size:
    """Read a size that a person typed or that a record holds.

    Args:
        value: ``"256x768"`` or ``[256, 768]``, height first; ``"256"`` or ``256`` for a square; ``"native"``.

    Returns:
        Height and width in pixels; ``NATIVE`` for ``"native"``.

    Raises:
        ValueError: another form, or a side below one pixel.
    """
    if value in (_NATIVE, NATIVE, [*NATIVE]):
        return NATIVE
    if isinstance(value, str):
        sides = [int(side) if side.isascii() and side.isdecimal() else 0 for side in value.lower().split("x")]
    else:
        sides = list(value) if isinstance(value, tuple | list) else [value]
    if len(sides) in (1, 2) and all(type(side) is int and side > 0 for side in sides):
        return sides[0], sides[-1]
    raise ValueError(f"{value!r} is no size; expected HEIGHTxWIDTH, such as 256x768, or one number for a square")


def size_text(size: Any) -> str:
    """``256x768`` or ``native``, from whatever ``parse_size`` takes."""
    return _NATIVE if (sides := parse_size(size)) == NATIVE else "x".join(map(str, sides))


def value_text(value: Any) -> str:
    """A parameter as people read it: a size as ``256x768``, no text as ``""``, a number to six significant digits."""
    if isinstance(value, tuple | list):
        is_size = all(isinstance(side, int) for side in value)
        return size_text(value) if is_size else f"[{', '.join(map(value_text, value))}]"
    if value is None:
        return "none"
    if isinstance(value, float) and float(rounded := f"{value:.6g}") != value:
        return rounded
    return str(value) if value != "" else '""'
