"""The same pixels are the same image, whatever the file."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.content import content_hash, content_hashes, holdout_lines
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
