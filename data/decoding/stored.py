"""The samples of one image file before they become 8 bits, and the checks that every format shares."""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import BadInputError
from ...core.words import counted
from .conversions import GREY, GREY_PALETTE, ImageFacts

FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
# What Pillow's readers raise on broken files, as its own Image.open lists them and as fuzzing shows.
_BROKEN = (
    OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_warning_filters = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredImage:
    """One image as it is stored, not yet turned upright.

    Attributes:
        values: (H, W, 1) grey or (H, W, 3) RGB, black at zero. uint8 from 0 to 255 where the image has at most 8 bits
            or was reduced while it was read, else the stored integers or floats.
        facts: what the file holds.
        orientation: EXIF orientation that is still to be undone, 1 to 8; 1 is upright.
        alpha: (H, W), 0 transparent; None without transparency, and for palettes and transparent colours where it was
            not asked for.
        indices: uint8 (H, W) of a palette, else None.
        palette: uint8 (colours, 3), else None.
    """

    values: NDArray[Any]
    facts: ImageFacts
    orientation: int
    alpha: NDArray[Any] | None = None
    indices: NDArray[np.uint8] | None = None
    palette: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to read one image file: the file, the limits, and how exact its samples must be.

    Attributes:
        path: the file, for errors.
        max_pixels: largest width x height.
        min_side_px: smallest width and height.
        is_exact: all stored bits and transparency are needed (masks, a bit depth); else the upper byte of 16-bit colour
            will do.
        must_be_lossless: refuse lossy formats.
    """

    path: Path
    max_pixels: int
    min_side_px: int
    is_exact: bool
    must_be_lossless: bool = False

    def check_size(self, width: int, height: int, *, num_images: int = 1) -> None:
        """Compare the header with the limits, before any pixel is decoded.

        Raises:
            BadInputError: too large, too small or several images.
        """
        if width * height > self.max_pixels:
            raise BadInputError(
                f"{self.path}: the header says {width}x{height} pixels ({width * height / 1e6:.1f} megapixels); at "
                f"most {self.max_pixels / 1e6:g} megapixels are decoded. Crop the image, or raise max_pixels if it "
                "is meant."
            )
        if min(width, height) < self.min_side_px:
            raise BadInputError(
                f"{self.path}: the image is {width}x{height} pixels; expected at least {self.min_side_px} on each "
                "side. Check that this is an image of a part."
            )
        if num_images > 1:
            raise BadInputError(
                f"{self.path}: the file holds {num_images} images; expected one. Save the one that is meant as its "
                "own file."
            )

    def check_lossless(self, file_format: str, *, is_lossy: bool) -> None:
        """Refuse a lossy format where the request is for exact values.

        Raises:
            BadInputError: it is lossy.
        """
        if self.must_be_lossless and is_lossy:
            raise BadInputError(
                f"{self.path}: the mask is stored as {file_format}, where lossy coding changes pixels that were zero; "
                "expected PNG, BMP or TIFF. Export the mask again from the labelling tool as PNG."
            )


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open the file and close it; errors of other libraries become BadInputError.

    Raises:
        BadInputError: the file is missing, a folder, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise BadInputError(f"{path}: there is no such file; expected an image ({FORMATS}).") from None
    except IsADirectoryError:
        raise BadInputError(f"{path}: this is a folder; expected an image file ({FORMATS}).") from None
    except _BROKEN as error:
        raise BadInputError(
            f"{path}: the file cannot be read as an image ({type(error).__name__}: {error}); expected a complete "
            f"{FORMATS} file. It is damaged or of an unusual kind: copy it again, or export it as PNG."
        ) from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata: no reason to refuse an image, also where warnings are errors."""
    # The filter list belongs to the process, so two threads must not save and restore it at the same time.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def palette_colours(
    indices: NDArray[np.uint8], palette: NDArray[np.uint8], path: Path
) -> tuple[NDArray[np.uint8], str]:
    """Colours of an index image, and the name of its channels.

    Args:
        indices: uint8 (H, W).
        palette: uint8 (colours, 3).
        path: file of the image, for messages.

    Returns:
        uint8 (H, W, 1) where the palette holds greys alone, else (H, W, 3); "grey", "grey palette" or "palette".

    Raises:
        BadInputError: a pixel's index is none of the palette's.
    """
    if (highest := int(indices.max())) >= len(palette):
        raise BadInputError(
            f"{path}: a pixel has palette index {highest}, the palette has {counted(len(palette), 'colour')}; "
            f"its colour is not "
            "said. Export the image again."
        )
    if (palette != palette[:, :1]).any():
        return palette[indices], "palette"
    greys = palette[:, :1]
    is_ramp = np.array_equal(greys[:, 0], np.arange(len(greys))) or greys[:, 0].tolist() == [0, 255]
    return greys[indices], GREY if is_ramp else GREY_PALETTE


def largest_value(values: NDArray[Any], *, stored_bits: int) -> int | None:
    """Largest stored integer of an image deeper than 8 bits; see :class:`~.conversions.ImageFacts`."""
    if stored_bits <= 8 or values.dtype.kind == "f":
        return None
    largest = int(values.max())
    return largest * 256 + 255 if values.dtype == np.uint8 else largest
