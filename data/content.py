"""Content hashes: an image is known by its pixels, whatever its file is called and however it is coded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..core.progress import Progress, silent
from .decoding.decode import DecodedImage, decode_image, decode_with_facts

_NUM_DIGITS = 16
_FILE_BITS = 16


def content_hash(path: Path | str) -> str:
    """Identify an image by its pixels.

    A copy, a link and a file that was stored anew without loss give the same hash; one pixel that differs by one grey
    level gives another.

    Returns:
        The first 16 hexadecimal digits of the sha256 over height and width (8 bytes each, big endian) and the uint8
        RGB pixels, as ``decode_image`` gives them. Of a 16-bit image that leaves upper bits unused they are those
        that it has when read with as many bits as it uses, 8 at least: its upper byte says little or nothing.

    Raises:
        BadInputError: the file cannot be read as an image.
    """
    return hash_decoded(decode_with_facts(path), path)


def hash_decoded(image: DecodedImage, path: Path | str) -> str:
    """``content_hash`` of an image that was decoded already, as RGB and by no ``bit_depth`` that changes its pixels.

    Args:
        image: the image as ``decode_with_facts`` returns it.
        path: file of the image, which is read again where upper bits are unused.
    """
    pixels, largest = image.pixels, image.facts.largest_value
    if largest is not None and (bits := max(8, largest.bit_length())) < _FILE_BITS:
        pixels = decode_image(path, bit_depth=bits)
    digest = hashlib.sha256()
    for side in pixels.shape[:2]:
        digest.update(side.to_bytes(8, "big"))
    digest.update(pixels.data)
    return digest.hexdigest()[:_NUM_DIGITS]


def content_hashes(paths: Sequence[Path], *, progress: Progress = silent) -> tuple[str, ...]:
    """``content_hash`` of each image, in the same order; ``progress`` is called after each."""
    hashes = []
    for number, path in enumerate(paths, 1):
        hashes.append(content_hash(path))
        progress("reading images", number, len(paths))
    return tuple(hashes)


def holdout_lines(fitted: Sequence[str], held_out: Sequence[str]) -> list[str]:
    """Warnings about held-out images that show what was fitted to, or what another of them shows; else empty.

    Args:
        fitted: content hashes of the images that a detector was fitted to.
        held_out: content hashes of the images that set its threshold.
    """
    known = frozenset(fitted)
    num_known, num_copies = sum(item in known for item in held_out), len(held_out) - len(set(held_out))
    lines = []
    if num_known:
        lines.append(
            f"{num_known} of {len(held_out)} held-out images show, pixel by pixel, what the detector was fitted to: "
            "the threshold rejects more parts on the line than its figures say. Remove the copies and train again."
        )
    if num_copies:
        lines.append(
            f"{num_copies} of {len(held_out)} held-out images are copies of others, pixel by pixel: the interval of "
            "the threshold counts each as a part of its own. Remove the copies and train again."
        )
    return lines
