"""Bad cases: which images, in which order, and where the hot spot lies."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from lineproof.core.spec import Preprocessing
from lineproof.eval.accuracy.badcases import find_bad_cases, grow, hot_level

SIDE = 64


@pytest.fixture
def outputs(outputs_of):
    """Six good and four defective images; image 7 has a spot outside its mask."""
    maps = np.full((10, SIDE, SIDE), 0.1, np.float32)
    masks = np.zeros((10, SIDE, SIDE), np.bool_)
    masks[6:, 10:14, 10:14] = True
    maps[6:, 10:14, 10:14] = np.array([0.9, 0.8, 0.3, 0.2], np.float32)[:, None, None]
    maps[0, 0, 0], maps[1, 0, 0] = 0.55, 0.6
    maps[7, 40:43, 50:52] = 0.7
    maps[7, 41, 51] = 0.75
    # The blur of the defect itself: far outside its mask, but in one piece with it.
    maps[6, 14:34, 10:14] = 0.88
    spec = Preprocessing.of((SIDE, SIDE, 3), (SIDE, SIDE), (SIDE, SIDE))
    return outputs_of(maps, masks, spec, threshold=0.5)


def test_each_kind_the_worst_first(outputs):
    cases = find_bad_cases(outputs)
    kinds = [(case.kind, case.file) for case in cases]
    assert kinds == [
        ("false accept", "9.png"),
        ("false accept", "8.png"),
        ("false reject", "1.png"),
        ("false reject", "0.png"),
        ("hot spot", "7.png"),
    ]
    np.testing.assert_allclose([case.margin for case in cases[:4]], [0.3, 0.2, 0.1, 0.05], atol=1e-6)
    assert cases[-1].box == (40, 50, 43, 52)
    np.testing.assert_allclose(cases[-1].margin, 0.75 - hot_level(outputs), atol=1e-6)


def test_at_most_so_many_of_each(outputs):
    assert [case.file for case in find_bad_cases(outputs, top=1)] == ["9.png", "1.png", "7.png"]


def test_unknown_pixels_hold_no_hot_spot(outputs):
    unknown = dataclasses.replace(outputs, has_mask=~outputs.label)
    assert all(case.kind != "hot spot" for case in find_bad_cases(unknown))
    assert hot_level(outputs.take(np.arange(6, 10))) is None
    assert all(case.kind != "hot spot" for case in find_bad_cases(outputs.take(np.arange(6, 10))))


@pytest.mark.parametrize("num_px", [1, 3])
def test_growing_is_dilation_by_a_square(num_px):
    mask = np.random.default_rng(0).random((20, 31)) < 0.03
    expected = binary_dilation(mask, np.ones((2 * num_px + 1, 2 * num_px + 1)))
    np.testing.assert_array_equal(grow(mask, num_px), expected)


def test_a_hot_spot_is_placed_on_the_image_or_on_the_map(outputs_of):
    """A map of 16 x 16 over the middle 448 of an image of 512: each of its pixels is 28 pixels of the image."""
    spec = Preprocessing.of((512, 512, 3), (256, 256), (224, 224))
    maps = np.full((4, 16, 16), 0.1, np.float32)
    maps[3, 10:12, 4:6] = 0.9
    masks = np.zeros((4, 512, 512), np.bool_)
    masks[3, 60:80, 300:330] = True
    outputs = outputs_of(maps, masks, spec, threshold=0.5)
    (on_map,) = find_bad_cases(outputs, resolution="map")
    assert on_map.box == (10, 4, 12, 6)
    (on_image,) = find_bad_cases(outputs)
    # Interpolation reaches to the centres of the neighbours, 14 pixels beyond.
    assert on_image.box == (32 + 266, 32 + 98, 32 + 350, 32 + 182)
