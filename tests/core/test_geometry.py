"""One geometry of resize and crop: which pixels of the frame are seen, and where they lie on the map."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineproof.core.geometry import Axis, centre_crop_offset, enlarge_map, mask_on_map, seen_part
from lineproof.core.spec import Preprocessing


@st.composite
def sides(draw):
    resized = draw(st.integers(1, 300))
    return Axis(draw(st.integers(8, 1000)), resized, draw(st.integers(1, resized)))


@given(sides())
def test_seen_pixels_are_those_with_their_centre_in_the_crop(side):
    first = centre_crop_offset(side.resized_px, side.crop_px)
    inside = [
        pixel
        for pixel in range(side.frame_px)
        if first <= (Fraction(pixel) + Fraction(1, 2)) * side.resized_px / side.frame_px <= first + side.crop_px
    ]
    assert list(range(side.frame_px))[side.seen] == inside


@pytest.mark.parametrize(
    ("sizes", "rows", "columns"),
    [
        ((12, 16, 3, 12, 16, 12, 16), (0, 12), (0, 16)),
        ((512, 512, 3, 256, 256, 224, 224), (32, 480), (32, 480)),
        ((100, 300, 3, 256, 256, 224, 128), (6, 94), (75, 225)),
        # The crop begins at row 16 of 256, rounded to even from 15.5: row 56.25 of the frame, not 54.
        ((900, 900, 3, 256, 256, 225, 225), (56, 847), (56, 847)),
    ],
)
def test_seen_part(sizes, rows, columns):
    assert seen_part(Preprocessing.of(sizes[:3], sizes[3:5], sizes[5:])) == (slice(*rows), slice(*columns))


@given(sides(), st.integers(1, 300))
def test_positions_go_there_and_back(side, num_map):
    at = np.linspace(-3, side.frame_px + 3, 7)
    np.testing.assert_allclose(side.to_frame(side.to_map(at, num_map), num_map), at, atol=1e-9)
    np.testing.assert_allclose(side.to_map(np.array(side.edges_px), num_map), [0, num_map], atol=1e-9)


@pytest.mark.parametrize(("size", "map_size"), [((512, 512), (256, 256)), ((90, 40), (28, 28)), ((20, 30), (64, 64))])
def test_without_a_crop_a_map_is_enlarged_as_torch_does(size, map_size):
    torch = pytest.importorskip("torch")
    anomaly_map = np.random.default_rng(0).random(map_size, np.float32)
    enlarged = enlarge_map(anomaly_map, Preprocessing.of((*size, 3), (256, 256), (256, 256)))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(anomaly_map).double()[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    assert enlarged.dtype == np.float32
    np.testing.assert_allclose(enlarged, expected, rtol=0, atol=1e-7)


def test_with_a_crop_each_pixel_takes_the_value_at_its_own_centre():
    spec = Preprocessing.of((45, 90, 3), (16, 16), (11, 8))
    anomaly_map = np.random.default_rng(0).random((22, 5), np.float32)
    enlarged = enlarge_map(anomaly_map, spec)
    rows, columns = seen_part(spec)
    assert enlarged.shape == (rows.stop - rows.start, columns.stop - columns.start)
    for row in range(rows.start, rows.stop):
        for column in range(columns.start, columns.stop):
            at = []
            for pixel, side, num in zip((row, column), spec.axes, anomaly_map.shape, strict=True):
                first = round((side.resized_px - side.crop_px) / 2)
                place = ((pixel + 0.5) * side.resized_px / side.frame_px - first) * num / side.crop_px - 0.5
                at.append(min(max(place, 0), num - 1))
            weights = [np.maximum(0, 1 - np.abs(np.arange(n) - x)) for n, x in zip(anomaly_map.shape, at, strict=True)]
            expected = weights[0] @ anomaly_map @ weights[1]
            np.testing.assert_allclose(enlarged[row - rows.start, column - columns.start], expected, atol=1e-6)


def test_what_the_graph_saw_of_a_spot_comes_back_to_its_place():
    """The graph's own resize and crop, its result taken as a map, and enlarged: the spot has not moved."""
    torch = pytest.importorskip("torch")
    from lineproof.detectors.nn.graph import Preprocess

    spec = Preprocessing.of((900, 900, 1), (256, 256), (225, 225), normalisation=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    rows, columns = np.mgrid[:900, :900] + 0.5
    frame = 255 * np.exp(-0.5 * ((rows - 200.3) ** 2 + (columns - 701.8) ** 2) / 12**2)
    with torch.no_grad():
        image = Preprocess(spec)(torch.from_numpy(np.rint(frame).astype(np.uint8))[None, :, :, None])
    enlarged = enlarge_map(image[0, 0].numpy(), spec)
    part = seen_part(spec)
    centre = [
        (np.arange(side.start, side.stop) + 0.5) @ enlarged.sum(axis=1 - axis) / enlarged.sum()
        for axis, side in enumerate(part)
    ]
    np.testing.assert_allclose(centre, [200.3, 701.8], atol=0.05)


def test_a_map_of_the_frames_size_is_handed_on():
    anomaly_map = np.random.default_rng(0).random((12, 16), np.float32)
    assert (
        enlarge_map(
            anomaly_map,
            Preprocessing.of((12, 16, 3), (12, 16), (12, 16)),
        )
        is anomaly_map
    )
    # Resized to twice the size and cropped back, the map covers a quarter of the frame.
    assert enlarge_map(
        anomaly_map,
        Preprocessing.of((12, 16, 3), (24, 32), (12, 16)),
    ).shape == (6, 8)


def test_equal_values_stay_equal():
    """A plateau is one tie: no rounding of the weights may lift one of its pixels above another."""
    anomaly_map = np.full((28, 28), 0.1, np.float32)
    anomaly_map[10:20, 10:20] = 0.7
    assert set(
        np.unique(
            enlarge_map(
                anomaly_map,
                Preprocessing.of((301, 333, 3), (256, 256), (256, 256)),
            )[130:190, 150:200]
        )
    ) == {np.float32(0.7)}


def test_mask_of_the_frame_size_stays_as_it_is():
    mask = np.random.default_rng(0).random((12, 16)) > 0.5
    same = Preprocessing.of((12, 16, 3), (12, 16), (12, 16))
    np.testing.assert_array_equal(mask_on_map(mask, same, map_shape=(12, 16)), mask)


def test_mask_follows_resize_and_crop():
    """Frame 8x8 is halved to 4x4, then the middle 2x2 is kept: rows and columns 2..5 of the frame remain."""
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:4, 4:6] = True
    mask[0, 0] = True
    spec = Preprocessing.of((8, 8, 3), (4, 4), (2, 2))
    np.testing.assert_array_equal(mask_on_map(mask, spec, map_shape=(2, 2)), [[False, True], [False, False]])
    np.testing.assert_array_equal(mask_on_map(mask, spec, map_shape=(4, 4)), mask[2:6, 2:6])
