"""The same pixels are the same image, whatever the file."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.content import content_hash, content_hashes, holdout_lines
from lineproof.data.decoding.xyz import write_xyz
from lineproof.data.scans import survey_scans
from lineproof.data.sizes import survey


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)


@pytest.fixture
def saved(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_the_hash_is_over_size_and_pixels(saved, pixels):
    digest = hashlib.sha256((12).to_bytes(8, "big") + (16).to_bytes(8, "big") + pixels.tobytes()).hexdigest()
    assert content_hash(saved) == digest[:16]


@pytest.mark.parametrize("name", ["b.png", "b.bmp", "b.tif", "b.webp"])
def test_a_lossless_copy_is_the_same_image(saved, pixels, tmp_path, name):
    Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert content_hash(tmp_path / name) == content_hash(saved)


def test_a_link_is_the_same_image(saved, tmp_path):
    (tmp_path / "link.png").symlink_to(saved)
    assert content_hash(tmp_path / "link.png") == content_hash(saved)


@pytest.mark.usefixtures("saved")
def test_one_grey_level_and_another_shape_are_other_images(pixels, tmp_path):
    other = pixels.copy()
    other[3, 4, 1] ^= 1
    Image.fromarray(other).save(tmp_path / "b.png")
    Image.fromarray(pixels.reshape(16, 12, 3)).save(tmp_path / "c.png")
    assert len({content_hash(tmp_path / name) for name in ("a.png", "b.png", "c.png")}) == 3


def test_grey_and_the_same_in_colour_are_one_image(tmp_path):
    grey = np.arange(192, dtype=np.uint8).reshape(12, 16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(tmp_path / "colour.png")
    assert content_hash(tmp_path / "grey.png") == content_hash(tmp_path / "colour.png")


def test_several_are_hashed_in_order_and_told(saved, tmp_path):
    Image.new("RGB", (16, 12)).save(tmp_path / "b.png")
    calls = []
    paths = [tmp_path / "b.png", saved]
    assert content_hashes(paths, progress=lambda *item: calls.append(item)) == tuple(map(content_hash, paths))
    assert calls == [("reading images", 1, 2), ("reading images", 2, 2)]


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(BadInputError, match=r"a\.png"):
        content_hash(tmp_path / "a.png")


def test_held_out_images_that_are_no_images_of_their_own_are_said():
    assert holdout_lines(["a", "b"], ["c", "d"]) == []
    assert holdout_lines([], []) == []
    (line,) = holdout_lines(["a", "b"], ["b", "a", "c"])
    assert line.startswith("2 of 3 held-out images show, pixel by pixel, what the detector was fitted to: ")
    (line,) = holdout_lines(["a"], ["c", "c", "d", "c"])
    assert line.startswith("2 of 4 held-out images are copies of others, pixel by pixel: ")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_images_that_use_few_bits_of_16_are_told_apart(pixels, tmp_path, bits):
    """By the upper byte alone all images of 8 bits in 16 were one black image."""
    grey = pixels[..., 0].astype(np.uint16) << (bits - 8)
    grey[0, 0] = 2**bits - 1
    other = grey.copy()
    other[5, 5] ^= np.uint16(1 << (bits - 8))
    for name, values in (("a.png", grey), ("b.png", other), ("a.tif", grey)):
        Image.fromarray(values).save(tmp_path / name)
    first, second, anew = (content_hash(tmp_path / name) for name in ("a.png", "b.png", "a.tif"))
    assert first == anew
    assert first != second


@pytest.mark.parametrize("bit_depth", [None, 12])
def test_a_survey_hashes_what_it_decodes_as_the_files_alone_are_hashed(tmp_path, bit_depth):
    levels = np.arange(96, dtype=np.uint16).reshape(8, 12) * 40
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.fromarray((levels >> 4).astype(np.uint8)).save(tmp_path / "grey.png")
    Image.new("RGBA", (12, 8), (1, 2, 3, 4)).save(tmp_path / "alpha.png")
    paths = sorted(tmp_path.iterdir())
    assert survey(paths, bit_depth=bit_depth).hashes == content_hashes(paths)


def scan(folder, points, pixels):
    """Write a scan, and return what names it: its cloud and its image."""
    for kind in ("xyz", "rgb"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_xyz(folder / "xyz/000.tiff", points)
    Image.fromarray(pixels).save(folder / "rgb/000.png")
    return folder / "xyz/000.tiff", folder / "rgb/000.png"


@pytest.fixture
def points():
    return np.abs(np.random.default_rng(1).normal(size=(12, 16, 3))).astype(np.float32)


def test_a_scans_hash_is_over_size_points_and_the_hash_of_its_image(points, pixels, tmp_path):
    cloud, image = scan(tmp_path, points, pixels)
    plain = b"cloud" + (12).to_bytes(8, "big") + (16).to_bytes(8, "big") + points.astype("<f4").tobytes()
    assert content_hash(cloud, "cloud") == content_hash(image, "cloud") == hashlib.sha256(plain).hexdigest()[:16]
    coloured = hashlib.sha256(plain + content_hash(image).encode()).hexdigest()[:16]
    assert content_hash(cloud, "cloud+rgb") == content_hash(image, "cloud+rgb") == coloured


def test_another_cloud_is_another_scan_and_other_colours_are_where_they_are_read(points, pixels, tmp_path):
    _, first = scan(tmp_path / "a", points, pixels)
    _, cloud = scan(tmp_path / "b", points + np.float32(1e-4), pixels)
    _, colours = scan(tmp_path / "c", points, 255 - pixels)
    assert content_hash(cloud) == content_hash(first)
    for reads in ("cloud", "cloud+rgb"):
        assert content_hash(cloud, reads) != content_hash(first, reads)
    assert content_hash(colours, "cloud") == content_hash(first, "cloud")
    assert content_hash(colours, "cloud+rgb") != content_hash(first, "cloud+rgb")


def test_however_a_file_says_that_nothing_was_measured(points, pixels, tmp_path):
    holes = points.copy()
    holes[2, 3], holes[4, 5] = 0.0, 0.0
    _, first = scan(tmp_path / "a", holes, pixels)
    holes[2, 3], holes[4, 5] = np.nan, (1.0, np.inf, 2.0)
    _, other = scan(tmp_path / "b", holes, pixels)
    assert content_hash(first, "cloud") == content_hash(other, "cloud")


@pytest.mark.parametrize("has_rgb", [False, True])
def test_the_survey_of_scans_gives_the_same_hashes(points, pixels, tmp_path, has_rgb):
    paths = [scan(tmp_path / name, points * scale, pixels)[1] for name, scale in (("a", 1.0), ("b", 2.0))]
    seen = survey_scans(paths, has_rgb=has_rgb)
    assert seen.hashes == content_hashes(paths, "cloud+rgb" if has_rgb else "cloud")
    assert len(set(seen.hashes)) == 2


def test_colours_that_are_not_read_need_not_be_there(points, pixels, tmp_path):
    cloud, image = scan(tmp_path, points, pixels)
    known = content_hash(cloud, "cloud")
    image.unlink()
    assert survey_scans([cloud], has_rgb=False).hashes == (known,)
    with pytest.raises(BadInputError, match=r"000\.png"):
        content_hash(cloud, "cloud+rgb")
