"""Organised point clouds: TIFFs written byte by byte."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from lineproof.core.errors import BadInputError
from lineproof.data.decoding.xyz import read_xyz

POINTS = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
POINTS[2, 1:4] = 0


def tiff(
    *,
    order: str = "<",
    rows_per_strip: int = 7,
    compression: int = 1,
    planar: int = 1,
    short_tags: bool = False,
    points: np.ndarray = POINTS,
    replace: dict[int, tuple[str, tuple[int, ...]]] | None = None,
    drop: tuple[int, ...] = (),
    following: int = 0,
) -> bytes:
    height, width, _ = points.shape
    planes = [points] if planar == 1 else [points[:, :, c] for c in range(3)]
    strips = [
        plane[row : row + rows_per_strip].astype(f"{order}f4").tobytes()
        for plane in planes
        for row in range(0, height, rows_per_strip)
    ]
    if compression != 1:
        strips = [zlib.compress(strip) for strip in strips]
    body, offsets = b"", []
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip
    size = "H" if short_tags else "I"
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: (size, (width,)),
        257: (size, (height,)),
        258: ("H", (32, 32, 32)),
        259: ("H", (compression,)),
        262: ("H", (2,)),
        273: (size, tuple(offsets)),
        277: ("H", (3,)),
        278: (size, (rows_per_strip,)),
        279: (size, tuple(len(strip) for strip in strips)),
        284: ("H", (planar,)),
        339: ("H", (3, 3, 3)),
    }
    tags.update(replace or {})
    tags = {tag: tags[tag] for tag in sorted(tags) if tag not in drop}
    start = 8 + len(body)
    beyond = start + 2 + 12 * len(tags) + 4
    directory, extra = struct.pack(f"{order}H", len(tags)), b""
    for tag, (code, values) in tags.items():
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) > 4:
            where = struct.pack(f"{order}I", beyond + len(extra))
            extra += packed
        else:
            where = packed.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, {"B": 1, "H": 3, "I": 4}[code], len(values)) + where
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return magic + body + directory + struct.pack(f"{order}I", following) + extra


def written(folder: Path, content: bytes) -> Path:
    path = folder / "000.tiff"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("rows_per_strip", [1, 3, 7, 2**32 - 1])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("compression", [1, 8, 32946])
def test_the_very_floats_come_back(
    tmp_path: Path, order: str, rows_per_strip: int, planar: int, compression: int
) -> None:
    content = tiff(order=order, rows_per_strip=rows_per_strip, planar=planar, compression=compression)
    points = read_xyz(written(tmp_path, content))
    np.testing.assert_array_equal(points, POINTS)
    assert points.dtype == np.dtype("=f4")
    assert points.flags.c_contiguous
    assert points.flags.writeable


def test_short_tags_and_the_defaults_of_the_format(tmp_path: Path) -> None:
    content = tiff(short_tags=True, drop=(259, 278, 284))
    np.testing.assert_array_equal(read_xyz(written(tmp_path, content)), POINTS)


def test_the_literal_bytes_of_one_point(tmp_path: Path) -> None:
    header = bytes.fromhex("49492a00 14000000")
    one_two_three = bytes.fromhex("0000803f 00000040 00004040")
    entries = [
        "0001 0300 01000000 01000000", "0101 0300 01000000 01000000", "0201 0300 01000000 20000000",
        "1101 0400 01000000 08000000", "1501 0300 01000000 03000000", "1701 0400 01000000 0c000000",
        "5301 0300 01000000 03000000",
    ]  # fmt: skip
    directory = bytes.fromhex("0700" + "".join(entries) + "00000000")
    points = read_xyz(str(written(tmp_path, header + one_two_three + directory)))
    np.testing.assert_array_equal(points, np.array([[[1, 2, 3]]], dtype=np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replace": {258: ("H", (16, 16, 16))}}, r"bits per sample is \(16, 16, 16\); expected 32"),
        ({"replace": {277: ("H", (1,))}}, r"samples per pixel is \(1,\); expected 3"),
        ({"replace": {339: ("H", (1, 1, 1))}}, r"sample format \(3 is float\) is \(1, 1, 1\); expected 3"),
        ({"drop": (339,)}, r"sample format \(3 is float\) is not given"),
        ({"replace": {284: ("H", (3,))}}, r"planar configuration is \(3,\); expected 1 or 2"),
        ({"replace": {317: ("H", (3,))}}, r"predictor \(1 is none\) is \(3,\); expected 1"),
        ({"replace": {274: ("H", (6,))}}, r"orientation \(1 is upright\) is \(6,\); expected 1"),
        ({"replace": {259: ("H", (5,))}}, r"TIFF compression 5; expected none \(1\) or Deflate"),
        ({"replace": {322: ("H", (16,))}}, "stored in tiles or lacks its strips"),
        ({"drop": (273,)}, "stored in tiles or lacks its strips"),
        ({"drop": (256,)}, "stored in tiles or lacks its strips"),
        ({"replace": {257: ("I", (0,))}}, "the header says 5x0 points"),
        ({"replace": {256: ("I", (60_000,)), 257: ("I", (60_000,))}}, "the header says 60000x60000 points"),
        ({"replace": {278: ("I", (3,))}}, "1 strips with 1 lengths; 3 expected for 7 rows"),
        ({"replace": {278: ("I", (0,))}}, "1 strips with 1 lengths; 0 expected for 7 rows"),
        ({"replace": {279: ("I", (60,))}}, "strip 0 has 60 bytes, 420 expected"),
        ({"replace": {273: ("I", (10**6,))}}, "strip 0 has 0 bytes, 420 expected"),
        ({"compression": 8, "replace": {259: ("H", (1,))}}, r"strip 0 has \d+ bytes, 420 expected"),
        ({"replace": {259: ("H", (8,))}}, r"its Deflate data are damaged; \d+ bytes seen"),
        ({"replace": {259: ("H", ())}}, "a tag of the TIFF has no value"),
        ({"following": 8}, "several pages; expected one"),
    ],
)
def test_another_kind_of_tiff_is_refused_by_name(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = written(tmp_path, tiff(**options))
    with pytest.raises(BadInputError, match=rf"000\.tiff: .*{message}"):
        read_xyz(path)


def test_a_strip_that_unfolds_without_end_is_stopped(tmp_path: Path) -> None:
    bomb = zlib.compress(b"\0" * 50_000_000)
    content = tiff(compression=8, replace={273: ("I", (8,)), 279: ("I", (len(bomb),))})
    path = written(tmp_path, content[:8] + bomb.ljust(len(bomb)) + content[8:])
    moved = bytearray(path.read_bytes())
    struct.pack_into("<I", moved, 4, struct.unpack_from("<I", moved, 4)[0] + len(bomb))
    # The tags' own far values moved too; the two short ones are enough for this file.
    for tag in (258, 339):
        at = moved.index(struct.pack("<HHI", tag, 3, 3))
        struct.pack_into("<I", moved, at + 8, struct.unpack_from("<I", moved, at + 8)[0] + len(bomb))
    path.write_bytes(moved)
    with pytest.raises(BadInputError, match="strip 0 has 421 bytes, 420 expected"):
        read_xyz(path)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    content = tiff(rows_per_strip=3)
    for cut in range(len(content)):
        with pytest.raises(BadInputError, match=r"000\.tiff: (begins with|the file ends too early: it has)"):
            read_xyz(written(tmp_path, content[:cut]))


def test_random_damage_gives_points_or_our_error(tmp_path: Path) -> None:
    content, rng = tiff(rows_per_strip=3), np.random.default_rng(2)
    num_refused = 0
    for _ in range(1500):
        damaged = bytearray(content)
        for place in rng.integers(len(content) - 200, len(content), size=2):
            damaged[place] = rng.integers(256)
        try:
            assert read_xyz(written(tmp_path, bytes(damaged))).shape[2] == 3
        except BadInputError:
            num_refused += 1
    assert num_refused > 100


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone\.tiff: cannot be read \(No such file"):
        read_xyz(tmp_path / "gone.tiff")
    with pytest.raises(BadInputError, match=r"begins with nothing \(0 bytes\); expected a classic TIFF"):
        read_xyz(written(tmp_path, b""))
    with pytest.raises(BadInputError, match=r"begins with 49 49 2b 00; expected a classic TIFF"):
        read_xyz(written(tmp_path, b"II+\0" + b"\0" * 40))


def test_the_limit_of_points(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="the header says 5x7 points; expected 1 to 34"):
        read_xyz(written(tmp_path, tiff()), max_pixels=34)
