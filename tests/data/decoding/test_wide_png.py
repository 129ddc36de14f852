"""16-bit PNG: every stored bit, by a byte-by-byte writer of all filters, interlaced, and by files of libpng."""

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from lineproof.core.errors import BadInputError
from lineproof.data.decoding.decode import decode_image, decode_mask, decode_with_facts
from lineproof.data.decoding.raster import read_png
from lineproof.data.decoding.stored import Request


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(samples: np.ndarray, kinds: list[int]) -> bytes:
    """Rows of (H, W, C) uint16 filtered by the formulas of the specification, byte by byte."""
    lines = b""
    step = 2 * samples.shape[2]
    above = bytes(samples.shape[1] * step)
    for row, kind in zip(samples.astype(">u2"), kinds, strict=True):
        now = row.tobytes()
        line = bytearray([kind])
        for i, value in enumerate(now):
            a, b, c = now[i - step] if i >= step else 0, above[i], above[i - step] if i >= step else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        lines += bytes(line)
        above = now
    return lines


def wide_png(samples: np.ndarray, *, kinds: list[int], interlaced: bool = False, extra: bytes = b"") -> bytes:
    height, width, num = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[num]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    lines = b"".join(filtered(part, kinds[: len(part)]) for part in parts if part.size)
    data = zlib.compress(lines)
    half = len(data) // 2
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, interlaced)) + extra
    body += chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:]) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def stored(content: bytes) -> np.ndarray:
    """(H, W, colours and alpha), every bit."""
    samples = read_png(io.BytesIO(content), REQUEST)
    alpha = [] if samples.alpha is None else [samples.alpha]
    return np.dstack([samples.values, *alpha])


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
REQUEST = Request(path=Path("a.png"), max_pixels=10**6, min_side_px=1, is_exact=True)
RNG = np.random.default_rng(4)


def saved(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("num", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(23, 17), (9, 40), (40, 9), (1, 12), (12, 1), (1, 1)])
def test_every_filter_gives_the_very_samples(num: int, height: int, width: int) -> None:
    samples = RNG.integers(0, 65536, size=(height, width, num)).astype(np.uint16)
    rows = [[kind] * height for kind in range(5)] + [[*RNG.integers(0, 5, size=height - 1).tolist(), 4]]
    for kinds, interlaced in itertools.product(rows, (False, True)):
        read = stored(wide_png(samples, kinds=kinds, interlaced=interlaced))
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, samples, err_msg=str(kinds))


@pytest.mark.parametrize("num", [2, 3, 4])
def test_files_of_libpng(num: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="the independent writer is not installed")
    ramp = np.add.outer(np.arange(200) * 100, np.arange(150) * 37)[:, :, None] + RNG.integers(0, 900, (200, 150, num))
    samples = ramp.astype(np.uint16)
    for level in (0, 1, 9):
        np.testing.assert_array_equal(stored(imagecodecs.png_encode(samples, level=level)), samples)


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_a_bit_depth_takes_the_real_samples(tmp_path: Path, num: int) -> None:
    samples = RNG.integers(0, 4096, size=(12, 10, num)).astype(np.uint16)
    path = saved(tmp_path, wide_png(samples, kinds=[4, 3, 2, 1, 0, 4] * 2))
    colours = samples[:, :, : 3 if num > 2 else 1]
    expected = np.broadcast_to(colours, (12, 10, 3))
    np.testing.assert_array_equal(decode_image(path, bit_depth=12), expected >> 4)
    np.testing.assert_array_equal(decode_image(path, bit_depth=14), expected >> 6)
    np.testing.assert_array_equal(decode_image(path, bit_depth=16), expected >> 8)
    np.testing.assert_array_equal(decode_image(path), expected >> 8)
    facts = decode_with_facts(path, bit_depth=12).facts
    assert (facts.stored_bits, facts.largest_value) == (16, int(colours.max()))
    assert (facts.stored_channels, facts.has_alpha) == ("RGB" if num > 2 else "grey", num in (2, 4))
    # By the upper bytes alone, colour is known to stay below a power of two.
    assert (decode_with_facts(path).facts.largest_value <= 4095) == (colours.max() <= 4095)
    samples[3, 3] = 4096
    saved(tmp_path, wide_png(samples, kinds=[0] * 12))
    with pytest.raises(BadInputError, match=r"values run from \d+ to 4096; expected 0 to 4095\. bit_depth=12 was"):
        decode_image(path, bit_depth=12)


def test_a_wide_mask_counts_its_lower_bytes(tmp_path: Path) -> None:
    samples = np.zeros((12, 10, 3), np.uint16)
    samples[2:5, 3:9, 1] = 1
    path = saved(tmp_path, wide_png(samples, kinds=[1] * 12))
    np.testing.assert_array_equal(decode_mask(path), samples.any(axis=2))
    samples[:] = 0
    samples[4, 4] = (5, 6, 7)
    # The transparent colour is that of the ground: alpha and colours agree.
    path = saved(tmp_path, wide_png(samples, kinds=[1] * 12, extra=chunk(b"tRNS", bytes(6))))
    np.testing.assert_array_equal(decode_mask(path), samples.any(axis=2))
    key = struct.pack(">HHH", 5, 6, 7)
    path = saved(tmp_path, wide_png(samples, kinds=[1] * 12, extra=chunk(b"tRNS", key)))
    with pytest.raises(BadInputError, match="its colours mark other pixels than its alpha"):
        decode_mask(path)


def test_what_is_damaged_is_refused(tmp_path: Path) -> None:
    samples = RNG.integers(0, 65536, size=(12, 10, 3)).astype(np.uint16)
    whole = wide_png(samples, kinds=[0] * 12)
    for length in range(8, len(whole) - 40, 23):
        path = saved(tmp_path, whole[:length])
        with pytest.raises(BadInputError):
            decode_image(path, bit_depth=16)
    damaged = bytearray(whole)
    damaged[300] ^= 1
    path = saved(tmp_path, damaged)
    for bit_depth in (None, 16):
        with pytest.raises(BadInputError, match="cannot be read as an image"):
            decode_image(path, bit_depth=bit_depth)
