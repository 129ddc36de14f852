"""Values of options, read from the text that was typed: sizes, shares, batch sizes, settings."""

from __future__ import annotations

from ..core.errors import UsageError
from ..core.size import Size, parse_size
from ..core.tiles import Tiles


def parse_frame(text: str) -> tuple[int, int, int]:
    """Read the shape of a frame.

    Args:
        text: ``HEIGHTxWIDTH`` or ``HEIGHTxWIDTHxCHANNELS``.

    Returns:
        Height and width in pixels, and the number of channels (3 where it was left out).

    Raises:
        UsageError: the text has another form.
    """
    parts = text.lower().split("x")
    if len(parts) in (2, 3) and all(part.isdecimal() and int(part) > 0 for part in parts):
        height, width, channels = (*map(int, parts), 3)[:3]
        return height, width, channels
    raise UsageError(f"--frame is {text!r}; expected HEIGHTxWIDTH or HEIGHTxWIDTHx1 for mono, for example 1024x1280.")


def parse_frame_size(text: str) -> tuple[int, int]:
    """Read the size of an RGB frame.

    Args:
        text: ``HEIGHTxWIDTH``.

    Returns:
        Height and width in pixels.

    Raises:
        UsageError: the text has another form, or names channels other than 3.
    """
    height, width, channels = parse_frame(text)
    if channels != 3:
        raise UsageError(
            f"--frame is {text!r}: training reads images as RGB. Give HEIGHTxWIDTH here, and HEIGHTxWIDTHx1 for mono "
            "frames when it is exported."
        )
    return height, width


def parse_image_size(text: str, *, option: str) -> Size:
    """Read the size of an image.

    Args:
        text: ``HEIGHTxWIDTH`` in pixels, or one number for a square.
        option: name of the option, for the message.

    Raises:
        UsageError: the text has another form.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from None


def parse_tiles(text: str | None, *, overlap: int | None) -> Tiles | None:
    """Read --tiles and --overlap.

    Args:
        text: ``HEIGHTxWIDTH`` in pixels of the frame, or one number for a square; None for no tiles.
        overlap: pixels that neighbouring tiles share; None for 0.

    Raises:
        UsageError: the text has another form, an overlap is given alone, or it is not smaller than a tile.
    """
    if text is None:
        if overlap is not None:
            raise UsageError(f"--overlap is {overlap}, but there are no tiles. Give --tiles HEIGHTxWIDTH as well.")
        return None
    height, width = parse_image_size(text, option="--tiles")
    return Tiles(height_px=height, width_px=width, overlap_px=overlap or 0)


def parse_batches(text: str) -> tuple[int, ...]:
    """Read batch sizes: ``"1:4:8"`` gives (1, 4, 8).

    Raises:
        UsageError: the text is not made of rising positive numbers.
    """
    parts = text.split(":")
    if all(part.isdecimal() and int(part) > 0 for part in parts):
        values = tuple(map(int, parts))
        if list(values) == sorted(values):
            return values
    raise UsageError(f"--batch is {text!r}; expected rising numbers such as 1, 8 or 1:4:8.")


def parse_engine_pair(engines: list[str]) -> tuple[str, str]:
    """Read --engine of a comparison: the engines of the left and of the right side, the one given for both or one each.

    Raises:
        UsageError: more than two engines are given.
    """
    if len(engines) > 2:
        raise UsageError(f"--engine was given {len(engines)} times; expected once, or twice for left and right.")
    return engines[0], engines[-1]


def parse_share(text: str) -> float:
    """Read --max-false-reject: ``"1%"`` and ``"0.01"`` give 0.01.

    Raises:
        UsageError: the text has another form, or is not in 0 ≤ share < 1.
    """
    share = _share(text)
    if not 0.0 <= share < 1.0:
        raise UsageError(f"--max-false-reject is {text!r}; expected a share such as 1% or 0.01.")
    return share


def parse_min_used(text: str) -> float:
    """Read --min-used: ``"90%"`` and ``"0.9"`` give 0.9.

    Raises:
        UsageError: the text has another form, or is not in 0 ≤ share ≤ 1.
    """
    share = _share(text)
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"--min-used is {text!r}; expected a share such as 90% or 0.9.")
    return share


def _share(text: str) -> float:
    """A number, or a number of per cent as a share; -1 for any other form."""
    number, divisor = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        return float(number) / divisor
    except ValueError:
        return -1.0


def parse_settings(items: list[str]) -> dict[str, str]:
    """Read the parameters of --set: ``["key=value", …]`` gives {"key": "value"}.

    Raises:
        UsageError: an item has no ``=``, or no key before it.
    """
    pairs = [item.partition("=") for item in items]
    wrong = [item for item, (key, sign, _) in zip(items, pairs, strict=True) if not (key and sign)]
    if wrong:
        raise UsageError(f"--set {wrong[0]}: expected KEY=VALUE. `lineproof models DETECTOR` lists the keys.")
    return {key: value for key, _, value in pairs}
