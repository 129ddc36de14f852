"""Pixels of a TIFF exactly as its tags declare them: every depth, byte order, strips, tiles, planes, compressions.

The bytes of compressed strips and tiles are unpacked by libtiff through Pillow, wrapped as 8-bit grey rows, so that no
rule about pixels applies to them there.
"""

import io
import struct
from collections.abc import Iterator
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ...core.errors import BadInputError
from .conversions import GREY, ImageFacts
from .stored import Request, StoredImage, largest_value, palette_colours
from .tiff import CMYK, PALETTE, UNCOMPRESSED, WHITE_IS_ZERO, YCBCR, TiffLayout

_REVERSED = np.array([int(f"{value:08b}"[::-1], 2) for value in range(256)], dtype=np.uint8)
#: Bytes unpacked by one call of libtiff; Pillow refuses more than 178 million, as a guard of its own.
_BATCH_BYTES = 1 << 26


def read_stored(stream: BinaryIO, layout: TiffLayout) -> NDArray[Any]:
    """Read all stored channels.

    Args:
        stream: the file.
        layout: checked tags of the file, whose ``is_coded_image`` is False.

    Returns:
        (H, W, num_samples): uint8 to 8 bits, uint16 from 10 to 16, else the declared type in native byte order.
        Values are the stored ones: nothing is scaled or inverted.

    Raises:
        OSError, ValueError: data is missing or damaged.
    """
    num_planes = layout.num_samples if layout.is_planar else 1
    per_pixel = 1 if layout.is_planar else layout.num_samples
    chunk_rows, chunk_columns = layout.chunk_shape
    places = [(y, x) for y in range(0, layout.height_px, chunk_rows) for x in range(0, layout.width_px, chunk_columns)]
    if len(layout.chunks) != num_planes * len(places):
        raise ValueError(f"{len(layout.chunks)} strips or tiles; expected {num_planes * len(places)}")
    stored = np.empty((layout.height_px, layout.width_px, layout.num_samples), _dtype(layout))
    blocks = _blocks(stream, layout, row_bytes=-(-chunk_columns * per_pixel * layout.bits // 8))
    for number, block in enumerate(blocks):
        plane, index = divmod(number, len(places))
        y, x = places[index]
        samples = _samples(block, layout, columns=chunk_columns, per_pixel=per_pixel)
        target = stored[y : y + chunk_rows, x : x + chunk_columns, plane : plane + per_pixel]
        target[:] = samples[: target.shape[0], : target.shape[1]]
    return stored


def black_is_zero(stored: NDArray[Any], layout: TiffLayout) -> NDArray[Any]:
    """Colours with black at zero; up to 8 bits scaled to 0 to 255 (save a palette's indices), deeper ones as stored.

    Args:
        stored: (H, W, channels) without extra channels.
        layout: checked tags of the file.
    """
    if layout.photometric == PALETTE:
        return stored
    full = 1 if layout.sample_format == "float" else 2**layout.bits - 1
    if layout.photometric == WHITE_IS_ZERO:
        stored = stored.dtype.type(full) - stored
    if layout.bits < 8:
        stored = stored * np.uint8(255 // full)
    return stored


def _dtype(layout: TiffLayout) -> np.dtype[Any]:
    size = 1 if layout.bits <= 8 else 2 if layout.bits <= 16 else layout.bits // 8
    return np.dtype(f"={layout.sample_format[0]}{size}")


def _blocks(stream: BinaryIO, layout: TiffLayout, *, row_bytes: int) -> Iterator[NDArray[np.uint8]]:
    """uint8 (rows, row_bytes) of each strip or tile, unpacked, in the order of the file's list."""
    rows, columns = layout.chunk_shape
    num_down = -(-layout.height_px // rows)
    num_across = -(-layout.width_px // columns)
    last_rows = rows if layout.is_tiled else layout.height_px - rows * (num_down - 1)
    per_batch = max(1, _BATCH_BYTES // (rows * row_bytes))

    def rows_and_batch(number: int) -> tuple[int, int]:
        is_last = number // num_across % num_down == num_down - 1
        return last_rows if is_last else rows, number // per_batch

    for (num_rows, _), numbers in groupby(range(len(layout.chunks)), rows_and_batch):
        packed = [_chunk(stream, *layout.chunks[number]) for number in numbers]
        if layout.compression == UNCOMPRESSED:
            yield from (_raw(chunk, layout, num_rows=num_rows, row_bytes=row_bytes) for chunk in packed)
        else:
            data = _unpacked(packed, layout, num_rows=num_rows, row_bytes=row_bytes)
            yield from data.reshape(len(packed), num_rows, row_bytes)


def _chunk(stream: BinaryIO, offset: int, num_bytes: int) -> bytes:
    stream.seek(offset)
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise ValueError(f"the file ends inside a strip or tile: {len(data)} of {num_bytes} bytes are there")
    return data


def _raw(chunk: bytes, layout: TiffLayout, *, num_rows: int, row_bytes: int) -> NDArray[np.uint8]:
    if len(chunk) < num_rows * row_bytes:
        raise ValueError(f"a strip or tile holds {len(chunk)} bytes; expected {num_rows * row_bytes}")
    data = np.frombuffer(chunk, np.uint8, count=num_rows * row_bytes)
    return (_REVERSED[data] if layout.is_bit_reversed else data).reshape(num_rows, row_bytes)


def _unpacked(packed: list[bytes], layout: TiffLayout, *, num_rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """uint8 (all rows, row_bytes) of strips that libtiff unpacks."""
    num = len(packed)
    fill_order = 2 if layout.is_bit_reversed else 1
    ends = np.cumsum([0, *map(len, packed)])
    data = b"".join(packed)
    entries = [
        (256, row_bytes), (257, num * num_rows), (258, 8), (259, layout.compression), (262, 1), (266, fill_order),
        (273, 8 + len(data)), (277, 1), (278, num_rows), (279, 8 + len(data) + 4 * num),
    ]  # fmt: skip
    lists = [ends[:-1] + 8, np.diff(ends)]
    if num == 1:
        entries = [(tag, {273: 8, 279: len(data)}.get(tag, value)) for tag, value in entries]
    directory = struct.pack("<H", len(entries))
    for tag, value in entries:
        directory += struct.pack("<HHII", tag, 4, num if tag in (273, 279) else 1, value)
    tail = b"".join(item.astype("<u4").tobytes() for item in lists) + directory + bytes(4)
    head = b"II*\0" + struct.pack("<I", 8 + len(data) + 8 * num)
    with TiffImageFile(io.BytesIO(head + data + tail)) as image:
        try:
            image.load()
        except OSError as error:
            raise ValueError(
                f"strips or tiles of {layout.compression_name} cannot be unpacked: damaged, or Pillow's libtiff was "
                "built without it"
            ) from error
        return np.asarray(image)


def _samples(block: NDArray[np.uint8], layout: TiffLayout, *, columns: int, per_pixel: int) -> NDArray[Any]:
    """(rows, columns, per_pixel) from the bytes of whole rows."""
    rows, per_row = block.shape[0], columns * per_pixel
    if layout.bits < 8:
        return _small(block, layout.bits)[:, :per_row].reshape(rows, columns, per_pixel)
    if layout.bits in (10, 12, 14):
        return _packed_bits(block, layout.bits, num=per_row).reshape(rows, columns, per_pixel)
    dtype = _dtype(layout)
    if layout.predictor == 3:
        return _float_differences(block, dtype, columns=columns, per_pixel=per_pixel)
    stored = np.ascontiguousarray(block).view(dtype.newbyteorder(layout.byte_order)).astype(dtype)
    stored = stored.reshape(rows, columns, per_pixel)
    if layout.predictor == 2:
        words = stored.view(f"u{dtype.itemsize}")
        return np.cumsum(words, axis=1, dtype=words.dtype).view(dtype)
    return stored


def _small(block: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return ((block[:, :, None] >> shifts) & np.uint8(2**bits - 1)).reshape(block.shape[0], -1)


def _packed_bits(block: NDArray[np.uint8], bits: int, *, num: int) -> NDArray[np.uint16]:
    """Samples that follow each other bit by bit, highest bit first, whatever the byte order (TIFF 6.0, FillOrder)."""
    # Every four samples begin at a whole byte.
    groups, group_bytes = -(-num // 4), bits // 2
    wide = np.zeros((block.shape[0], groups * group_bytes + 2), np.uint32)
    wide[:, : block.shape[1]] = block
    samples = np.empty((block.shape[0], groups, 4), np.uint16)
    for k in range(4):
        first, offset = divmod(k * bits, 8)
        high, middle, low = (wide[:, first + i :: group_bytes][:, :groups] for i in range(3))
        samples[:, :, k] = (high << 16 | middle << 8 | low) >> (24 - bits - offset) & (2**bits - 1)
    return samples.reshape(block.shape[0], -1)[:, :num]


def _float_differences(block: NDArray[np.uint8], dtype: np.dtype[Any], *, columns: int, per_pixel: int) -> NDArray[Any]:
    """Floats whose bytes are stored plane by plane, highest first, as differences (TIFF technical note 3)."""
    rows = block.shape[0]
    steps = np.cumsum(block.reshape(rows, -1, per_pixel), axis=1, dtype=np.uint8)
    planes = steps.reshape(rows, dtype.itemsize, columns * per_pixel)
    bytes_first = np.ascontiguousarray(planes.transpose(0, 2, 1))
    return bytes_first.view(dtype.newbyteorder(">")).astype(dtype).reshape(rows, columns, per_pixel)


def read_plain_tiff(stream: BinaryIO, layout: TiffLayout, request: Request) -> StoredImage:
    """Read a TIFF whose compression works on bytes, not on pixels.

    Args:
        stream: the file.
        layout: checked tags of the file, whose ``is_coded_image`` is False.
        request: limits, already compared with the header.

    Returns:
        The image; CMYK and YCbCr are RGB of 8 bits by then, as Pillow converts them.

    Raises:
        BadInputError: 16-bit CMYK where all bits are needed, or an index that the palette does not have.
        OSError, ValueError: data is missing or damaged.
    """
    stored = read_stored(stream, layout)
    alpha = stored[:, :, layout.alpha_channel] if layout.alpha_channel is not None else None
    values = black_is_zero(stored[:, :, : layout.num_colours], layout)
    if alpha is not None and 1 in layout.extra_samples:
        values = _unpremultiplied(values, alpha)
    indices, name = None, {1: GREY, 3: "RGB", 4: "CMYK"}[layout.num_colours]
    if layout.colour_map is not None:
        indices = np.ascontiguousarray(values[:, :, 0])
        values, name = palette_colours(indices, layout.colour_map, request.path)
    elif layout.photometric in (CMYK, YCBCR):
        values = _as_rgb(values, layout, request)
    facts = ImageFacts(
        file_format="TIFF", stored_channels=name, stored_bits=8 if indices is not None else layout.bits,
        sample_format=layout.sample_format, has_alpha=alpha is not None,
        num_extra_channels=sum(kind == 0 for kind in layout.extra_samples), orientation=layout.orientation,
        largest_value=largest_value(values, stored_bits=layout.bits),
    )  # fmt: skip
    return StoredImage(
        values=values, facts=facts, orientation=layout.orientation, alpha=alpha, indices=indices,
        palette=layout.colour_map,
    )  # fmt: skip


def _unpremultiplied(values: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Colours before they were multiplied by alpha; where alpha is zero they are as stored."""
    if values.dtype.kind == "f":
        return np.where(alpha[:, :, None] > 0, values / np.where(alpha > 0, alpha, 1)[:, :, None], values)
    full = int(np.iinfo(values.dtype).max)
    divisor = np.where(alpha > 0, alpha, full)[:, :, None].astype(np.uint64)
    restored: NDArray[Any] = np.minimum(values.astype(np.uint64) * full // divisor, full).astype(values.dtype)
    return restored


def _as_rgb(values: NDArray[Any], layout: TiffLayout, request: Request) -> NDArray[np.uint8]:
    if layout.bits == 16 and request.is_exact:
        raise BadInputError(
            f"{request.path}: CMYK of 16 bits is read by its upper bytes, and all bits are needed here (a mask, or a "
            "bit depth). Export the image as RGB."
        )
    upper = values if layout.bits == 8 else (values >> 8).astype(np.uint8)
    mode = "CMYK" if layout.photometric == CMYK else "YCbCr"
    size = (layout.width_px, layout.height_px)
    return np.asarray(Image.frombytes(mode, size, np.ascontiguousarray(upper).tobytes()).convert("RGB"))
