"""From a picture in a file to the frame that a bundle takes: one rule, the same wherever pictures are read.

Training, golden frames, thresholds, verify, evaluate, calibrate, run, the galleries and the masks go through here, so
that a picture has one score whoever asks. The bundle's ``fit`` says what a picture of another size becomes:

==========  ======================================================================================================
``none``    refused: every picture has the frame's size
``stretch`` resized to the frame, aspect not kept: Pillow's bilinear filter, antialiased, rounded to grey levels
``pad``     not scaled: placed in the centre of the frame, whose border repeats the picture's outermost pixels.
            A picture that is higher or wider than the frame is refused, so that nothing is lost
``crop``    not scaled: the centre of the picture is taken, what lies outside is not inspected.
            A picture that is lower or narrower than the frame is refused, so that nothing is made up
==========  ======================================================================================================

A picture of the frame's size is never touched. Centres are rounded as in ``core.linear.centre_crop_offset``, so that
crop undoes pad. Masks follow their picture pixel by pixel; the padded border of a mask is not defective.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import BadInputError
from ..core.linear import centre_crop_offset
from ..core.size import Size, size_text
from ..core.spec import Fit, FrameRule, Preprocessing
from .decoding.conversions import Conversions
from .decoding.decode import decode_image, decode_with_facts
from .masks import read_mask, upright_shape
from .records import Sample


def read_frame(
    path: Path | str, rule: FrameRule | Preprocessing, *, conversions: Conversions | None = None
) -> NDArray[np.uint8]:
    """Read a picture as the frame that a bundle takes.

    Args:
        path: image file.
        rule: size, channels, depth and fit of the frames.
        conversions: is told what was done to the picture's values.

    Returns:
        uint8 (H, W, C), contiguous and writable.

    Raises:
        BadInputError: the file cannot be decoded, or cannot be brought to the frame by its rule.
    """
    image = decode_with_facts(path, channels=rule.frame_channels, bit_depth=rule.bit_depth)
    try:
        frame = fit_frame(image.pixels, rule)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from None
    if conversions is not None:
        conversions.add(image.facts)
    return frame


def as_rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame for people: uint8 (H, W, 3), grey repeated."""
    return np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame


def conversions_of(rule: FrameRule | Preprocessing) -> Conversions:
    """An empty account of conversions for pictures read by this rule."""
    return Conversions(channels=rule.frame_channels, bit_depth=rule.bit_depth)


def fit_frame(image: NDArray[np.uint8], rule: FrameRule | Preprocessing) -> NDArray[np.uint8]:
    """Bring a decoded picture to the frame.

    Args:
        image: uint8 (h, w, C).
        rule: size and fit; ``line.bundle.manifest.preprocessing`` of an open line.

    Returns:
        uint8 (H, W, C); the picture itself where it has the frame's size.

    Raises:
        BadInputError: the rule does not take a picture of that size.
    """
    size = _picture_size(image)
    check_fits(size, rule)
    if size == _frame_size(rule):
        return image
    if rule.fit == "stretch":
        return _stretch(image, rule)
    if rule.fit == "pad":
        widths = [_margins(*pair) for pair in zip(_frame_size(rule), size, strict=True)]
        return np.pad(image, [*widths, (0, 0)], mode="edge")
    return np.ascontiguousarray(image[_centre(size, rule)])


def fit_mask(mask: NDArray[np.bool_], rule: FrameRule | Preprocessing) -> NDArray[np.bool_]:
    """Bring a mask to the frame as ``fit_frame`` brings its picture.

    Args:
        mask: bool (h, w), at its picture's size, True where anomalous.
        rule: size and fit.

    Returns:
        bool (H, W). Stretched: each pixel takes the mask at its centre. A padded border is False.

    Raises:
        BadInputError: the rule does not take a picture of that size.
    """
    size = _picture_size(mask)
    check_fits(size, rule)
    if size == _frame_size(rule):
        return mask
    if rule.fit == "stretch":
        rows, columns = (_nearest(*pair) for pair in zip(_frame_size(rule), size, strict=True))
        return np.asarray(mask[np.ix_(rows, columns)])
    if rule.fit == "pad":
        return np.pad(mask, [_margins(*pair) for pair in zip(_frame_size(rule), size, strict=True)])
    return np.ascontiguousarray(mask[_centre(size, rule)])


def read_frame_mask(sample: Sample, rule: FrameRule | Preprocessing) -> NDArray[np.bool_] | None:
    """The ground truth of a picture on its frame, see ``data.masks.read_mask`` and ``fit_mask``.

    Args:
        sample: a picture of a data set.
        rule: size and fit.

    Returns:
        bool (H, W), True where anomalous; None where the sample has no mask.

    Raises:
        BadInputError: a mask cannot be read, or is not of its picture's size.
    """
    is_known = rule.fit == "none" or not sample.mask_paths
    # A picture that cannot be read raises on being decoded.
    known = _frame_size(rule) if is_known else upright_shape(sample.path)
    size = known or _picture_size(decode_image(sample.path))
    mask = read_mask(sample, expected_shape=size)
    return None if mask is None else fit_mask(mask, rule)


def check_fits(size: Size, rule: FrameRule | Preprocessing) -> None:
    """Raise BadInputError unless a picture of this height and width can be brought to the frame."""
    frame = _frame_size(rule)
    if size == frame or takes(rule.fit, size, frame):
        return
    seen = f"the picture is {size_text(size)} (height x width)"
    if rule.fit == "none":
        raise BadInputError(
            f"{seen}; frames are {size_text(frame)} here, and pictures are never resized silently. Give pictures of "
            "that size, or train or export with --fit stretch, pad or crop"
        )
    limit = "up to" if rule.fit == "pad" else "from"
    raise BadInputError(
        f"{seen}; fit {rule.fit} takes pictures {limit} {size_text(frame)}. Leave it out, or train again with a "
        f"{'larger' if rule.fit == 'pad' else 'smaller'} --frame"
    )


def takes(fit: Fit, size: Size, frame: Size) -> bool:
    """Whether a picture of another size, height and width, can be brought to the frame."""
    pairs = tuple(zip(size, frame, strict=True))
    if fit == "pad":
        return all(side <= room for side, room in pairs)
    if fit == "crop":
        return all(side >= room for side, room in pairs)
    return fit == "stretch"


def _stretch(image: NDArray[np.uint8], rule: FrameRule | Preprocessing) -> NDArray[np.uint8]:
    plane = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    resized = plane.resize((rule.frame_width_px, rule.frame_height_px), Image.Resampling.BILINEAR)
    # A copy, since Pillow's own memory is read-only and torch.from_numpy warns of that.
    return np.array(resized).reshape(*_frame_size(rule), image.shape[2])


def _margins(room: int, size: int) -> tuple[int, int]:
    before = centre_crop_offset(room, size)
    return before, room - size - before


def _centre(size: Size, rule: FrameRule | Preprocessing) -> tuple[slice, slice]:
    top, left = (centre_crop_offset(*pair) for pair in zip(size, _frame_size(rule), strict=True))
    return slice(top, top + rule.frame_height_px), slice(left, left + rule.frame_width_px)


def _nearest(num: int, size: int) -> NDArray[np.int64]:
    """Which of ``size`` pixels lies under the centre of each of ``num``: floor((i + 1/2) size / num), whole numbers."""
    return np.asarray((2 * np.arange(num, dtype=np.int64) + 1) * size // (2 * num))


def _picture_size(image: NDArray[Any]) -> Size:
    return image.shape[0], image.shape[1]


def _frame_size(rule: FrameRule | Preprocessing) -> Size:
    return rule.frame_height_px, rule.frame_width_px
