"""Image files to arrays: one rule per pixel format, written down, and an error for everything else.

The format is told by the first bytes of the file, never by its name. How pixels become uint8 RGB:

====================================  =========================================================================
what the file holds                   what comes out
====================================  =========================================================================
1 bit, 8-bit grey                     0 or 255, the value itself; the same in R, G and B
palette                               the palette's colour
RGB, YCbCr, CMYK (8 bit)              RGB as Pillow converts it; embedded colour profiles are not applied
an alpha channel, transparent colour  dropped: the stored colour counts, also where it is fully transparent
16-bit grey (or 32-bit integer grey)  the upper byte, value >> 8, for values 0 to 65535; other values are refused.
                                      So a 12-bit camera must be stored shifted to the upper bits
16-bit RGB                            the upper byte of each channel
float grey                            round(255 x) for x in [0, 1]; other values and NaN are refused
====================================  =========================================================================

The EXIF orientation is applied. Of a JPEG with previews (MPO) the main picture is read; other files with more than
one picture (TIFF pages, animated PNG or WebP) are refused, because which one was meant cannot be known.
"""

import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..core.errors import BadInputError, UsageError

#: Suffixes (lower case) that data sets count as images.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
_ORIENTATION_TAG = 0x0112
_WIDE_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
_BYTE_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
# What Pillow's readers raise on broken files, as its own Image.open lists them and as fuzzing shows.
_BROKEN = (
    OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_warning_filters = threading.Lock()


def decode_image(
    path: Path | str, *, channels: int = 3, max_pixels: int = 100_000_000, min_side_px: int = 8
) -> NDArray[np.uint8]:
    """Read one image file.

    Args:
        path: PNG, JPEG, BMP, TIFF or WebP.
        channels: 3 for RGB, 1 for mono (luma 0.299 R + 0.587 G + 0.114 B of what RGB would be).
        max_pixels: largest width x height; compared with the header before any pixel is decoded.
        min_side_px: smallest width and height; anything smaller is no picture of a part.

    Returns:
        uint8 (H, W, channels), 0 to 255, upright, contiguous and writable.

    Raises:
        BadInputError: the file is missing, empty, no image, truncated, too small, too large, has several pictures,
            or holds pixels the module's table does not name.
        UsageError: ``channels`` is neither 3 nor 1.
    """
    if channels not in (1, 3):
        raise UsageError(f"channels={channels} was asked for; an image has 3 (RGB) or 1 (mono).")
    with _reading(Path(path)) as (path, image):
        _check_size(image, path, max_pixels, min_side_px)
        _load(image, path)
        if image.mode in _WIDE_MODES:
            pixels = np.repeat(_wide_levels(image, path)[:, :, None], channels, axis=2)
        else:
            rgb = _byte_colours(image, path)
            pixels = np.asarray(rgb) if channels == 3 else np.asarray(rgb.convert("L"))[:, :, None]
        return np.array(_upright(pixels, _orientation(image)), dtype=np.uint8, order="C")


def decode_mask(path: Path | str, *, expected_shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read one ground truth mask: every pixel that is not zero (black) is anomalous, whatever its value.

    A palette's colour counts, not its index; alpha is ignored.

    Args:
        path: PNG, BMP or TIFF. JPEG and WebP are refused: lossy coding turns black into nearly black.
        expected_shape: (H, W) of the picture the mask belongs to, compared where given.

    Returns:
        bool (H, W), True where anomalous.

    Raises:
        BadInputError: as for :func:`decode_image`, or the format is lossy, or the shape is another one.
    """
    with _reading(Path(path)) as (path, image):
        if isinstance(image, JpegImageFile | WebPImageFile) or image.info.get("compression") == "jpeg":
            raise BadInputError(
                f"{path}: the mask is stored as {image.format}, where lossy coding changes pixels that were zero; "
                "expected PNG, BMP or TIFF. Export the mask again from the labelling tool as PNG."
            )
        _check_size(image, path, 100_000_000, 1)
        _load(image, path)
        values = np.asarray(image if image.mode in _WIDE_MODES else _byte_colours(image, path))
        marked = values.any(axis=2) if values.ndim == 3 else values != 0
        upright = _upright(np.asarray(marked), _orientation(image))
        mask: NDArray[np.bool_] = np.ascontiguousarray(upright, dtype=bool)
    if expected_shape is not None and mask.shape != tuple(expected_shape):
        raise BadInputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its picture {expected_shape[1]}x"
            f"{expected_shape[0]}; they must be equal. Pair the files anew or export the mask at the picture's size."
        )
    return mask


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Path, ImageFile]]:
    """Open the file, hand out (path, image with its header read), close it; foreign errors become ours."""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
            reader = _reader_for(head, path)
            stream.seek(0)
            with _quiet_pillow():
                image = reader(stream)
            with image:
                yield path, image
    except FileNotFoundError:
        raise BadInputError(f"{path}: there is no such file; expected an image ({_FORMATS}).") from None
    except IsADirectoryError:
        raise BadInputError(f"{path}: this is a folder; expected an image file ({_FORMATS}).") from None
    except _BROKEN as error:
        raise BadInputError(
            f"{path}: the file cannot be read as an image ({type(error).__name__}: {error}); expected a complete "
            f"{_FORMATS} file. It is damaged or of an unusual kind: copy it again, or export it as PNG."
        ) from error


def _reader_for(head: bytes, path: Path) -> Callable[..., ImageFile]:
    # Pillow's Image.open would warn or raise by its own global pixel limit; its reader classes do not.
    if not head:
        raise BadInputError(f"{path}: the file is empty (0 bytes); expected an image ({_FORMATS}). Copy it again.")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if head.startswith(b"BM"):
        return BmpImageFile
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TiffImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile
    raise BadInputError(
        f"{path}: this is no image that can be read (it begins with {head[:8].hex(' ')}); expected {_FORMATS}. "
        "Convert the file, or move it out of the data set."
    )


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    # Odd metadata is no reason to refuse a part's picture, also where the caller made warnings errors. The filter
    # list belongs to the process, so two threads must not save and restore it at the same time.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_size(image: ImageFile, path: Path, max_pixels: int, min_side_px: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadInputError(
            f"{path}: the header says {width}x{height} pixels ({width * height / 1e6:.1f} megapixels); at most "
            f"{max_pixels / 1e6:g} megapixels are decoded. Crop the picture, or raise max_pixels if it is meant."
        )
    if min(width, height) < min_side_px:
        raise BadInputError(
            f"{path}: the picture is {width}x{height} pixels; expected at least {min_side_px} on each side. "
            "Check that this is a picture of a part."
        )
    with _quiet_pillow():
        num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        raise BadInputError(
            f"{path}: the file holds {num_frames} pictures; expected one. Save the one that is meant as its own file."
        )


def _load(image: ImageFile, path: Path) -> None:
    if image.mode not in _WIDE_MODES | _BYTE_MODES:
        raise BadInputError(
            f"{path}: pixels of mode {image.mode!r} have no rule here; expected grey, palette, RGB, CMYK, with or "
            "without alpha. Export the picture as 8-bit RGB."
        )
    if isinstance(image, TiffImageFile):
        with _quiet_pillow():
            image.load()
    else:
        image.load()


def _byte_colours(image: ImageFile, path: Path) -> Image.Image:
    """Mode RGB of an image whose mode is one of ``_BYTE_MODES``."""
    if image.mode not in _BYTE_MODES:
        raise BadInputError(f"{path}: the pixel mode became {image.mode!r} on loading. Export the picture as PNG.")
    image.info.pop("transparency", None)
    unpremultiplied = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA"}.get(image.mode)
    return (image.convert(unpremultiplied) if unpremultiplied else image).convert("RGB")


def _wide_levels(image: ImageFile, path: Path) -> NDArray[np.uint8]:
    """uint8 (H, W) of a 16-bit, 32-bit integer or float image."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    limit = 1 if image.mode == "F" else 65535
    # NaN makes both comparisons false.
    if not (low >= 0 and high <= limit):
        raise BadInputError(
            f"{path}: the {'float' if image.mode == 'F' else 'integer'} values run from {low} to {high}; expected "
            f"0 to {limit}. Scale them when the picture is saved: a scale is never guessed here."
        )
    if image.mode == "F":
        return np.rint(values * np.float32(255)).astype(np.uint8)
    return (values >> 8).astype(np.uint8)


def _orientation(image: ImageFile) -> int:
    with _quiet_pillow():
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo EXIF orientation 2 to 8; any other value means upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
