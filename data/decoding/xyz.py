"""Organised point clouds of MVTec 3D-AD: float32 TIFF with three samples per pixel, which Pillow cannot read.

Read is a part of TIFF 6.0: little or big endian, strips, three IEEE 32-bit floats per pixel (chunky or planar),
uncompressed or Deflate, without predictor. Anything else is refused by name, never guessed.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError

#: How the name of a cloud's file ends.
CLOUD_SUFFIX = ".tiff"

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS = 256, 257, 258, 259, 262, 273
_ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _SAMPLE_FORMAT = 317, 322, 339

_FIXED = {
    _BITS: ({32}, "bits per sample"),
    _SAMPLES: ({3}, "samples per pixel"),
    _SAMPLE_FORMAT: ({3}, "sample format (3 is float)"),
    _PLANAR: ({1, 2}, "planar configuration"),
    _PREDICTOR: ({1}, "predictor (1 is none)"),
    _ORIENTATION: ({1}, "orientation (1 is upright)"),
}
_DEFAULTS = {_COMPRESSION: (1,), _SAMPLES: (1,), _PLANAR: (1,), _PREDICTOR: (1,), _ORIENTATION: (1,)}
_NONE, _DEFLATE = 1, (8, 32946)
_SEPARATE, _RGB, _FLOAT = 2, 2, 3
_TYPE_CODES = {1: "B", 3: "H", 4: "I"}
_FLOAT_BYTES = 4


def read_xyz(path: Path | str, *, max_pixels: int = 100_000_000) -> NDArray[np.float32]:
    """Read one organised point cloud.

    Args:
        path: the TIFF file.
        max_pixels: largest width x height that is read.

    Returns:
        float32 (H, W, 3): x, y, z in the file's unit (metres in MVTec 3D-AD), camera frame;
        (0, 0, 0) is no measurement.

    Raises:
        BadInputError: the file is missing, truncated, or a TIFF of another kind.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read ({error.strerror}); expected a float32 xyz TIFF. Check the path."
        ) from error
    try:
        order, tags = _tags(content, path)
        width, height = _shape(tags, path, max_pixels)
        planar = tags[_PLANAR][0] == _SEPARATE
        row_bytes = width * _FLOAT_BYTES * (1 if planar else 3)
        data = _strips(content, tags, path, height=height, row_bytes=row_bytes, num_planes=3 if planar else 1)
    except struct.error as error:
        raise BadInputError(
            f"{path}: the file ends too early: it has {len(content)} bytes, and its TIFF header points beyond them. "
            "Copy the file again."
        ) from error
    except (IndexError, zlib.error) as error:
        what = "a tag of the TIFF has no value" if isinstance(error, IndexError) else "its Deflate data are damaged"
        raise BadInputError(f"{path}: {what}; {len(content)} bytes seen. Copy the file again.") from error
    values = np.frombuffer(data, dtype=f"{order}f4")
    points = values.reshape(3, height, width).transpose(1, 2, 0) if planar else values.reshape(height, width, 3)
    return points.astype(np.float32, order="C")


def write_xyz(path: Path, points: NDArray[np.float32]) -> None:
    """Write an organised point cloud as ``read_xyz`` and MVTec 3D-AD's tools read it; missing folders are made.

    Args:
        path: the TIFF file; uncompressed, one strip, little endian.
        points: float32 (H, W, 3).
    """
    height, width, _ = points.shape
    data = np.ascontiguousarray(points, "<f4").tobytes()
    entries = {_WIDTH: width, _HEIGHT: height, _COMPRESSION: _NONE, _PHOTOMETRIC: _RGB, _SAMPLES: 3}
    entries |= {_ROWS_PER_STRIP: height, _STRIP_BYTES: len(data), _PLANAR: 1}
    # Three values do not fit into an entry: they stand behind the directory, and the points behind them.
    num_entries = len(entries) + len(triples := (_BITS, _SAMPLE_FORMAT)) + 1
    behind = 8 + 2 + 12 * num_entries + 4
    packed = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()}
    packed |= {tag: struct.pack("<HHII", tag, 3, 3, behind + 6 * i) for i, tag in enumerate(triples)}
    packed[_STRIP_OFFSETS] = struct.pack("<HHII", _STRIP_OFFSETS, 4, 1, behind + 6 * len(triples))
    directory = struct.pack("<H", num_entries) + b"".join(packed[tag] for tag in sorted(packed)) + bytes(4)
    values = struct.pack("<6H", *[8 * _FLOAT_BYTES] * 3, *[_FLOAT] * 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + values + data)


def _tags(content: bytes, path: Path) -> tuple[str, dict[int, tuple[int, ...]]]:
    """Byte order and the integer tags of the only directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        raise BadInputError(
            f"{path}: begins with {content[:4].hex(' ') or 'nothing (0 bytes)'}; expected a classic TIFF (49 49 2a 00 "
            "or 4d 4d 00 2a) with float32 xyz. Save the point cloud again, for example with tifffile."
        )
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", content, start)
    tags: dict[int, tuple[int, ...]] = dict(_DEFAULTS)
    for position in range(start + 2, start + 2 + 12 * num_entries, 12):
        tag, kind, num_values = struct.unpack_from(f"{order}HHI", content, position)
        code = _TYPE_CODES.get(kind)
        if code is None:
            continue
        layout = f"{order}{num_values}{code}"
        where = position + 8
        if struct.calcsize(layout) > 4:
            (where,) = struct.unpack_from(f"{order}I", content, where)
        tags[tag] = struct.unpack_from(layout, content, where)
    (following,) = struct.unpack_from(f"{order}I", content, start + 2 + 12 * num_entries)
    if following:
        raise BadInputError(f"{path}: the TIFF has several pages; expected one. Save the page that is meant alone.")
    return order, tags


def _shape(tags: dict[int, tuple[int, ...]], path: Path, max_pixels: int) -> tuple[int, int]:
    for tag, (allowed, what) in _FIXED.items():
        if not tags.get(tag) or not allowed.issuperset(tags[tag]):
            expected = " or ".join(map(str, sorted(allowed)))
            raise BadInputError(
                f"{path}: {what} is {tags.get(tag, 'not given')}; expected {expected}. An xyz file holds three float32 "
                "per pixel; save the point cloud again, for example with tifffile."
            )
    compression = tags[_COMPRESSION][0]
    if compression != _NONE and compression not in _DEFLATE:
        raise BadInputError(
            f"{path}: TIFF compression {compression}; expected none (1) or Deflate (8). Save the file uncompressed."
        )
    needed = (_WIDTH, _HEIGHT, _STRIP_OFFSETS, _STRIP_BYTES)
    if _TILE_WIDTH in tags or any(tag not in tags for tag in needed):
        raise BadInputError(f"{path}: the TIFF is stored in tiles or lacks its strips; expected strips. Save it anew.")
    width, height = tags[_WIDTH][0], tags[_HEIGHT][0]
    if not 0 < width * height <= max_pixels:
        raise BadInputError(
            f"{path}: the header says {width}x{height} points; expected 1 to {max_pixels}. "
            "Crop it, or raise max_pixels."
        )
    return width, height


def _strips(
    content: bytes, tags: dict[int, tuple[int, ...]], path: Path, *, height: int, row_bytes: int, num_planes: int
) -> bytes:
    rows_per_strip = min(tags.get(_ROWS_PER_STRIP, (height,))[0], height)
    offsets, lengths = tags[_STRIP_OFFSETS], tags[_STRIP_BYTES]
    strips_per_plane = math.ceil(height / rows_per_strip) if rows_per_strip else 0
    if not len(offsets) == len(lengths) == strips_per_plane * num_planes:
        raise BadInputError(
            f"{path}: {len(offsets)} strips with {len(lengths)} lengths; {strips_per_plane * num_planes} expected for "
            f"{height} rows. The file is damaged: copy it again."
        )
    parts = []
    for strip, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        first_row = strip % strips_per_plane * rows_per_strip
        due = min(rows_per_strip, height - first_row) * row_bytes
        part = content[offset : offset + length]
        if tags[_COMPRESSION][0] in _DEFLATE and len(part) == length:
            # One byte more than due is enough to notice a strip that is too long, however far it would unfold.
            part = zlib.decompressobj().decompress(part, due + 1)
        if len(part) != due:
            raise BadInputError(
                f"{path}: strip {strip} has {len(part)} bytes, {due} expected; the file is truncated or damaged. "
                "Copy it again."
            )
        parts.append(part)
    return b"".join(parts)
