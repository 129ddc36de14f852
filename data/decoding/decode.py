"""Image files to arrays: one rule per pixel format, written down, and an error for everything else.

The format is recognised by the first bytes of the file, never by its name. How pixels become uint8 RGB:

====================================  =========================================================================
what the file holds                   what comes out
====================================  =========================================================================
1, 2, 4 bits, 8-bit grey              0 to 255: the value times 255, 85, 17 or 1; the same in R, G and B
palette                               the palette's colour; an index outside the palette is refused
RGB, YCbCr, CMYK (8 bit)              RGB as Pillow converts it; colour profiles and gamma are not applied
an alpha channel, transparent colour  dropped: the stored colour counts, also where it is fully transparent
16-bit grey, RGB, CMYK                the upper byte, value >> 8. With ``bit_depth=12`` value >> 4, and values
                                      above 4095 are refused; any ``bit_depth`` from 8 to 16 likewise
TIFF that declares 10, 12 or 14 bits  value >> 2, 4 or 6
32-bit or signed integers             as 16 bits, for values 0 to 65535 (8 signed bits: 0 to 127, the value);
                                      others are refused
float                                 round(255 x) for x in [0, 1]; other values and NaN are refused
====================================  =========================================================================

A TIFF's tags are obeyed in every depth: white-is-zero, byte order, fill order, strips, tiles, channels stored apart,
differences, extra channels (dropped). What has no rule is refused by the tag's name.

The EXIF orientation is applied. Of a JPEG with previews (MPO) the main image is read; other files with more than
one image (TIFF pages, animated PNG or WebP) are refused, because which one was meant cannot be known.

Which pixels of a ground truth mask are anomalous:

=========================================  ====================================================================
what varies over the mask                  what is anomalous
=========================================  ====================================================================
colours, or grey of any depth              every pixel that is not zero (black), whatever its value
alpha, zero somewhere; one colour alone    every pixel whose alpha is not zero
colours and alpha, and they agree          that
colours and alpha, and they differ         refused
palette indices, all of one colour         every index but 0; refused where index 0 is not in use
nothing                                    all or nothing: whether the one colour is black
=========================================  ====================================================================

A palette's transparency and a transparent colour count as alpha. Alpha that is zero nowhere or everywhere says
nothing: the colours count, and where they are all black while it varies the mask is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import BadInputError, UsageError
from .conversions import ImageFacts
from .mask_rules import marked
from .raster import read_bmp, read_coded_tiff, read_jpeg, read_png, read_webp
from .stored import FORMATS, Request, StoredImage, reading
from .tiff import read_layout
from .tiff_pixels import read_plain_tiff

#: Suffixes (lower case) that data sets count as images.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One image and what its file held.

    Attributes:
        pixels: uint8 (H, W, channels), as :func:`decode_image` gives them.
        facts: what the file held; :class:`~.conversions.Conversions` counts them over a set.
    """

    pixels: NDArray[np.uint8]
    facts: ImageFacts


def decode_image(
    path: Path | str,
    *,
    channels: int = 3,
    max_pixels: int = 100_000_000,
    min_side_px: int = 8,
    bit_depth: int | None = None,
) -> NDArray[np.uint8]:
    """Read one image file.

    Args:
        path: PNG, JPEG, BMP, TIFF or WebP.
        channels: 3 for RGB, 1 for mono (luma 0.299 R + 0.587 G + 0.114 B of what RGB would be).
        max_pixels: largest width x height; compared with the header before any pixel is decoded.
        min_side_px: smallest width and height; anything smaller is no image of a part.
        bit_depth: how many of the bits of an integer image deeper than 8 bits are in use, 8 to 16, the lowest ones;
            None for the depth that the file declares. Other images are not touched by it.

    Returns:
        uint8 (H, W, channels), 0 to 255, upright, contiguous and writable.

    Raises:
        BadInputError: the file is missing, empty, no image, truncated, too small, too large, has several images,
            or holds pixels the module's table does not name, or values that need more than ``bit_depth`` bits.
        UsageError: ``channels`` is neither 3 nor 1, or ``bit_depth`` is not 8 to 16.
    """
    return decode_with_facts(
        path, channels=channels, max_pixels=max_pixels, min_side_px=min_side_px, bit_depth=bit_depth
    ).pixels


def decode_with_facts(
    path: Path | str,
    *,
    channels: int = 3,
    max_pixels: int = 100_000_000,
    min_side_px: int = 8,
    bit_depth: int | None = None,
) -> DecodedImage:
    """Read one image file and say what it held; everything else is as for :func:`decode_image`."""
    if channels not in (1, 3):
        raise UsageError(f"channels={channels} was asked for; an image has 3 (RGB) or 1 (mono).")
    if bit_depth is not None and not 8 <= bit_depth <= 16:
        raise UsageError(f"bit_depth={bit_depth} was asked for; expected 8 to 16, or none for the file's own depth.")
    request = Request(
        path=Path(path), max_pixels=max_pixels, min_side_px=min_side_px, is_exact=bit_depth is not None
    )  # fmt: skip
    samples = _read(request)
    levels = _levels(samples, request.path, bit_depth)
    if levels.shape[2] > channels:
        levels = np.asarray(Image.fromarray(np.ascontiguousarray(levels)).convert("L"))[:, :, None]
    elif levels.shape[2] < channels:
        levels = np.repeat(levels, channels, axis=2)
    pixels = np.array(_upright(levels, samples.orientation), dtype=np.uint8, order="C")
    return DecodedImage(pixels, samples.facts)


def decode_mask(path: Path | str, *, expected_shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read one ground truth mask by the module's table.

    Args:
        path: PNG, BMP or TIFF. JPEG and WebP are refused: lossy coding turns black into nearly black.
        expected_shape: (H, W) of the image the mask belongs to; None compares nothing.

    Returns:
        bool (H, W), True where anomalous.

    Raises:
        BadInputError: as for :func:`decode_image`, or the format is lossy, or the shape is another one, or which pixels
            are meant cannot be known.
    """
    request = Request(
        path=Path(path), max_pixels=100_000_000, min_side_px=1, is_exact=True, must_be_lossless=True
    )  # fmt: skip
    samples = _read(request)
    upright = _upright(marked(samples, request.path), samples.orientation)
    mask: NDArray[np.bool_] = np.ascontiguousarray(upright, dtype=bool)
    if expected_shape is not None and mask.shape != tuple(expected_shape):
        raise BadInputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its image {expected_shape[1]}x"
            f"{expected_shape[0]}; they must be equal. Pair the files anew or export the mask at the image's size."
        )
    return mask


def _read(request: Request) -> StoredImage:
    with reading(request.path) as stream:
        reader = _reader_for(stream.read(16), request.path)
        stream.seek(0)
        return reader(stream, request)


def _reader_for(head: bytes, path: Path) -> Callable[[BinaryIO, Request], StoredImage]:
    if not head:
        raise BadInputError(f"{path}: the file is empty (0 bytes); expected an image ({FORMATS}). Copy it again.")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return read_png
    if head.startswith(b"\xff\xd8\xff"):
        return read_jpeg
    if head.startswith(b"BM"):
        return read_bmp
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _read_tiff
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return read_webp
    raise BadInputError(
        f"{path}: this is no image that can be read (it begins with {head[:8].hex(' ')}); expected {FORMATS}. "
        "Convert the file, or move it out of the data set."
    )


def _read_tiff(stream: BinaryIO, request: Request) -> StoredImage:
    layout, num_images = read_layout(stream, request.path)
    request.check_size(layout.width_px, layout.height_px, num_images=num_images)
    return (read_coded_tiff if layout.is_coded_image else read_plain_tiff)(stream, layout, request)


def _levels(samples: StoredImage, path: Path, bit_depth: int | None) -> NDArray[np.uint8]:
    """uint8 (H, W, 1 or 3) of the stored values."""
    values, facts = samples.values, samples.facts
    if values.dtype == np.uint8:
        return values
    declared = facts.integer_depth
    if bit_depth is not None and declared is not None and bit_depth > declared:
        raise BadInputError(
            f"{path}: the file declares {declared} bits, bit_depth={bit_depth} was asked for. Ask for {declared} bits "
            "or fewer, or for none: the declared depth is obeyed."
        )
    # Of signed bytes the sign takes one bit.
    depth = 8 if declared is None else bit_depth or declared
    limit = 1 if values.dtype.kind == "f" else 2**depth - 1
    low, high = values.min(), values.max()
    # NaN makes both comparisons false.
    if not (low >= 0 and high <= limit):
        raise _out_of_range(path, low, high, limit=limit, bit_depth=bit_depth if limit > 1 else None)
    if values.dtype.kind == "f":
        return np.rint(values * np.float32(255)).astype(np.uint8)
    shifted: NDArray[np.uint8] = (values >> (depth - 8)).astype(np.uint8)
    return shifted


def _out_of_range(path: Path, low: Any, high: Any, *, limit: int, bit_depth: int | None) -> BadInputError:
    kind = "float" if limit == 1 else "integer"
    if bit_depth is None:
        advice = "Scale them when the image is saved: a scale is never guessed here."
    else:
        advice = f"bit_depth={bit_depth} was asked for, and this image uses more bits: give its depth."
    return BadInputError(f"{path}: the {kind} values run from {low} to {high}; expected 0 to {limit}. {advice}")


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo EXIF orientation 2 to 8; any other value means upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
