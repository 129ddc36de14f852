"""Masks drawn in colours, in alpha and in palette indices: exact pixels of every row of the table."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.decoding.decode import decode_mask

DEFECT = np.zeros((24, 32), bool)
DEFECT[5:9, 7:20] = True
DEFECT[12, 3] = True
OTHER = np.roll(DEFECT, 3, axis=0)
BYTE = DEFECT.astype(np.uint8)


def rgba(tmp_path: Path, colours: np.ndarray, alpha: np.ndarray, *, suffix: str = "png") -> Path:
    """A mask of (H, W) or (H, W, 3) colours and (H, W) alpha."""
    colours = np.repeat(colours[:, :, None], 3, axis=2) if colours.ndim == 2 else colours
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8)).save(path)
    return path


def grey_alpha(tmp_path: Path, grey: np.ndarray, alpha: np.ndarray) -> Path:
    path = tmp_path / "la.png"
    image = Image.fromarray(np.dstack([grey, alpha]).astype(np.uint8))
    assert image.mode == "LA"
    image.save(path)
    return path


def palette(tmp_path: Path, indices: np.ndarray, colours: list[int], *, suffix: str = "png", **options) -> Path:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(colours)
    path = tmp_path / f"p.{suffix}"
    image.save(path, **options)
    return path


@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("opacity", [1, 128, 255])
def test_one_colour_and_varying_alpha_is_drawn_in_alpha(tmp_path: Path, level: int, opacity: int) -> None:
    colours = np.full((24, 32), level)
    for suffix in ("png", "tif"):
        np.testing.assert_array_equal(decode_mask(rgba(tmp_path, colours, BYTE * opacity, suffix=suffix)), DEFECT)
    np.testing.assert_array_equal(decode_mask(grey_alpha(tmp_path, colours, BYTE * opacity)), DEFECT)
    red = np.zeros((24, 32, 3))
    red[:, :, 0] = level
    np.testing.assert_array_equal(decode_mask(rgba(tmp_path, red, BYTE * opacity)), DEFECT)


def test_a_soft_alpha_counts_wherever_it_is_not_zero(tmp_path: Path) -> None:
    alpha = BYTE * np.arange(1, 33)
    np.testing.assert_array_equal(decode_mask(rgba(tmp_path, np.zeros((24, 32)), alpha)), DEFECT)


@pytest.mark.parametrize("opacity", [0, 90, 255])
def test_constant_alpha_says_nothing(tmp_path: Path, opacity: int) -> None:
    alpha = np.full((24, 32), opacity)
    np.testing.assert_array_equal(decode_mask(rgba(tmp_path, BYTE * 200, alpha)), DEFECT)
    np.testing.assert_array_equal(decode_mask(grey_alpha(tmp_path, BYTE * 3, alpha)), DEFECT)
    assert not decode_mask(rgba(tmp_path, BYTE * 0, alpha)).any()
    assert decode_mask(rgba(tmp_path, BYTE * 0 + 9, alpha)).all()


def test_alpha_that_is_zero_nowhere_leaves_it_to_the_colours(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_mask(rgba(tmp_path, BYTE * 200, 100 + BYTE)), DEFECT)
    with pytest.raises(BadInputError, match="every colour is black and alpha varies, but is zero nowhere"):
        decode_mask(rgba(tmp_path, BYTE * 0, 100 + BYTE))


def test_colours_and_alpha_that_agree(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_mask(rgba(tmp_path, BYTE * 200, BYTE * 255)), DEFECT)
    labels = BYTE * (1 + np.arange(32) % 5)
    np.testing.assert_array_equal(decode_mask(rgba(tmp_path, labels, BYTE * 90)), DEFECT)


@pytest.mark.parametrize(
    ("colours", "alpha"),
    [
        pytest.param(BYTE * 255, OTHER * 255, id="two drawings"),
        pytest.param(255 - BYTE * 255, BYTE * 255, id="black on white, ground transparent"),
        pytest.param(10 + np.arange(32) * np.ones((24, 1)), BYTE * 255, id="cut out of an image"),
        pytest.param(BYTE * 255, 255 - BYTE * 255, id="defect transparent"),
    ],
)
def test_colours_and_alpha_that_differ_are_refused(tmp_path: Path, colours: np.ndarray, alpha: np.ndarray) -> None:
    path = rgba(tmp_path, colours, alpha)
    with pytest.raises(BadInputError, match=r"m\.png: which pixels of this mask .*: its colours mark other pixels"):
        decode_mask(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_palette_counts_by_its_colours(tmp_path: Path, suffix: str) -> None:
    for colours in ([0, 0, 0, 128, 0, 0], [0, 0, 0, 255, 255, 255], [0, 0, 0, 1, 1, 1]):
        np.testing.assert_array_equal(decode_mask(palette(tmp_path, BYTE, colours, suffix=suffix)), DEFECT)
    flipped = palette(tmp_path, 1 - BYTE, [255, 255, 255, 0, 0, 0], suffix=suffix)
    np.testing.assert_array_equal(decode_mask(flipped), DEFECT)
    # A good part's mask: black alone is in use, though white stands at index 0.
    assert not decode_mask(palette(tmp_path, BYTE * 0 + 1, [255, 255, 255, 0, 0, 0], suffix=suffix)).any()
    assert not decode_mask(palette(tmp_path, BYTE * 0, [0, 0, 0, 255, 255, 255], suffix=suffix)).any()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
@pytest.mark.parametrize("level", [0, 200])
def test_a_palette_of_one_colour_counts_by_its_indices(tmp_path: Path, suffix: str, level: int) -> None:
    for indices in (BYTE, BYTE * 3, BYTE * (1 + np.arange(32) % 5)):
        path = palette(tmp_path, indices, [level] * 768, suffix=suffix)
        np.testing.assert_array_equal(decode_mask(path), DEFECT)
    path = palette(tmp_path, BYTE + 1, [level] * 768, suffix=suffix)
    with pytest.raises(BadInputError, match=r"its palette indices \[1, 2\] have one colour, and index 0 is not"):
        decode_mask(path)
    path = palette(tmp_path, BYTE * 0 + 4, [level] * 768, suffix=suffix)
    with pytest.raises(BadInputError, match=r"its palette indices \[4\] have one colour"):
        decode_mask(path)
    assert decode_mask(palette(tmp_path, BYTE * 0, [level] * 768, suffix=suffix)).all() == (level > 0)


def test_a_palettes_transparency_counts_as_alpha(tmp_path: Path) -> None:
    black = [0] * 768
    for transparency in (0, bytes([0, 120])):
        path = palette(tmp_path, BYTE, black, transparency=transparency)
        np.testing.assert_array_equal(decode_mask(path), DEFECT)
        path = palette(tmp_path, BYTE, [0, 0, 0, 9, 9, 9], transparency=transparency)
        np.testing.assert_array_equal(decode_mask(path), DEFECT)
    # Index 0 alone is in use and opaque; the transparent entry is not.
    assert not decode_mask(palette(tmp_path, BYTE * 0, [0, 0, 0, 9, 9, 9], transparency=1)).any()
    path = palette(tmp_path, BYTE, [0, 0, 0, 9, 9, 9], transparency=1)
    with pytest.raises(BadInputError, match="its colours mark other pixels than its alpha"):
        decode_mask(path)


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_transparent_grey_counts_as_alpha(tmp_path: Path, bits: int) -> None:
    image = Image.fromarray(DEFECT if bits == 1 else (BYTE * 7).astype(f"u{bits // 8}"))
    path = tmp_path / "t.png"
    image.save(path, transparency=0)
    np.testing.assert_array_equal(decode_mask(path), DEFECT)
    image.save(path, transparency=255 if bits == 1 else 7)
    with pytest.raises(BadInputError, match="its colours mark other pixels than its alpha"):
        decode_mask(path)
    if bits > 1:
        image.save(path, transparency=99)
        np.testing.assert_array_equal(decode_mask(path), DEFECT)


def test_no_number_is_no_mark(tmp_path: Path) -> None:
    values = BYTE.astype(np.float32)
    values[0, 0] = np.nan
    path = tmp_path / "f.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(BadInputError, match=r"it holds values that are no number \(NaN\)"):
        decode_mask(path)
