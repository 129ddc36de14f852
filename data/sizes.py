"""The sizes of a training set's images, and the size of the frames that they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..core.errors import BadInputError, UsageError
from ..core.progress import Progress, silent
from ..core.size import Size, size_text
from ..core.spec import Fit
from ..core.words import counted
from .content import content_hash, hash_decoded
from .decoding.conversions import Conversions
from .decoding.decode import decode_with_facts
from .inputs.fitting import takes

_SHOWN = 5


@final
@dataclass(frozen=True, eq=False)
class Survey:
    """Sizes, conversions and content hashes of a set of images, each decoded once.

    Attributes:
        sizes: (height, width) in pixels → number of images.
        conversions: what decoding did to their values.
        hashes: content hash of each image, see ``data.content``, in the images' order.
    """

    sizes: Mapping[Size, int]
    conversions: Conversions
    hashes: tuple[str, ...]


def survey(paths: Iterable[Path], *, bit_depth: int | None = None, progress: Progress = silent) -> Survey:
    """Decode every image as RGB, once, and note its size, its conversions and the hash of its content.

    Args:
        paths: image files.
        bit_depth: bits that the camera used in 16-bit images; None takes all.
        progress: called after each image.

    Raises:
        BadInputError: a file cannot be decoded.
    """
    files = tuple(paths)
    sizes: Counter[Size] = Counter()
    conversions = Conversions(channels=3, bit_depth=bit_depth)
    hashes = []
    for number, path in enumerate(files, start=1):
        image = decode_with_facts(path, channels=3, bit_depth=bit_depth)
        height, width, _ = image.pixels.shape
        sizes[height, width] += 1
        conversions.add(image.facts)
        # The hash is of the pixels without a bit depth, which changes deep images alone.
        is_plain = bit_depth is None or image.facts.largest_value is None
        hashes.append(hash_decoded(image, path) if is_plain else content_hash(path))
        progress("images", number, len(files))
    return Survey(sizes, conversions, tuple(hashes))


def describe_sizes(sizes: Mapping[Size, int]) -> str:
    """The sizes with their counts, the most common first; five at most."""
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{size_text(size)} ({num})" for size, num in ordered[:_SHOWN])
    num_more = len(ordered) - _SHOWN
    return shown + (f" and {num_more} more size{'s' * (num_more > 1)}" if num_more > 0 else "")


def choose_frame(
    sizes: Mapping[Size, int], *, fit: Fit = "none", frame: Size | None = None, what: str = "training images"
) -> Size:
    """The size of the frames that the images of a training set become.

    Without a ``frame``: the one size that all images have; stretched, the most common size; padded, the smallest
    frame that holds all of them; cropped, the largest that all of them fill.

    Args:
        sizes: (height, width) → number of images.
        fit: how images of another size are brought to the frame.
        frame: height and width in pixels where the user named them; None chooses them.
        what: what the images are, in words.

    Raises:
        BadInputError: several sizes and no fit, or an image that the fit does not take.
        UsageError: a frame of another size and no fit.
    """
    seen = f"The {sum(sizes.values())} {what} have {counted(len(sizes), 'size')}: {describe_sizes(sizes)}"
    if fit == "none" and len(sizes) > 1:
        raise BadInputError(
            f"{seen} (height x width). A detector takes frames of one size. Say how the others are brought to "
            "it: --fit pad (unscaled, border repeated), --fit crop (unscaled, centre alone) or --fit stretch (resized)."
        )
    chosen = frame or _default_frame(sizes, fit)
    if fit == "none" and chosen not in sizes:
        raise UsageError(
            f"frame (--frame) is {size_text(chosen)}. {seen} (height x width), and images are never resized silently. "
            "Leave it out, or say how images become frames: --fit stretch, pad or crop."
        )
    outside = {size: num for size, num in sizes.items() if size != chosen and not takes(fit, size, chosen)}
    if outside:
        raise BadInputError(
            f"frame (--frame) is {size_text(chosen)} (height x width), and fit {fit} cannot bring "
            f"{sum(outside.values())} of the {sum(sizes.values())} {what} to it: {describe_sizes(outside)}. "
            f"Leave it out, name a {'larger' if fit == 'pad' else 'smaller'} one, or give another --fit."
        )
    return chosen


def frame_sentence(sizes: Mapping[Size, int], frame: Size, *, fit: Fit) -> str:
    """What became of the images' sizes; "" where all of them have the frame's."""
    if set(sizes) == {frame}:
        return ""
    return (
        f"Frames are {size_text(frame)} (height x width), fit {fit}: {sizes.get(frame, 0)} of {sum(sizes.values())} "
        f"images have that size; they have {counted(len(sizes), 'size')}: {describe_sizes(sizes)}."
    )


def _default_frame(sizes: Mapping[Size, int], fit: Fit) -> Size:
    if fit in ("none", "stretch"):
        return max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))
    side = max if fit == "pad" else min
    return side(height for height, _ in sizes), side(width for _, width in sizes)
