"""Images by what they show: the same pixels are the same image, whatever its file is called or how it is coded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..core.progress import Progress, silent
from .decode import decode_image

_NUM_DIGITS = 16


def content_hash(path: Path | str) -> str:
    """Identify an image by its pixels.

    A copy, a link and a file that was stored anew without loss give the same hash; one pixel that differs by one grey
    level gives another.

    Returns:
        The first 16 hexadecimal digits of the sha256 over height and width (8 bytes each, big endian) and the uint8
        RGB pixels, as ``decode_image`` gives them.

    Raises:
        BadInputError: the file cannot be read as an image.
    """
    pixels = decode_image(path)
    digest = hashlib.sha256()
    for side in pixels.shape[:2]:
        digest.update(side.to_bytes(8, "big"))
    digest.update(pixels.data)
    return digest.hexdigest()[:_NUM_DIGITS]


def content_hashes(paths: Sequence[Path], *, progress: Progress = silent) -> tuple[str, ...]:
    """``content_hash`` of each image, in the same order; ``progress`` is told after each."""
    hashes = []
    for number, path in enumerate(paths, 1):
        hashes.append(content_hash(path))
        progress("reading images", number, len(paths))
    return tuple(hashes)
