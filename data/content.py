"""Content hashes: images and scans are known by what is read of them, whatever a file is called and however coded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.progress import Progress, silent
from ..core.spec import Reads
from .decoding.decode import DecodedImage, decode_image, decode_with_facts
from .files import scan_files
from .inputs.scan import read_scan

_NUM_DIGITS = 16
_FILE_BITS = 16


def content_hash(path: Path | str, reads: Reads = "image") -> str:
    """Identify an image by its pixels, or a scan by its points and, where they are read, its colours.

    A copy, a link and a file that was stored anew without loss give the same hash; one pixel that differs by one grey
    level, or one point that was measured elsewhere, gives another.

    Args:
        path: the image; of a scan, its cloud or its image, which give the same hash.
        reads: what the detector reads of it.

    Returns:
        Of an image the first 16 hexadecimal digits of the sha256 over height and width (8 bytes each, big endian) and
        the uint8 RGB pixels, as ``decode_image`` gives them. Of a 16-bit image that leaves upper bits unused they are
        those that it has when read with as many bits as it uses, 8 at least: its upper byte says little or nothing.
        Of a scan see ``hash_scan``.

    Raises:
        BadInputError: a file cannot be read.
    """
    if reads == "image":
        return hash_decoded(decode_with_facts(path), path)
    points, _ = read_scan(Path(path), has_rgb=False)
    image_path = scan_files(Path(path))[1]
    image = decode_with_facts(image_path) if reads == "cloud+rgb" else None
    return hash_scan(points, image, image_path)


def hash_scan(points: NDArray[np.float32], image: DecodedImage | None, image_path: Path) -> str:
    """``content_hash`` of a scan that was read already.

    Args:
        points: float32 (h, w, 3) as ``read_scan`` gives them: (0, 0, 0) for no measurement, however the file says so.
        image: its colours as ``decode_with_facts`` returns them; None where they are not read.
        image_path: file of the colours.

    Returns:
        The first 16 hexadecimal digits of the sha256 over the word ``cloud``, height and width (8 bytes each, big
        endian), x, y, z of each pixel (float32, little endian), and the image's own hash, in ASCII, where there is one.
    """
    digest = hashlib.sha256(b"cloud")
    for side in points.shape[:2]:
        digest.update(side.to_bytes(8, "big"))
    digest.update(points.astype("<f4").tobytes())
    if image:
        digest.update(hash_decoded(image, image_path).encode())
    return digest.hexdigest()[:_NUM_DIGITS]


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


def content_hashes(paths: Sequence[Path], reads: Reads = "image", *, progress: Progress = silent) -> tuple[str, ...]:
    """``content_hash`` of each image or scan, in the same order; ``progress`` is called after each."""
    hashes = []
    for number, path in enumerate(paths, 1):
        hashes.append(content_hash(path, reads))
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
