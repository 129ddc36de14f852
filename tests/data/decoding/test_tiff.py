"""TIFF: every declared depth gives the value that was stored, by literal files and by an independent implementation."""

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.decoding.decode import decode_image, decode_mask, decode_with_facts

HEIGHT, WIDTH = 21, 19


def packed_rows(samples: np.ndarray, *, bits: int, order: str) -> list[bytes]:
    """Each row of (H, W, S) integers or floats as TIFF stores it, bit by bit below 8 and between 8 and 16."""
    if bits in (8, 16, 32, 64):
        kind = {"u": "u", "i": "i", "f": "f"}[samples.dtype.kind]
        return [row.astype(f"{order}{kind}{bits // 8}").tobytes() for row in samples]
    rows = []
    for row in samples.reshape(len(samples), -1).tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return rows


def tiff_bytes(
    samples, *, bits, photometric, order="<", planar=False, rows_per_strip=8, tile=None, deflate=False,
    reverse=False, extra=(), tags=(), big=False,
):  # fmt: skip
    """A whole TIFF of (H, W, S) samples, written down from the specification."""
    height, width, num = samples.shape
    planes = [samples[:, :, k : k + 1] for k in range(num)] if planar else [samples]
    chunks = []
    for plane in planes:
        if tile is None:
            for y in range(0, height, rows_per_strip):
                chunks.append(b"".join(packed_rows(plane[y : y + rows_per_strip], bits=bits, order=order)))
            continue
        for y, x in itertools.product(range(0, height, tile), range(0, width, tile)):
            part = plane[y : y + tile, x : x + tile]
            full = np.full((tile, tile, part.shape[2]), 1, samples.dtype)
            full[: part.shape[0], : part.shape[1]] = part
            chunks.append(b"".join(packed_rows(full, bits=bits, order=order)))
    if deflate:
        chunks = [zlib.compress(chunk) for chunk in chunks]
    if reverse:
        chunks = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in chunk) for chunk in chunks]
    kinds = {"u": 1, "i": 2, "f": 3}
    start = 16 if big else 8
    offsets = [start + sum(map(len, chunks[:k])) for k in range(len(chunks))]
    directory = {256: [width], 257: [height], 258: [bits] * num, 259: [8 if deflate else 1], 262: [photometric]}
    directory |= {266: [2 if reverse else 1], 277: [num], 284: [2 if planar else 1]}
    directory |= {339: [kinds[samples.dtype.kind]] * num}
    places, lengths = (324, 325) if tile else (273, 279)
    directory |= {places: offsets, lengths: list(map(len, chunks))}
    directory |= {322: [tile], 323: [tile]} if tile else {278: [rows_per_strip]}
    directory |= {338: list(extra)} if extra else {}
    directory |= dict(tags)
    return assembled(directory, b"".join(chunks), order=order, big=big)


def assembled(directory, data, *, order, big):
    word, size = ("Q", 8) if big else ("I", 4)
    start = 16 if big else 8
    entries, outside = b"", b""
    directory = {number: values for number, values in sorted(directory.items()) if values is not None}
    after = start + len(data) + (8 if big else 2) + len(directory) * (20 if big else 12) + size
    for number, values in directory.items():
        kind, letter = (3, "H") if number in (258, 262, 320, 338, 339) else (4, "I")
        body = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(body) > size:
            body, outside = struct.pack(f"{order}{word}", after + len(outside)), outside + body
        entries += struct.pack(f"{order}HH{word}", number, kind, len(values)) + body.ljust(size, b"\0")
    magic = b"II" if order == "<" else b"MM"
    head = magic + struct.pack(f"{order}HHH", 43, 8, 0) if big else magic + struct.pack(f"{order}H", 42)
    head += struct.pack(f"{order}{word}", start + len(data))
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(directory))
    return head + data + count + entries + bytes(size) + outside


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    return path


def random_samples(bits: int, num: int) -> np.ndarray:
    """All values of up to 8 bits, and the ends of deeper ones."""
    samples = np.random.default_rng(bits).integers(0, 2**bits, size=(HEIGHT, WIDTH, num), dtype=np.uint32)
    samples[0, 0], samples[-1, -1] = 0, 2**bits - 1
    return samples


def expected_levels(samples: np.ndarray, bits: int, *, white_is_zero: bool = False) -> np.ndarray:
    """By integer arithmetic: 1, 2 and 4 bits are spread to 0..255, deeper ones give their upper 8 bits."""
    values = 2**bits - 1 - samples if white_is_zero else samples
    return values * 255 // (2**bits - 1) if bits <= 8 else values // 2 ** (bits - 8)


def same_in_another_reader(path: Path, samples: np.ndarray) -> None:
    tifffile = pytest.importorskip("tifffile", reason="the independent reader is not installed")
    with tifffile.TiffFile(path) as file:
        read = file.pages[0].asarray()
        if file.pages[0].planarconfig == 2 and samples.shape[2] > 1:
            read = np.moveaxis(read, 0, 2)
    np.testing.assert_array_equal(read.reshape(samples.shape), samples)


DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True], ids=["black0", "white0"])
@pytest.mark.parametrize("bits", DEPTHS)
def test_grey_of_every_depth(tmp_path: Path, bits: int, white_is_zero: bool, order: str) -> None:
    samples = random_samples(bits, 1)
    expected = expected_levels(samples, bits, white_is_zero=white_is_zero)
    variants = [{}, {"tile": 16}, {"rows_per_strip": 1000}, {"rows_per_strip": 1}, {"deflate": True}]
    variants += [{"reverse": True}, {"reverse": True, "deflate": True}, {"deflate": True, "tile": 16}, {"big": True}]
    for options in variants:
        photometric = 0 if white_is_zero else 1
        path = written(tmp_path, tiff_bytes(samples, bits=bits, photometric=photometric, order=order, **options))
        np.testing.assert_array_equal(decode_image(path, channels=1), expected, err_msg=str(options))
        np.testing.assert_array_equal(decode_image(path), np.repeat(expected, 3, axis=2), err_msg=str(options))
        np.testing.assert_array_equal(decode_mask(path), (samples != (2**bits - 1) * white_is_zero)[:, :, 0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("bits", DEPTHS)
def test_the_files_of_these_tests_hold_what_they_say(tmp_path: Path, bits: int, num: int, order: str) -> None:
    pytest.importorskip("imagecodecs", reason="the independent reader's codecs are not installed")
    samples = random_samples(bits, num)
    photometric = 1 if num == 1 else 2
    for options in ({}, {"tile": 16}, {"reverse": True}, {"planar": num > 1}, {"deflate": True}, {"big": True}):
        path = written(tmp_path, tiff_bytes(samples, bits=bits, photometric=photometric, order=order, **options))
        same_in_another_reader(path, samples)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", DEPTHS)
def test_rgb_of_every_depth_together_and_apart(tmp_path: Path, bits: int, order: str) -> None:
    samples = random_samples(bits, 5)
    for num, planar, tile, deflate in itertools.product((3, 4, 5), (False, True), (None, 16), (False, True)):
        extra = {3: (), 4: (2,), 5: (2, 0)}[num]
        options = {"planar": planar, "tile": tile, "deflate": deflate, "extra": extra, "order": order}
        path = written(tmp_path, tiff_bytes(samples[:, :, :num], bits=bits, photometric=2, **options))
        decoded = decode_with_facts(path)
        np.testing.assert_array_equal(decoded.pixels, expected_levels(samples[:, :, :3], bits), err_msg=str(options))
        facts = decoded.facts
        assert (facts.stored_channels, facts.stored_bits, facts.has_alpha) == ("RGB", bits, num > 3)
        assert facts.num_extra_channels == (num == 5)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_every_depth(tmp_path: Path, bits: int, order: str) -> None:
    samples = random_samples(bits, 1)
    colours = np.random.default_rng(5).integers(0, 65536, size=(2**bits, 3))
    colours[0, 0] = 65535
    options = {"order": order, "tags": {320: colours.T.ravel().tolist()}}
    for more in ({}, {"reverse": True}, {"tile": 16, "deflate": True}):
        path = written(tmp_path, tiff_bytes(samples, bits=bits, photometric=3, **options, **more))
        decoded = decode_with_facts(path)
        np.testing.assert_array_equal(decoded.pixels, (colours >> 8)[samples[:, :, 0]])
        assert decoded.facts.stored_channels == "palette"


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_floats(tmp_path: Path, bits: int, order: str, white_is_zero: bool) -> None:
    samples = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(f"f{bits // 8}")
    expected = np.rint((1 - samples if white_is_zero else samples) * np.float32(255))
    photometric = 0 if white_is_zero else 1
    path = written(tmp_path, tiff_bytes(samples, bits=bits, photometric=photometric, order=order))
    np.testing.assert_array_equal(decode_image(path, channels=1), expected)
    assert decode_with_facts(path).facts.sample_format == "float"


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_and_wide_integers(tmp_path: Path, order: str) -> None:
    ramp = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    for dtype, values, expected in (
        (np.int8, ramp % 128, ramp % 128),
        (np.int16, ramp * 80, ramp * 80 >> 8),
        (np.int32, ramp * 160, ramp * 160 >> 8),
        (np.uint32, ramp * 160, ramp * 160 >> 8),
    ):
        bits = np.dtype(dtype).itemsize * 8
        path = written(tmp_path, tiff_bytes(values.astype(dtype), bits=bits, photometric=1, order=order))
        np.testing.assert_array_equal(decode_image(path, channels=1), expected)
        wrong = values.astype(dtype)
        wrong[3, 3] = -1 if np.issubdtype(dtype, np.signedinteger) else 2**32 - 1
        path = written(tmp_path, tiff_bytes(wrong, bits=bits, photometric=1, order=order))
        with pytest.raises(BadInputError, match=r"the integer values run from .*; expected 0 to (255|65535)\."):
            decode_image(path)


def test_cmyk_and_ycbcr_together_and_apart(tmp_path: Path) -> None:
    samples = random_samples(8, 5).astype(np.uint8)
    inks = np.ascontiguousarray(samples[:, :, :4])
    expected = np.asarray(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()).convert("RGB"))
    for planar in (False, True):
        path = written(tmp_path, tiff_bytes(inks, bits=8, photometric=5, planar=planar))
        np.testing.assert_array_equal(decode_image(path), expected)
        path = written(tmp_path, tiff_bytes(samples, bits=8, photometric=5, planar=planar, extra=(0,)))
        np.testing.assert_array_equal(decode_image(path), expected)
        wide = inks.astype(np.uint16) * 256 + 77
        path = written(tmp_path, tiff_bytes(wide, bits=16, photometric=5, planar=planar))
        np.testing.assert_array_equal(decode_image(path), expected)
    with pytest.raises(BadInputError, match="CMYK of 16 bits is read by its upper bytes"):
        decode_image(path, bit_depth=12)
    colours = np.ascontiguousarray(samples[:, :, :3])
    expected = np.asarray(Image.frombytes("YCbCr", (WIDTH, HEIGHT), colours.tobytes()).convert("RGB"))
    path = written(tmp_path, tiff_bytes(colours, bits=8, photometric=6, tags={530: [1, 1]}))
    np.testing.assert_array_equal(decode_image(path), expected)


def test_premultiplied_alpha_gives_the_colour_before(tmp_path: Path) -> None:
    for bits in (8, 16):
        full = 2**bits - 1
        stored = np.zeros((HEIGHT, WIDTH, 4), np.uint32)
        stored[:, :, 0], stored[:, :, 3] = full // 5, full // 5 * 2
        stored[0, :, :] = (full, 7 << (bits - 8), 0, 0)
        path = written(tmp_path, tiff_bytes(stored, bits=bits, photometric=2, extra=(1,)))
        pixels = decode_image(path)
        np.testing.assert_array_equal(pixels[1:], np.broadcast_to((127, 0, 0), (HEIGHT - 1, WIDTH, 3)))
        np.testing.assert_array_equal(pixels[0], np.broadcast_to((255, 7, 0), (WIDTH, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag(tmp_path: Path, orientation: int) -> None:
    samples = random_samples(12, 1)
    path = written(tmp_path, tiff_bytes(samples, bits=12, photometric=1, tags={274: [orientation]}))
    plain = Image.fromarray((samples[:, :, 0] >> 4).astype(np.uint8))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Image.Transpose, as ImageOps.exif_transpose maps them
    expected = plain if orientation == 1 else plain.transpose(Image.Transpose(turns[orientation]))
    decoded = decode_with_facts(path, channels=1)
    np.testing.assert_array_equal(decoded.pixels[:, :, 0], np.asarray(expected))
    assert decoded.facts.orientation == orientation


@pytest.mark.parametrize("compression", ["lzw", "zlib", "adobe_deflate", "packbits", "zstd", "lzma", None])
def test_compressions_by_another_writer(tmp_path: Path, compression: str | None) -> None:
    tifffile = pytest.importorskip("tifffile", reason="the independent writer is not installed")
    pytest.importorskip("imagecodecs", reason="the independent writer's codecs are not installed")
    path = tmp_path / "a.tif"
    grey, rgb = random_samples(16, 1)[:, :, 0].astype(np.uint16), random_samples(16, 3).astype(np.uint16)
    floats = (grey / 65535).astype(np.float32)
    predictors = (None, 2) if compression in ("lzw", "zlib", "adobe_deflate", "zstd", "lzma") else (None,)
    for order, predictor, tile in itertools.product("<>", predictors, (None, (16, 32))):
        options = {"byteorder": order, "compression": compression, "predictor": predictor, "tile": tile}
        for values, more in (
            (grey, {"photometric": "minisblack", "rowsperstrip": None if tile else 5}),
            ((grey >> 8).astype(np.uint8), {"photometric": "minisblack"}),
            (rgb, {"photometric": "rgb"}),
            (np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
            (np.moveaxis((rgb >> 8).astype(np.uint8), 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        ):
            tifffile.imwrite(path, values, **options, **more)
            expected = values if values.dtype == np.uint8 else values >> 8
            expected = np.moveaxis(expected, 0, 2) if "planarconfig" in more else expected
            expected = expected[:, :, None] if expected.ndim == 2 else expected
            read = decode_image(path, channels=expected.shape[2])
            np.testing.assert_array_equal(read, expected, err_msg=f"{options} {more}")
        options |= {"predictor": predictor and 3}
        for dtype in (np.float32, np.float64):
            tifffile.imwrite(path, floats.astype(dtype), photometric="minisblack", **options)
            expected = np.rint(floats.astype(dtype) * 255)
            np.testing.assert_array_equal(decode_image(path, channels=1)[:, :, 0], expected, err_msg=str(options))


@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_differences_of_floats_as_libtiff_writes_them(tmp_path: Path, compression: str, predictor: int) -> None:
    values = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    path = tmp_path / "f.tif"
    Image.fromarray(values).save(path, compression=compression, tiffinfo={317: predictor})
    np.testing.assert_array_equal(decode_image(path, channels=1)[:, :, 0], np.rint(values * 255))


def test_fax_and_jpeg_strips(tmp_path: Path) -> None:
    ink = random_samples(1, 1)[:, :, 0] > 0
    path = tmp_path / "fax.tif"
    for compression in ("group3", "group4"):
        Image.fromarray(ink).save(path, compression=compression)
        np.testing.assert_array_equal(decode_image(path, channels=1)[:, :, 0], ink * 255)
        np.testing.assert_array_equal(decode_mask(path), ink)
        content = bytearray(path.read_bytes())
        at = content.index(struct.pack("<HHI", 262, 3, 1)) + 8
        content[at] ^= 1
        path.write_bytes(content)
        np.testing.assert_array_equal(decode_image(path, channels=1)[:, :, 0], ~ink * 255)
    smooth = np.add.outer(np.arange(HEIGHT) * 5, np.arange(WIDTH) * 4).astype(np.uint8)
    path = tmp_path / "jpeg.tif"
    Image.fromarray(smooth).save(path, compression="jpeg", quality=95)
    np.testing.assert_allclose(decode_image(path, channels=1)[:, :, 0].astype(int), smooth, atol=4)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<HHI", 262, 3, 1)) + 8] = 0
    path.write_bytes(content)
    np.testing.assert_allclose(decode_image(path, channels=1)[:, :, 0].astype(int), 255 - smooth, atol=4)


GREY8 = random_samples(8, 1).astype(np.uint8)


@pytest.mark.parametrize(
    ("options", "tags", "message"),
    [
        ({"bits": 8}, {258: [5]}, "BitsPerSample 5 of uint"),
        ({"bits": 8}, {258: [24]}, "BitsPerSample 24 of uint"),
        ({"bits": 8}, {258: [64], 339: [2]}, "BitsPerSample 64 of int"),
        ({"bits": 8}, {339: [3]}, "BitsPerSample 8 of float"),
        ({"bits": 8}, {339: [5]}, "SampleFormat 5 is no number that has a grey value"),
        ({"bits": 8}, {339: [4]}, "SampleFormat 4"),
        ({"bits": 8}, {262: None}, "the tag PhotometricInterpretation is missing"),
        ({"bits": 8}, {262: [32803]}, r"PhotometricInterpretation 32803 \(raw colour filter array\)"),
        ({"bits": 8}, {262: [8]}, r"PhotometricInterpretation 8 \(CIELab\)"),
        ({"bits": 8}, {259: [34712]}, "Compression 34712 has no reader here"),
        ({"bits": 8}, {317: [2]}, "Predictor 2 of 8-bit uncompressed uint"),
        ({"bits": 12, "deflate": True}, {317: [2]}, "Predictor 2 of 12-bit deflate uint"),
        ({"bits": 16, "deflate": True}, {317: [3]}, "Predictor 3 of 16-bit deflate uint"),
        ({"bits": 12}, {259: [7]}, "12-bit JPEG uint"),
        ({"bits": 16}, {259: [7]}, "16-bit JPEG uint"),
        ({"bits": 8}, {259: [4]}, "8-bit CCITT group 4 uint"),
        ({"bits": 8}, {266: [3]}, "FillOrder 3"),
        ({"bits": 8}, {262: [0], 339: [2]}, "white is zero, and the samples are signed"),
        ({"bits": 8}, {277: [2], 258: [8, 8]}, "2 samples per pixel .* 0 ExtraSamples"),
        ({"bits": 8}, {277: [3], 258: [8, 8, 8], 338: [0, 0]}, "3 samples per pixel"),
        ({"bits": 8}, {262: [2]}, "1 samples per pixel with PhotometricInterpretation 2"),
        ({"bits": 8}, {262: [2], 277: [3], 258: [8, 8, 4]}, r"BitsPerSample \(8, 8, 4\) differs between channels"),
        ({"bits": 8}, {262: [3]}, "a palette of 0 values for 8 bits"),
        ({"bits": 8}, {262: [3], 320: list(range(256)) * 3}, "below 256 of 65535: it was written as 8 bits"),
        ({"bits": 16}, {262: [3], 320: [9] * 768}, "a palette of 768 values for 16 bits"),
        ({"bits": 8}, {262: [5], 277: [4], 258: [8] * 4, 332: [2]}, "its inks are not CMYK"),
        ({"bits": 8}, {262: [6], 277: [3], 258: [8] * 3}, "8-bit uncompressed YCbCr with subsampled colours"),
        ({"bits": 8}, {279: None}, "it names 3 strips or tiles and 0 lengths"),
        ({"bits": 8}, {256: [0]}, "its size is 0x21"),
    ],
)  # fmt: skip
def test_what_cannot_be_obeyed_is_refused_by_name(tmp_path: Path, options, tags, message: str) -> None:
    path = written(tmp_path, tiff_bytes(GREY8, photometric=1, tags=tags, **options))
    with pytest.raises(BadInputError, match=rf"a\.tif: this TIFF cannot be read as it was meant: .*{message}"):
        decode_image(path)


def test_missing_data_is_never_filled(tmp_path: Path) -> None:
    whole = tiff_bytes(GREY8, bits=8, photometric=1)
    for tags, message in (
        ({279: [152, 152, 94]}, "a strip or tile holds 94 bytes; expected 95"),
        ({273: [8, 160, 100_000]}, "the file ends inside a strip or tile: 0 of 95 bytes"),
        ({273: [8, 160], 279: [152, 152]}, "2 strips or tiles; expected 3"),
    ):
        path = written(tmp_path, tiff_bytes(GREY8, bits=8, photometric=1, tags=tags))
        with pytest.raises(BadInputError, match=message):
            decode_image(path)
    for length in range(8, len(whole), 7):
        path = written(tmp_path, whole[:length])
        with pytest.raises(BadInputError, match="cannot be read"):
            decode_image(path)
    damaged = bytearray(tiff_bytes(GREY8, bits=8, photometric=1, deflate=True))
    damaged[40] ^= 16
    with pytest.raises(BadInputError, match="strips or tiles of deflate cannot be unpacked: damaged"):
        decode_image(written(tmp_path, damaged))


def test_a_damaged_file_gives_pixels_or_our_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    contents = [
        tiff_bytes(random_samples(bits, num), bits=bits, photometric=2 if num > 1 else 0, **options)
        for bits, num, options in ((12, 1, {}), (16, 3, {"planar": True}), (10, 3, {"tile": 16, "deflate": True}))
    ]
    num_refused = 0
    for content, _ in itertools.product(contents, range(200)):
        damaged = bytearray(content)
        for place in rng.integers(len(content) - 260, len(content), size=2):
            damaged[place] = rng.integers(256)
        try:
            assert decode_image(written(tmp_path, damaged), max_pixels=1_000_000).dtype == np.uint8
        except BadInputError:
            num_refused += 1
    assert num_refused > 100
