"""Tags of a TIFF: the layout of its pixels in every depth, and errors that name the tags without a rule.

Pillow's reader knows a list of combinations and takes some of them for others: 16-bit white-is-zero is not inverted,
packed 12 bits come out as 0 to 4095 of 65535, signed bytes as unsigned. So the tags are read here, a combination
without a rule is refused by name, and :mod:`.tiff_pixels` reads the samples as they are declared.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_NUM_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_OTHER_COLOURS = {4: "transparency mask", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "raw colour filter array"}

UNCOMPRESSED = 1
_COMPRESSIONS = {
    1: "uncompressed", 2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW", 6: "old-style JPEG", 7: "JPEG",
    8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
}  # fmt: skip
_DIFFERENCING = frozenset({5, 8, 32946, 34925, 50000})
_CODED_IMAGES = frozenset({2, 3, 4, 6, 7, 50001})
_CCITT = frozenset({2, 3, 4})
LOSSY_COMPRESSIONS = frozenset({6, 7, 50001})

_SAMPLE_FORMATS = {1: "uint", 2: "int", 3: "float"}
_DEPTHS = {"uint": (1, 2, 4, 8, 10, 12, 14, 16, 32), "int": (8, 16, 32), "float": (16, 32, 64)}
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_READ_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 332, 338, 339, 530}
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TiffLayout:
    """The tags of a TIFF's only image, checked.

    Attributes:
        byte_order: "<" or ">", as struct and NumPy write it.
        width_px: width of the stored image, before its orientation is applied.
        height_px: height of the stored image, likewise.
        bits: bits per sample, equal for all channels.
        sample_format: "uint", "int" or "float".
        photometric: number of the PhotometricInterpretation tag.
        num_samples: channels that are stored, colours and extra ones.
        extra_samples: what each channel after the colours is: 0 unspecified, 1 premultiplied alpha, 2 alpha.
        is_planar: each channel is stored apart.
        compression: number of the Compression tag.
        predictor: 1 none, 2 differences, 3 differences of floats.
        is_bit_reversed: FillOrder 2, the first pixel in the lowest bit.
        orientation: 1 to 8 as EXIF numbers them.
        is_tiled: the image is stored in tiles, all of one size, rather than in strips.
        chunk_shape: rows and columns of a strip or a tile.
        chunks: (offset, number of bytes) of each strip or tile.
        colour_map: uint8 (2 ** bits, 3) of a palette, else None.
    """

    byte_order: Literal["<", ">"]
    width_px: int
    height_px: int
    bits: int
    sample_format: str
    photometric: int
    num_samples: int
    extra_samples: tuple[int, ...]
    is_planar: bool
    compression: int
    predictor: int
    is_bit_reversed: bool
    orientation: int
    is_tiled: bool
    chunk_shape: tuple[int, int]
    chunks: tuple[tuple[int, int], ...]
    colour_map: NDArray[np.uint8] | None

    @property
    def num_colours(self) -> int:
        """Channels before the extra ones: 1, 3 or 4."""
        return _NUM_COLOURS[self.photometric]

    @property
    def alpha_channel(self) -> int | None:
        """Index of the channel that is alpha, None without one."""
        places = [index for index, kind in enumerate(self.extra_samples) if kind in (1, 2)]
        return self.num_colours + places[0] if places else None

    @property
    def compression_name(self) -> str:
        """Name of the compression, for people."""
        return _COMPRESSIONS[self.compression]

    @property
    def is_coded_image(self) -> bool:
        """Whether the compression knows pixels rather than bytes (JPEG, CCITT, WebP): Pillow decodes those."""
        return self.compression in _CODED_IMAGES


def read_layout(stream: BinaryIO, path: Path) -> tuple[TiffLayout, int]:
    """Read the tags of the first image, and count the images.

    Args:
        stream: the open file.
        path: path of the file, for messages.

    Returns:
        The checked tags, and the number of images in the file.

    Raises:
        BadInputError: a tag has a value, or tags have a combination, without a rule; the tag is named.
        ValueError: the file's structure is broken.
    """
    stream.seek(0)
    head = stream.read(16)
    order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
    is_big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    (position,) = struct.unpack(f"{order}Q", head[8:16]) if is_big else struct.unpack(f"{order}I", head[4:8])
    first, following = _directory(stream, position, order=order, is_big=is_big)
    known = {position}
    while following and following not in known:
        known.add(following)
        _, following = _directory(stream, following, order=order, is_big=is_big)
    return _layout(_Tags(first, path), order), len(known)


def _directory(stream: BinaryIO, position: int, *, order: str, is_big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """The integer tags that are obeyed, as {number: values}, and where the next directory is (0: none)."""
    word, count_bytes, entry_bytes = ("Q", 8, 20) if is_big else ("I", 2, 12)
    stream.seek(position)
    (num_entries,) = struct.unpack(f"{order}{'Q' if is_big else 'H'}", stream.read(count_bytes))
    entries = stream.read(num_entries * entry_bytes)
    following = stream.read(struct.calcsize(f"={word}"))
    (after,) = struct.unpack(f"{order}{word}", following)
    if len(entries) < num_entries * entry_bytes:
        raise ValueError("the file ends inside its directory of tags")
    tags = {}
    for number, kind, count, value in struct.iter_unpack(f"{order}HH{word}{'8s' if is_big else '4s'}", entries):
        if number in _READ_TAGS and kind in _INTEGER_TYPES:
            form = f"{order}{count}{_INTEGER_TYPES[kind]}"
            num_bytes = count * struct.calcsize(f"={_INTEGER_TYPES[kind]}")
            if num_bytes > len(value):
                stream.seek(struct.unpack(f"{order}{word}", value)[0])
                value = stream.read(num_bytes)
            tags[number] = struct.unpack(form, value[:num_bytes])
    return tags, after


class _Tags:
    """Tags of one image by number, with a reader for each rule that a tag must follow."""

    def __init__(self, tags: dict[int, tuple[int, ...]], path: Path) -> None:
        self._tags = tags
        self.path = path

    def all(self, number: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        return self._tags.get(number) or default

    def one(self, number: int, default: int) -> int:
        return self.all(number, (default,))[0]

    def required(self, number: int, name: str) -> int:
        values = self.all(number)
        if not values:
            raise self.refused(f"the tag {name} is missing")
        return values[0]

    def equal(self, number: int, name: str, default: int) -> int:
        values = set(self.all(number, (default,)))
        if len(values) > 1:
            raise self.refused(f"{name} {self.all(number)} differs between channels")
        return values.pop()

    def refused(self, what: str) -> BadInputError:
        return BadInputError(
            f"{self.path}: this TIFF cannot be read as it was meant: {what}. Export the image as PNG, or as TIFF of "
            "8 or 16 bits, grey or RGB, uncompressed or LZW."
        )


def _layout(tags: _Tags, order: Literal["<", ">"]) -> TiffLayout:
    compression = tags.one(259, UNCOMPRESSED)
    if compression not in _COMPRESSIONS:
        raise tags.refused(f"Compression {compression} has no reader here")
    bits, sample_format = _depth(tags)
    photometric, num_samples, extra = _channels(tags, compression)
    width, height = tags.required(256, "ImageWidth"), tags.required(257, "ImageLength")
    if min(width, height) < 1:
        raise tags.refused(f"its size is {width}x{height}")
    chunk_shape, offsets, byte_counts = _chunks(tags, width, height)
    fill_order = tags.one(266, 1)
    if fill_order not in (1, 2):
        raise tags.refused(f"FillOrder {fill_order}; expected 1 or 2")
    orientation = tags.one(274, 1)
    layout = TiffLayout(
        byte_order=order, width_px=width, height_px=height, bits=bits, sample_format=sample_format,
        photometric=photometric, num_samples=num_samples, extra_samples=extra,
        is_planar=tags.one(284, 1) == 2 and num_samples > 1, compression=compression, predictor=tags.one(317, 1),
        is_bit_reversed=fill_order == 2, orientation=orientation if 1 <= orientation <= 8 else 1,
        is_tiled=bool(tags.all(324)), chunk_shape=chunk_shape, chunks=tuple(zip(offsets, byte_counts, strict=True)),
        colour_map=_colour_map(tags, bits) if photometric == PALETTE else None,
    )  # fmt: skip
    _check_combination(tags, layout)
    return layout


def _depth(tags: _Tags) -> tuple[int, str]:
    bits = tags.equal(258, "BitsPerSample", 1)
    number = tags.equal(339, "SampleFormat", 1)
    if number not in _SAMPLE_FORMATS:
        raise tags.refused(f"SampleFormat {number} is no number that has a grey value; expected 1, 2 or 3")
    sample_format = _SAMPLE_FORMATS[number]
    if bits not in _DEPTHS[sample_format]:
        raise tags.refused(
            f"BitsPerSample {bits} of {sample_format}; expected one of {', '.join(map(str, _DEPTHS[sample_format]))}"
        )
    return bits, sample_format


def _channels(tags: _Tags, compression: int) -> tuple[int, int, tuple[int, ...]]:
    """Photometric interpretation, number of stored channels, kinds of those after the colours."""
    # Old-style JPEG is YCbCr whatever its tag says.
    photometric = YCBCR if compression == 6 else tags.required(262, "PhotometricInterpretation")
    if photometric not in _NUM_COLOURS:
        name = _OTHER_COLOURS.get(photometric, "unknown")
        raise tags.refused(f"PhotometricInterpretation {photometric} ({name}) has no rule here")
    num_colours = _NUM_COLOURS[photometric]
    num_samples = tags.one(277, 3 if compression in (6, 7) and photometric in (RGB, YCBCR) else 1)
    extra = tags.all(338)
    num_extra = num_samples - num_colours
    if photometric == RGB and num_extra == 1 and not extra:
        # Many writers leave the tag out; readers agree on alpha.
        extra = (2,)
    if len(extra) != num_extra or (num_colours == 1 and num_extra > 1) or num_extra > 8:
        raise tags.refused(
            f"{num_samples} samples per pixel with PhotometricInterpretation {photometric} and {len(extra)} "
            f"ExtraSamples; which of them are the image is not said"
        )
    if any(kind not in (0, 1, 2) for kind in extra) or sum(kind != 0 for kind in extra) > 1:
        raise tags.refused(f"ExtraSamples {extra}; expected at most one alpha (1 or 2) and else 0")
    if photometric == CMYK and tags.one(332, 1) != 1:
        raise tags.refused("its inks are not CMYK (InkSet 2)")
    return photometric, num_samples, extra


def _chunks(tags: _Tags, width: int, height: int) -> tuple[tuple[int, int], tuple[int, ...], tuple[int, ...]]:
    """Shape of a strip or tile in pixels, and where each begins and how long it is."""
    if tags.all(324):
        shape = (tags.required(323, "TileLength"), tags.required(322, "TileWidth"))
        offsets, byte_counts = tags.all(324), tags.all(325)
    else:
        shape = (min(tags.one(278, height), height), width)
        offsets, byte_counts = tags.all(273), tags.all(279)
    if min(shape) < 1 or shape[0] > height + 65536 or shape[1] > width + 65536:
        raise tags.refused(f"its strips or tiles are {shape[1]}x{shape[0]} pixels")
    if not offsets or len(offsets) != len(byte_counts):
        raise tags.refused(f"it names {len(offsets)} strips or tiles and {len(byte_counts)} lengths of them")
    return shape, offsets, byte_counts


def _colour_map(tags: _Tags, bits: int) -> NDArray[np.uint8]:
    values = np.array(tags.all(320), dtype=np.int64)
    if bits > 8 or len(values) != 3 * 2**bits:
        raise tags.refused(f"a palette of {len(values)} values for {bits} bits; expected 3 x 2^bits, at most 8 bits")
    if 0 < values.max() < 256:
        raise tags.refused("the palette's largest value is below 256 of 65535: it was written as 8 bits")
    return np.ascontiguousarray((values >> 8).astype(np.uint8).reshape(3, -1).T)


def _check_combination(tags: _Tags, layout: TiffLayout) -> None:
    name = f"{layout.bits}-bit {layout.compression_name}"
    plain = layout.sample_format == "uint"
    may_differ = layout.compression in _DIFFERENCING and layout.bits in (8, 16, 32, 64)
    predictors = (1, 2, 3) if may_differ and layout.sample_format == "float" else (1, 2) if may_differ else (1,)
    if layout.predictor not in predictors:
        raise tags.refused(f"Predictor {layout.predictor} of {name} {layout.sample_format}")
    if layout.photometric == WHITE_IS_ZERO and layout.sample_format == "int":
        raise tags.refused("white is zero, and the samples are signed: which value is black is not said")
    if layout.photometric == PALETTE and not plain:
        raise tags.refused(f"a palette indexed by {layout.sample_format}")
    if layout.photometric in (CMYK, YCBCR) and not (plain and layout.bits in (8, 16)):
        raise tags.refused(f"CMYK or YCbCr of {name} {layout.sample_format}; expected 8 or 16 bits")
    if layout.is_coded_image:
        expected = 1 if layout.compression in _CCITT else 8
        if layout.bits != expected or not plain or layout.is_planar:
            raise tags.refused(f"{name} {layout.sample_format}{', channels apart' if layout.is_planar else ''}")
    elif layout.photometric == YCBCR and (layout.bits != 8 or tags.all(530, (2, 2))[:2] != (1, 1)):
        raise tags.refused(f"{name} YCbCr with subsampled colours")
