"""Decoding: the table of pixel rules, and files that are broken in every way a line has seen."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.decoding.decode import decode_image, decode_mask, decode_with_facts

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, size=(24, 32, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, size=(24, 32), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(32) * 8, np.arange(24)[:, None] * 10, 100), axis=2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bytes(width: int, height: int, *, bits: int, colour: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def grey16_tiff_bytes(values: np.ndarray, *, order: str) -> bytes:
    height, width = values.shape
    data = values.astype(f"{order}u2").tobytes()
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 3, height), (279, 4, len(data))]
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(f"{order}H2x" if kind == 3 else f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8 + len(data)) + data + directory + b"\0" * 4


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp"])
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(RGB), **options)
    pixels = decode_image(path)
    np.testing.assert_array_equal(pixels, RGB)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_jpeg_is_close_and_a_path_may_be_text(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(SMOOTH), quality=95)
    np.testing.assert_allclose(decode_image(str(path)).astype(int), SMOOTH, atol=12)


def test_the_first_bytes_tell_the_format_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, format="PNG")
    np.testing.assert_array_equal(decode_image(path), RGB)


def test_grey_and_one_bit(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_image(save(tmp_path / "l.png", Image.fromarray(GREY))), grey_to_rgb(GREY))
    one_bit = Image.fromarray(GREY).point(lambda v: 255 * (v > 127), mode="1")
    expected = grey_to_rgb(np.where(GREY > 127, 255, 0).astype(np.uint8))
    np.testing.assert_array_equal(decode_image(save(tmp_path / "1.png", one_bit)), expected)


def test_alpha_is_dropped_even_where_transparent(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, size=(24, 32, 1), dtype=np.uint8)
    alpha[:4] = 0
    rgba = Image.fromarray(np.concatenate([RGB, alpha], axis=2))
    np.testing.assert_array_equal(decode_image(save(tmp_path / "a.png", rgba)), RGB)
    grey_alpha = Image.fromarray(np.concatenate([GREY[:, :, None], alpha], axis=2))
    assert grey_alpha.mode == "LA"
    np.testing.assert_array_equal(decode_image(save(tmp_path / "b.png", grey_alpha)), grey_to_rgb(GREY))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 200, 10))], ids=["opaque", "index", "bytes"])
def test_palette_gives_its_colours(tmp_path: Path, transparency: object) -> None:
    indices = RNG.integers(0, 20, size=(24, 32), dtype=np.uint8)
    colours = RNG.integers(0, 256, size=(20, 3), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(decode_image(save(tmp_path / "p.png", image, **options)), colours[indices])


def test_transparent_colour_without_alpha_is_an_ordinary_colour(tmp_path: Path) -> None:
    path = save(tmp_path / "t.png", Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[0, 0]))
    np.testing.assert_array_equal(decode_image(path), RGB)


def test_cmyk(tmp_path: Path) -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    path = save(tmp_path / "c.tif", cmyk)
    np.testing.assert_array_equal(decode_image(path), np.asarray(cmyk.convert("RGB")))
    assert decode_image(save(tmp_path / "c.jpg", cmyk)).shape == (24, 32, 3)


WIDE = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85


def test_sixteen_bit_grey_png_gives_the_upper_byte(tmp_path: Path) -> None:
    path = save(tmp_path / "w.png", Image.fromarray(WIDE))
    np.testing.assert_array_equal(decode_image(path), grey_to_rgb((WIDE >> 8).astype(np.uint8)))


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_tiff_of_literal_bytes(tmp_path: Path, order: str) -> None:
    path = tmp_path / "w.tif"
    path.write_bytes(grey16_tiff_bytes(WIDE, order=order))
    np.testing.assert_array_equal(decode_image(path), grey_to_rgb((WIDE >> 8).astype(np.uint8)))
    np.testing.assert_array_equal(decode_image(path, channels=1)[:, :, 0], WIDE >> 8)


def test_sixteen_bit_rgb_png_of_literal_bytes_gives_the_upper_bytes(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, size=(9, 8, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path = tmp_path / "w.png"
    path.write_bytes(png_bytes(8, 9, bits=16, colour=2, rows=rows))
    np.testing.assert_array_equal(decode_image(path), (values >> 8).astype(np.uint8))


def test_thirty_two_bit_integers(tmp_path: Path) -> None:
    values = WIDE.astype(np.int32)
    path = save(tmp_path / "i.tif", Image.fromarray(values))
    np.testing.assert_array_equal(decode_image(path), grey_to_rgb((WIDE >> 8).astype(np.uint8)))
    for wrong in (-1, 65536):
        values[3, 4] = wrong
        save(path, Image.fromarray(values))
        with pytest.raises(BadInputError, match=r"i\.tif: the integer values run from .*; expected 0 to 65535"):
            decode_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_bit_depth_says_which_bits_of_sixteen_are_in_use(tmp_path: Path, suffix: str) -> None:
    for bits in range(8, 17):
        values = (np.arange(24 * 32) * 85 % 2**bits).astype(np.uint16).reshape(24, 32)
        values[0, 0] = 2**bits - 1
        path = save(tmp_path / f"w.{suffix}", Image.fromarray(values))
        np.testing.assert_array_equal(decode_image(path, channels=1, bit_depth=bits)[:, :, 0], values >> (bits - 8))
        assert decode_with_facts(path, bit_depth=bits).facts.largest_value == 2**bits - 1
        if bits < 16:
            values[3, 5] = 2**bits
            save(path, Image.fromarray(values))
            message = (
                rf"values run from [0-9]+ to {2**bits}; expected 0 to {2**bits - 1}\. bit_depth={bits} was asked for"
            )
            with pytest.raises(BadInputError, match=message):
                decode_image(path, bit_depth=bits)


def test_a_bit_depth_leaves_other_images_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    np.testing.assert_array_equal(decode_image(path, bit_depth=12), RGB)
    values = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    path = save(tmp_path / "f.tif", Image.fromarray(values))
    np.testing.assert_array_equal(decode_image(path, channels=1, bit_depth=12)[:, :, 0], np.rint(values * 255))


def test_a_bit_depth_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    content = bytearray(grey16_tiff_bytes(WIDE, order="<"))
    content[content.index(struct.pack("<HHIH", 258, 3, 1, 16)) + 8] = 12
    path = tmp_path / "w.tif"
    path.write_bytes(content)
    assert decode_image(path, bit_depth=12).shape == (24, 32, 3)
    with pytest.raises(BadInputError, match=r"w\.tif: the file declares 12 bits, bit_depth=14 was asked for"):
        decode_image(path, bit_depth=14)
    for wrong in (7, 17, 0):
        with pytest.raises(UsageError, match=f"bit_depth={wrong} was asked for; expected 8 to 16"):
            decode_image(path, bit_depth=wrong)


def test_float_grey(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    path = save(tmp_path / "f.tif", Image.fromarray(values))
    np.testing.assert_array_equal(decode_image(path), grey_to_rgb(np.rint(values * 255).astype(np.uint8)))


@pytest.mark.parametrize("wrong", [-0.01, 1.01, 255.0, np.nan, np.inf])
def test_float_grey_out_of_range_is_refused(tmp_path: Path, wrong: float) -> None:
    values = np.full((24, 32), 0.5, dtype=np.float32)
    values[2, 3] = wrong
    path = save(tmp_path / "f.tif", Image.fromarray(values))
    with pytest.raises(BadInputError, match=r"f\.tif: the float values run from .*; expected 0 to 1\. Scale them"):
        decode_image(path)


def test_mono_is_the_luma_of_rgb(tmp_path: Path) -> None:
    mono = decode_image(save(tmp_path / "a.png", Image.fromarray(RGB)), channels=1)
    assert mono.shape == (24, 32, 1)
    np.testing.assert_allclose(mono[:, :, 0], RGB @ np.array([0.299, 0.587, 0.114]), atol=0.51)
    grey = decode_image(save(tmp_path / "g.png", Image.fromarray(GREY)), channels=1)
    np.testing.assert_array_equal(grey[:, :, 0], GREY)


def test_other_channel_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"channels=4 was asked for; an image has 3 \(RGB\) or 1"):
        decode_image(tmp_path / "any.png", channels=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"e.{suffix}", Image.fromarray(SMOOTH), exif=exif, **options)
    pixels = decode_image(path)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))
    mask_path = save(tmp_path / "m.png", Image.fromarray(SMOOTH), exif=exif)
    np.testing.assert_array_equal(decode_mask(mask_path).shape, pixels.shape[:2])


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b""])
def test_broken_exif_does_not_hide_the_image(tmp_path: Path, exif: bytes) -> None:
    path = save(tmp_path / "e.jpg", Image.fromarray(SMOOTH), exif=exif)
    assert decode_image(path).shape == (24, 32, 3)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone\.png: there is no such file"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(BadInputError, match="this is a folder; expected an image file"):
        decode_image(tmp_path)


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(BadInputError, match=r"a\.png: the file is empty \(0 bytes\)"):
        decode_image(path)
    for content in (
        b"<html>not found</html>",
        b"\0" * 100,
        b"\x89PNG",
        b"GIF89a" + b"\0" * 60,
        b"RIFF\0\0\0\0WAVEfmt ",
    ):
        path.write_bytes(content)
        with pytest.raises(BadInputError, match=r"a\.png: this is no image that can be read \(it begins with"):
            decode_image(path)


ENCODINGS = {
    "png": {},
    "jpg": {},
    "bmp": {},
    "tif": {"compression": "tiff_deflate"},
    "raw.tif": {},
    "webp": {"lossless": True},
}


def encoded(suffix: str) -> bytes:
    stream = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF", "raw.tif": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(RGB).save(stream, format=kind, **ENCODINGS[suffix])
    return stream.getvalue()


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path, suffix: str) -> None:
    content, path = encoded(suffix), tmp_path / f"cut.{suffix}"
    path.write_bytes(content)
    whole = decode_image(path)
    num_refused = 0
    cuts = [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]
    for cut in cuts:
        path.write_bytes(content[:cut])
        try:
            pixels = decode_image(path)
        except BadInputError:
            num_refused += 1
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert num_refused >= len(cuts) - 3


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_a_damaged_file_gives_pixels_or_our_error(tmp_path: Path, suffix: str) -> None:
    content, rng = encoded(suffix), np.random.default_rng(1)
    path = tmp_path / f"hit.{suffix}"
    num_refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 400), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            pixels = decode_image(path, max_pixels=1_000_000)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
        except BadInputError:
            num_refused += 1
    assert num_refused > 0


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (7, 64), (64, 7)])
def test_too_small(tmp_path: Path, width: int, height: int) -> None:
    path = save(tmp_path / "s.png", Image.new("RGB", (width, height)))
    with pytest.raises(BadInputError, match=rf"s\.png: the image is {width}x{height} pixels; expected at least 8"):
        decode_image(path)
    assert decode_image(path, min_side_px=1).shape == (height, width, 3)


def test_too_large_is_told_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(20_000, 20_000, bits=8, colour=2, rows=b""))
    with pytest.raises(BadInputError, match=r"20000x20000 pixels \(400\.0 megapixels\); at most 100 megapixels"):
        decode_image(path)
    with pytest.raises(BadInputError, match=r"at most 100 megapixels"):
        decode_mask(path)


@pytest.mark.parametrize("side", [9_600, 14_000], ids=["warning", "error"])
def test_the_limit_is_ours_and_not_pillows(tmp_path: Path, side: int) -> None:
    # Pillow warns from 89 megapixels on and raises from 179; one row is there, so decoding starts and then ends.
    path = tmp_path / "large.png"
    path.write_bytes(png_bytes(side, side, bits=1, colour=0, rows=b"\0" * 1000))
    with pytest.raises(BadInputError, match="cannot be read as an image"):
        decode_image(path, max_pixels=200_000_000)
    with pytest.raises(BadInputError, match="at most 50 megapixels"):
        decode_image(path, max_pixels=50_000_000)


@pytest.mark.parametrize(("suffix", "num"), [("tif", 2), ("png", 3), ("webp", 2)])
def test_several_images_in_one_file_are_refused(tmp_path: Path, suffix: str, num: int) -> None:
    others = [Image.fromarray(np.roll(RGB, k + 1, axis=0)) for k in range(num - 1)]
    path = save(tmp_path / f"many.{suffix}", Image.fromarray(RGB), save_all=True, append_images=others)
    with pytest.raises(BadInputError, match=rf"many\.{suffix}: the file holds {num} images; expected one"):
        decode_image(path)


def test_of_a_jpeg_with_previews_the_main_image_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mpo.jpg"
    preview = Image.fromarray(SMOOTH).resize((16, 12))
    Image.fromarray(SMOOTH).save(path, format="MPO", save_all=True, append_images=[preview])
    assert decode_image(path).shape == (24, 32, 3)


def test_a_mode_without_a_rule_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "lab.tif", Image.fromarray(RGB, mode=None).convert("RGB"))
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<HHIH", 262, 3, 1, 2))
    content[at + 8] = 8  # photometric interpretation: CIELab
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"lab\.tif: .* PhotometricInterpretation 8 \(CIELab\) has no rule here"):
        decode_image(path)


def test_a_process_that_wants_half_images_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    path = save(tmp_path / "a.jpg", Image.fromarray(SMOOTH))
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES is set in this process"):
        decode_image(path)


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "e.jpg", Image.fromarray(SMOOTH), exif=b"Exif\0\0garbage")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        shapes = list(pool.map(lambda _: decode_image(path).shape, range(60)))
    assert set(shapes) == {(24, 32, 3)}
    assert list(warnings.filters) == before


def bmp_bytes(indices: np.ndarray, colours: list[tuple[int, int, int]], *, bits: int, top_down: bool = False) -> bytes:
    height, width = indices.shape
    per_byte = 8 // bits
    rows = b""
    for row in indices if top_down else indices[::-1]:
        padded = [*row.tolist(), *[0] * (-width % (4 * per_byte))]
        groups = [padded[i : i + per_byte] for i in range(0, len(padded), per_byte)]
        rows += bytes(sum(value << (8 - bits * (k + 1)) for k, value in enumerate(group)) for group in groups)
    table = b"".join(bytes([blue, green, red, 0]) for red, green, blue in colours)
    start = 54 + len(table)
    head = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, 0, len(rows), 0, 0, 0, 0)
    return head[:46] + struct.pack("<I", len(colours)) + head[50:] + table + rows


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("kind", ["black and white", "white and black", "ramp", "black alone", "colours"])
def test_a_bmp_gives_the_colours_of_its_palette(tmp_path: Path, kind: str, bits: int, top_down: bool) -> None:
    colours = {
        "black and white": [(0, 0, 0), (255, 255, 255)],
        "white and black": [(255, 255, 255), (0, 0, 0)],
        "ramp": [(k, k, k) for k in range(2**bits)],
        "black alone": [(0, 0, 0)],
        "colours": [(k * 7 % 256, k, 255 - k) for k in range(2**bits)],
    }[kind]
    indices = (np.arange(11 * 13).reshape(11, 13) * 37) % len(colours)
    path = tmp_path / "p.bmp"
    path.write_bytes(bmp_bytes(indices, colours, bits=bits, top_down=top_down))
    expected = np.array(colours, dtype=np.uint8)[indices]
    np.testing.assert_array_equal(decode_image(path), expected)
    np.testing.assert_array_equal(decode_mask(path), expected.any(axis=2))


def test_an_index_outside_the_palette_is_refused(tmp_path: Path) -> None:
    indices = np.zeros((9, 9), np.uint8)
    indices[4, 4] = 2
    path = tmp_path / "p.bmp"
    path.write_bytes(bmp_bytes(indices, [(1, 2, 3), (9, 9, 9)], bits=8))
    with pytest.raises(BadInputError, match="a pixel has palette index 2, the palette has 2 colours"):
        decode_image(path)
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    content = png_bytes(9, 9, bits=8, colour=3, rows=rows)
    for colours in (b"", png_chunk(b"PLTE", bytes(6))):
        path.write_bytes(content[:33] + colours + content[33:])
        for read in (decode_image, decode_mask):
            with pytest.raises(BadInputError, match="a pixel has palette index 2, the palette has"):
                read(path)


def test_the_inks_of_a_cmyk_jpeg_need_adobes_marker(tmp_path: Path) -> None:
    inks = np.dstack([SMOOTH, np.full((24, 32), 40, np.uint8)])
    cmyk = Image.frombytes("CMYK", (32, 24), inks.tobytes())
    path = save(tmp_path / "c.jpg", cmyk, quality=100)
    np.testing.assert_allclose(decode_image(path).astype(int), np.asarray(cmyk.convert("RGB")), atol=6)
    content = path.read_bytes()
    at = content.index(b"\xff\xee")
    path.write_bytes(content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :])
    with pytest.raises(BadInputError, match="a CMYK JPEG without Adobe's marker does not say"):
        decode_image(path)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_spread_to_255(tmp_path: Path, bits: int) -> None:
    values = np.arange(9 * 16).reshape(9, 16) % 2**bits
    per_byte = 8 // bits
    weights = 2 ** (bits * np.arange(per_byte - 1, -1, -1))
    packed = (values.reshape(9, -1, per_byte) * weights).sum(axis=2).astype(np.uint8)
    path = tmp_path / "few.png"
    path.write_bytes(png_bytes(16, 9, bits=bits, colour=0, rows=b"".join(b"\0" + row.tobytes() for row in packed)))
    np.testing.assert_array_equal(decode_image(path, channels=1)[:, :, 0], values * 255 // (2**bits - 1))
    assert decode_with_facts(path).facts.stored_bits == bits
    # The transparent grey is that of the ground: what is opaque is what is not black.
    content = path.read_bytes()
    path.write_bytes(content[:33] + png_chunk(b"tRNS", b"\0\0") + content[33:])
    np.testing.assert_array_equal(decode_mask(path), values > 0)
    path.write_bytes(content[:33] + png_chunk(b"tRNS", b"\0\1") + content[33:])
    with pytest.raises(BadInputError, match="its colours mark other pixels than its alpha"):
        decode_mask(path)


MARKED = np.zeros((24, 32), dtype=np.uint8)
MARKED[5:9, 7:20] = 1
MARKED[12, 3] = 255


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_mask_is_every_pixel_that_is_not_zero(tmp_path: Path, suffix: str) -> None:
    mask = decode_mask(save(tmp_path / f"m.{suffix}", Image.fromarray(MARKED)), expected_shape=(24, 32))
    np.testing.assert_array_equal(mask, MARKED > 0)
    assert mask.dtype == np.bool_


def test_masks_of_other_modes(tmp_path: Path) -> None:
    expected = MARKED > 0
    wide = save(tmp_path / "w.png", Image.fromarray(MARKED.astype(np.uint16)))
    colour = np.zeros((24, 32, 3), dtype=np.uint8)
    colour[:, :, 2] = MARKED
    palette = Image.fromarray((MARKED > 0).astype(np.uint8))
    palette.putpalette([0, 0, 0, 128, 0, 0])
    flipped = Image.fromarray((MARKED == 0).astype(np.uint8))
    flipped.putpalette([255, 255, 255, 0, 0, 0])
    files = [wide, save(tmp_path / "c.png", Image.fromarray(colour)), save(tmp_path / "p.png", palette)]
    files += [save(tmp_path / "f.png", flipped), save(tmp_path / "1.png", Image.fromarray(expected))]
    files += [save(tmp_path / "float.tif", Image.fromarray(MARKED.astype(np.float32) * 7))]
    for path in files:
        np.testing.assert_array_equal(decode_mask(path), expected, err_msg=path.name)


def test_a_lossy_mask_is_refused(tmp_path: Path) -> None:
    for path in (save(tmp_path / "m.jpg", Image.fromarray(MARKED)), save(tmp_path / "m.webp", Image.fromarray(RGB))):
        with pytest.raises(BadInputError, match="lossy coding changes pixels that were zero; expected PNG"):
            decode_mask(path)
    path = save(tmp_path / "m.tif", Image.fromarray(RGB), compression="jpeg")
    with pytest.raises(BadInputError, match="lossy coding"):
        decode_mask(path)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", Image.fromarray(MARKED))
    with pytest.raises(BadInputError, match=r"m\.png: the mask is 32x24 pixels, its image 32x23; they must be equal"):
        decode_mask(path, expected_shape=(23, 32))
