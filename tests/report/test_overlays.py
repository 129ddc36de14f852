"""Heat maps, overlays, contours and data URIs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError, UsageError
from lineproof.report.overlays import contour, heat_map, overlay, png_data_uri

RAMP = np.linspace(0, 1, 256, dtype=np.float32)[None, :]
FRAME = np.random.default_rng(0).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)


def test_the_colours_only_get_lighter_from_low_to_high() -> None:
    colours = heat_map(RAMP, low=0, high=1)[0].astype(float)
    luma = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luma) >= -0.5).all()
    assert luma[0] < 5
    assert luma[-1] > 240
    assert (np.abs(np.diff(colours, axis=0)).max(axis=1) <= 5).all()


def test_values_beyond_the_limits_take_the_limits_colours() -> None:
    colours = heat_map(np.array([[-9.0, 2.0, 3.0, 99.0]], dtype=np.float32), low=2, high=3)
    np.testing.assert_array_equal(colours[0, 0], colours[0, 1])
    np.testing.assert_array_equal(colours[0, 2], colours[0, 3])
    assert colours.dtype == np.uint8
    assert colours.shape == (1, 4, 3)


def test_scale_and_shift_do_not_change_the_image() -> None:
    np.testing.assert_array_equal(heat_map(RAMP, low=0, high=1), heat_map(RAMP * 8 - 4, low=-4, high=4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    anomaly_map = RAMP.copy()
    anomaly_map[0, 7] = bad
    with pytest.raises(BadInputError, match="holds NaN or infinity; expected finite values"):
        heat_map(anomaly_map, low=0, high=1)


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_a_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match=r"The anomaly map has shape \(.*\); expected \(h, w\)"):
        heat_map(np.zeros(shape, dtype=np.float32), low=0, high=1)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (float("nan"), 1), (0, float("nan"))])
def test_limits_in_the_wrong_order_are_refused(low: float, high: float) -> None:
    with pytest.raises(UsageError, match="expected low < high"):
        heat_map(RAMP, low=low, high=high)


def test_an_overlay_leaves_the_frame_where_nothing_is_anomalous() -> None:
    anomaly_map = np.zeros((10, 15), dtype=np.float32)
    anomaly_map[4, 5] = 1
    drawn = overlay(FRAME, anomaly_map, low=0, high=1)
    changed = (drawn != FRAME).any(axis=2)
    np.testing.assert_array_equal(drawn[:8], FRAME[:8])
    np.testing.assert_array_equal(drawn[:, 40:], FRAME[:, 40:])
    rows, columns = np.nonzero(changed)
    np.testing.assert_allclose((rows.mean(), columns.mean()), (17.5, 21.5), atol=0.6)


def test_an_overlay_covers_by_alpha_at_most() -> None:
    hot = np.ones((10, 15), dtype=np.float32)
    colour = heat_map(hot, low=0, high=1)[0, 0].astype(float)
    np.testing.assert_array_equal(overlay(FRAME, hot, low=0, high=1, alpha=0), FRAME)
    np.testing.assert_array_equal(overlay(FRAME, hot, low=0, high=1, alpha=1), np.broadcast_to(colour, FRAME.shape))
    half = overlay(FRAME, hot, low=0, high=1, alpha=0.5)
    np.testing.assert_allclose(half, (FRAME + colour) / 2, atol=0.51)


def test_an_overlay_is_resized_bilinearly() -> None:
    anomaly_map = np.array([[0, 1]], dtype=np.float32)
    grey = np.zeros((4, 8, 3), dtype=np.uint8)
    drawn = overlay(grey, anomaly_map, low=0, high=1, alpha=1).astype(int).sum(axis=2)
    np.testing.assert_array_equal(drawn, np.repeat(drawn[:1], 4, axis=0))
    assert (np.diff(drawn[0]) >= 0).all()
    assert len(set(drawn[0])) == 6  # two equal pixels at each end, a ramp between


def test_an_overlay_refuses_other_frames_and_shares() -> None:
    with pytest.raises(BadInputError, match=r"The frame is float64 \(4, 4, 3\); expected uint8"):
        overlay(np.zeros((4, 4, 3)), RAMP, low=0, high=1)
    with pytest.raises(BadInputError, match=r"The frame is uint8 \(4, 4\); expected uint8 \(H, W, 3\)"):
        overlay(np.zeros((4, 4), dtype=np.uint8), RAMP, low=0, high=1)
    with pytest.raises(UsageError, match=r"alpha is 1\.5; expected a share between 0 and 1"):
        overlay(FRAME, RAMP, low=0, high=1, alpha=1.5)


def test_a_contour_is_the_inner_rim_of_the_mask() -> None:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[10:20, 30:45] = True
    drawn = contour(FRAME, mask, colour=(1, 2, 3), width_px=2)
    rim = mask.copy()
    rim[12:18, 32:43] = False
    np.testing.assert_array_equal(drawn[~rim], FRAME[~rim])
    np.testing.assert_array_equal(drawn[rim], np.broadcast_to([1, 2, 3], (rim.sum(), 3)))


def test_a_contour_of_nothing_and_of_everything_draws_nothing() -> None:
    for mask in (np.zeros((40, 60), dtype=np.bool_), np.ones((40, 60), dtype=np.bool_)):
        np.testing.assert_array_equal(contour(FRAME, mask), FRAME)


def test_a_contour_refuses_other_masks() -> None:
    with pytest.raises(BadInputError, match=r"The mask is bool \(40, 59\); expected bool \(40, 60\)"):
        contour(FRAME, np.zeros((40, 59), dtype=np.bool_))
    with pytest.raises(BadInputError, match="The mask is uint8"):
        contour(FRAME, np.zeros((40, 60), dtype=np.uint8))
    with pytest.raises(UsageError, match="width_px is 0; expected at least 1"):
        contour(FRAME, np.zeros((40, 60), dtype=np.bool_), width_px=0)


@pytest.mark.parametrize("image", [FRAME, FRAME[:, :, 0], FRAME[::2, ::-1]], ids=["rgb", "grey", "strided"])
def test_a_data_uri_holds_the_very_pixels(image: np.ndarray) -> None:
    head, _, body = png_data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), image)


@pytest.mark.parametrize("image", [FRAME.astype(np.float32), FRAME[:, :, :2], FRAME[0, 0], FRAME[:0]])
def test_a_data_uri_refuses_what_is_no_image(image: np.ndarray) -> None:
    with pytest.raises(BadInputError, match=r"expected uint8 \(H, W, 3\) or \(H, W\)"):
        png_data_uri(image)
