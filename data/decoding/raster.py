"""PNG, JPEG, BMP and WebP, and a TIFF that holds JPEG or CCITT: Pillow decodes, and its gaps are closed here.

Pillow reads an index image of a BMP as packed bits where its palette is black and white, takes an index outside the
palette for black, and inverts every CMYK JPEG. The first is mended, the others are refused where they matter.
"""

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import PIL.ImageFile
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ...core.errors import BadInputError, UsageError
from .conversions import GREY, ImageFacts
from .stored import Request, StoredImage, largest_value, palette_colours, quiet_pillow
from .tiff import LOSSY_COMPRESSIONS, TiffLayout

_ORIENTATION_TAG = 0x0112
# How the bytes of 16-bit colour are unpacked to get those that Pillow drops. Read as little endian, the byte that it
# keeps is the lower one; grey and alpha of 16 bits are the four bytes of an 8-bit RGBA.
_GREY_ALPHA_PNG = 4
_PNG_UNPACKING = {2: "RGB;16L", _GREY_ALPHA_PNG: "RGBA", 6: "RGBA;16L"}
_DIRECT_MODES = frozenset({"L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F", "RGB"})
_CONVERTED_MODES = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def read_png(stream: BinaryIO, request: Request) -> StoredImage:
    """PNG of every depth and colour type."""
    head = stream.read(26)
    bits, colour_type = head[24], head[25]
    with _opened(PngImageFile, stream, request) as image:
        key = image.info.get("transparency")
        if image.mode == "P":
            return _palette_image(image, request, file_format="PNG", palette=_palette_bytes(image), key=key)
        stored = _array(_loaded(image, request), request)
        if bits == 16 and colour_type != 0 and request.is_exact:
            stored = _sixteen_bits(stored, stream, request, colour_type=colour_type)
        num_colours = 3 if colour_type in (2, 6) else 1
        values = stored[:, :, :num_colours]
        alpha = stored[:, :, -1] if colour_type in (4, 6) else None
        if alpha is None and key is not None and request.is_exact:
            alpha = (values != _transparent_level(key, bits)).any(axis=2)
        orientation = _orientation(image)
        facts = ImageFacts(
            file_format="PNG", stored_channels="RGB" if num_colours == 3 else GREY, stored_bits=bits,
            has_alpha=colour_type in (4, 6) or key is not None, orientation=orientation,
            largest_value=largest_value(values, stored_bits=bits),
        )  # fmt: skip
        return StoredImage(values=values, facts=facts, orientation=orientation, alpha=alpha)


def _transparent_level(key: int | tuple[int, ...], bits: int) -> NDArray[np.int64]:
    """The transparent colour in the scale of the pixels: Pillow gives it as it is stored, of 1 bit by its release."""
    if bits == 1:
        return np.array(255 if key else 0)
    return np.array(key) * (255 // (2**bits - 1) if bits < 8 else 1)


def _sixteen_bits(
    upper: NDArray[np.uint8], stream: BinaryIO, request: Request, *, colour_type: int
) -> NDArray[np.uint16]:
    """(H, W, channels) of a PNG of 16-bit colour, or grey and alpha, of which Pillow gives the upper bytes."""
    with _opened(PngImageFile, stream, request) as image:
        image.tile = [(*tile[:3], _PNG_UNPACKING[colour_type]) for tile in image.tile]  # type: ignore[misc]
        stored = np.array(_loaded(image, request))
    values: NDArray[np.uint16]
    if colour_type == _GREY_ALPHA_PNG:
        values = stored.view(">u2").astype(np.uint16)
    else:
        values = upper.astype(np.uint16) << 8 | stored
    return values


def read_jpeg(stream: BinaryIO, request: Request) -> StoredImage:
    """JPEG of 8 bits; of one with previews (MPO) the main image."""
    request.check_lossless("JPEG", is_lossy=True)
    with _opened(JpegImageFile, stream, request) as image:
        if image.mode == "CMYK" and "adobe" not in image.info:
            raise BadInputError(
                f"{request.path}: a CMYK JPEG without Adobe's marker does not say whether its inks are stored "
                "inverted. Export the image as RGB."
            )
        return _plain_image(image, request, file_format="JPEG")


def read_webp(stream: BinaryIO, request: Request) -> StoredImage:
    """WebP, lossy and lossless."""
    request.check_lossless("WebP", is_lossy=True)
    with _opened(WebPImageFile, stream, request) as image:
        return _plain_image(image, request, file_format="WebP")


def read_bmp(stream: BinaryIO, request: Request) -> StoredImage:
    """BMP with a palette or RGB, packed, run-length coded, bottom-up or top-down."""
    data = bytearray(stream.read())
    header_bytes, *_ = struct.unpack_from("<I", data, 14)
    is_old = header_bytes == 12
    (bits,) = struct.unpack_from("<H", data, 24 if is_old else 28)
    if bits > 8:
        with _opened(BmpImageFile, io.BytesIO(data), request) as image:
            return _plain_image(image, request, file_format="BMP", stored_bits=5 if bits == 16 else 8)
    num_colours = 0 if is_old else struct.unpack_from("<I", data, 46)[0]
    entry_bytes, start = 3 if is_old else 4, 14 + header_bytes
    entries = bytes(data[start : start + entry_bytes * (num_colours or 2**bits)])
    palette = np.frombuffer(entries, np.uint8).reshape(-1, entry_bytes)[:, 2::-1]
    # With a palette of greys Pillow takes the indices for 1-bit or 8-bit greys, whatever the bits per pixel are.
    data[start : start + 3] = b"\1\2\3"
    with _opened(BmpImageFile, io.BytesIO(data), request) as image:
        return _palette_image(image, request, file_format="BMP", palette=palette, stored_bits=bits)


def read_coded_tiff(stream: BinaryIO, layout: TiffLayout, request: Request) -> StoredImage:
    """TIFF whose strips or tiles are JPEG, CCITT or WebP."""
    request.check_lossless("TIFF with lossy compression", is_lossy=layout.compression in LOSSY_COMPRESSIONS)
    with _opened(TiffImageFile, stream, request) as image:
        # Pillow turns a TIFF upright by itself.
        return _plain_image(
            image, request, file_format="TIFF", stored_bits=layout.bits, turned_from=layout.orientation
        )  # fmt: skip


def _opened(reader: Callable[..., ImageFile], stream: BinaryIO, request: Request) -> ImageFile:
    if PIL.ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, so that half of an image would be read as "
            "the whole of it. Set it to False."
        )
    stream.seek(0)
    # Pillow's Image.open would warn or raise by its own global pixel limit; its reader classes do not.
    with quiet_pillow():
        image = reader(stream)
        num_images = getattr(image, "n_frames", 1)
    request.check_size(*image.size, num_images=num_images)
    return image


def _loaded(image: ImageFile, request: Request) -> ImageFile:
    if image.mode not in _DIRECT_MODES | _CONVERTED_MODES.keys() | {"P", "LA", "RGBA"}:
        raise BadInputError(
            f"{request.path}: pixels of mode {image.mode!r} have no rule here; expected grey, palette, RGB, CMYK, with "
            "or without alpha. Export the image as 8-bit RGB."
        )
    if isinstance(image, TiffImageFile):
        with quiet_pillow():
            image.load()
    else:
        image.load()
    return image


def _array(image: ImageFile, request: Request) -> NDArray[Any]:
    """(H, W, channels) of a loaded image that has no palette."""
    if image.mode not in _DIRECT_MODES | _CONVERTED_MODES.keys() | {"LA", "RGBA"}:
        raise BadInputError(f"{request.path}: the pixel mode became {image.mode!r} on loading. Export it as PNG.")
    other = _CONVERTED_MODES.get(image.mode)
    array = np.asarray(image.convert(other) if other else image)
    return array[:, :, None] if array.ndim == 2 else array


def _plain_image(
    image: ImageFile, request: Request, *, file_format: str, stored_bits: int = 8, turned_from: int | None = None
) -> StoredImage:
    mode = image.mode
    stored = _array(_loaded(image, request), request)
    has_alpha = stored.shape[2] in (2, 4)
    orientation = _orientation(image) if turned_from is None else 1
    facts = ImageFacts(
        file_format=file_format, stored_channels="CMYK" if mode == "CMYK" else "RGB" if stored.shape[2] > 2 else GREY,
        stored_bits=stored_bits, has_alpha=has_alpha, orientation=turned_from or orientation,
    )  # fmt: skip
    return StoredImage(
        values=stored[:, :, :-1] if has_alpha else stored, facts=facts, orientation=orientation,
        alpha=stored[:, :, -1] if has_alpha else None,
    )  # fmt: skip


def _palette_bytes(image: ImageFile) -> NDArray[np.uint8]:
    # Loading fills the palette up to 256 colours.
    entries = image.palette.palette if image.palette is not None else b""
    return np.frombuffer(bytes(entries), np.uint8).reshape(-1, 3)


def _palette_image(
    image: ImageFile,
    request: Request,
    *,
    file_format: str,
    palette: NDArray[np.uint8],
    key: int | bytes | None = None,
    stored_bits: int = 8,
) -> StoredImage:
    _loaded(image, request)
    if image.mode != "P":
        raise BadInputError(f"{request.path}: the pixel mode became {image.mode!r} on loading. Export it as PNG.")
    indices = np.asarray(image)
    values, name = palette_colours(indices, palette, request.path)
    alpha = None
    if key is not None and request.is_exact:
        opacity = np.full(256, 255, np.uint8)
        if isinstance(key, int):
            opacity[key] = 0
        else:
            opacity[: len(key)] = np.frombuffer(key[:256], np.uint8)
        alpha = opacity[indices]
    orientation = _orientation(image)
    facts = ImageFacts(
        file_format=file_format, stored_channels=name, stored_bits=1 if name == GREY and stored_bits == 1 else 8,
        has_alpha=key is not None, orientation=orientation,
    )  # fmt: skip
    return StoredImage(
        values=values, facts=facts, orientation=orientation, alpha=alpha, indices=indices, palette=palette
    )  # fmt: skip


def _orientation(image: Image.Image) -> int:
    with quiet_pillow():
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
