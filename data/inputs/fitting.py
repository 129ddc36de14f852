"""How an image or scan of another size is brought to the frame: which sizes a fit takes, and where pixels go.

==========  ======================================================================================================
``none``    refused: everything has the frame's size
``stretch`` resized to the frame, aspect not kept
``pad``     not scaled: placed in the centre of the frame. What is higher or wider than the frame is refused, so that
            nothing is lost
``crop``    not scaled: the centre is cut out, what lies outside is not inspected. What is lower or narrower than the
            frame is refused, so that nothing is invented
==========  ======================================================================================================

Centres are rounded as in ``core.geometry.centre_crop_offset``, so that crop undoes pad.
"""

from __future__ import annotations

from ...core.errors import BadInputError
from ...core.geometry import centre_crop_offset
from ...core.size import Size, size_text
from ...core.spec import Fit


def check_fits(size: Size, frame: Size, *, fit: Fit) -> None:
    """Raise BadInputError unless what has this height and width can be brought to the frame."""
    if size == frame or takes(fit, size, frame):
        return
    seen = f"the image is {size_text(size)} (height x width)"
    if fit == "none":
        raise BadInputError(
            f"{seen}; frames are {size_text(frame)} here, and images are never resized silently. Give images of "
            "that size, or train or export with --fit stretch, pad or crop"
        )
    limit = "up to" if fit == "pad" else "from"
    raise BadInputError(
        f"{seen}; fit {fit} takes images {limit} {size_text(frame)}. Leave it out, or train again with a "
        f"{'larger' if fit == 'pad' else 'smaller'} --frame"
    )


def takes(fit: Fit, size: Size, frame: Size) -> bool:
    """Whether an image of another size, height and width, can be brought to the frame."""
    pairs = tuple(zip(size, frame, strict=True))
    if fit == "pad":
        return all(side <= room for side, room in pairs)
    if fit == "crop":
        return all(side >= room for side, room in pairs)
    return fit == "stretch"


def margins(size: Size, frame: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows above and below, and columns left and right, of an image in the centre of a larger frame."""
    top, left = (centre_crop_offset(*pair) for pair in zip(frame, size, strict=True))
    return (top, frame[0] - size[0] - top), (left, frame[1] - size[1] - left)


def centre(size: Size, frame: Size) -> tuple[slice, slice]:
    """Rows and columns of the part of an image that a smaller frame takes."""
    top, left = (centre_crop_offset(*pair) for pair in zip(size, frame, strict=True))
    return slice(top, top + frame[0]), slice(left, left + frame[1])
