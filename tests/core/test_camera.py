"""The division camera against a solver that knows the model's definition only, and against itself backwards."""

import math

import numpy as np
import pytest

from lineproof.core.camera import DivisionCamera, fit_pinhole
from lineproof.core.errors import BadInputError, UsageError

#: The camera of MVTec 3D-AD's tire.
TIRE = DivisionCamera(
    focus_m=0.0103431,
    kappa_per_m2=-2205.03,
    pixel_width_m=3.74983e-06,
    pixel_height_m=3.75e-06,
    centre_column_px=376.046,
    centre_row_px=423.07,
    width_px=600,
    height_px=800,
)
PARAMETERS = {**TIRE.__dict__}


def camera(**changes):
    return DivisionCamera(**{**PARAMETERS, **changes})


def slow_pixel(seen, point):
    """Row and column of one point: the distorted radius by bisection of the model's definition."""
    x, y, z = (float(value) for value in point)
    undistorted = seen.focus_m * math.hypot(x, y) / z
    low, high = 0.0, 1.0 / math.sqrt(abs(seen.kappa_per_m2) + 1e-30)
    for _ in range(200):
        middle = (low + high) / 2
        if middle / (1 + seen.kappa_per_m2 * middle**2) < undistorted:
            low = middle
        else:
            high = middle
    angle = math.atan2(y, x)
    row = low * math.sin(angle) / seen.pixel_height_m + seen.centre_row_px
    return row, low * math.cos(angle) / seen.pixel_width_m + seen.centre_column_px


@pytest.mark.parametrize("kappa", [-2205.03, 0.0, 1500.0])
def test_there_and_back_on_every_pixel(kappa):
    seen = camera(kappa_per_m2=kappa)
    rows, columns = np.mgrid[:800, :600]
    depths = np.random.default_rng(0).uniform(0.2, 2.0, (800, 600, 1))
    again = seen.project(seen.rays() * depths)
    assert max(np.abs(again[0] - rows).max(), np.abs(again[1] - columns).max()) <= 1e-9


@pytest.mark.parametrize("kappa", [-2205.03, 1500.0])
def test_a_point_appears_where_the_definition_says(kappa):
    seen = camera(kappa_per_m2=kappa)
    points = np.random.default_rng(1).uniform((-0.06, -0.06, 0.4), (0.06, 0.06, 0.7), (50, 3))
    expected = np.array([slow_pixel(seen, point) for point in points])
    np.testing.assert_allclose(np.stack(seen.project(points), axis=1), expected, rtol=0, atol=1e-6)


def test_a_hand_worked_pinhole():
    seen = camera(
        kappa_per_m2=0.0, focus_m=0.01, pixel_width_m=1e-5, pixel_height_m=2e-5, centre_row_px=400, centre_column_px=300
    )
    rows, columns = seen.project(np.array([[0.1, 0.05, 1.0], [0.0, 0.0, 3.0], [-0.1, 0.1, 0.5]]))
    np.testing.assert_allclose(rows, [425, 400, 500], rtol=1e-15)
    np.testing.assert_allclose(columns, [400, 300, 100], rtol=1e-15)
    np.testing.assert_allclose(seen.unproject(np.array(425.0), np.array(400.0)), [0.1, 0.05, 1.0], rtol=1e-15)


def test_points_that_no_pixel_shows_are_nan():
    # Behind the camera, in it, and beyond what a lens with pincushion distortion maps.
    points = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [4.0, 0.0, 1.0]])
    rows, columns = camera(kappa_per_m2=1500.0).project(points)
    assert np.isnan(rows).all()
    assert np.isnan(columns).all()


def test_the_distortion_is_too_large_to_leave_out():
    rows, columns = camera(kappa_per_m2=0.0).project(TIRE.rays())
    seen_rows, seen_columns = np.mgrid[:800, :600]
    assert 5.0 < np.hypot(rows - seen_rows, columns - seen_columns).max() < 6.5


@pytest.mark.parametrize("size", [(400, 300), (533, 700)])
def test_a_resized_camera_sees_edges_where_they_were(size):
    small = TIRE.resized(size)
    corners = np.array([[-0.5, -0.5], [799.5, 599.5], [123.0, 456.0]])
    moved = (corners + 0.5) * np.array(size) / (800, 600) - 0.5
    np.testing.assert_allclose(small.unproject(*moved.T), TIRE.unproject(*corners.T), rtol=1e-12)
    assert small.size == size


def test_a_moved_camera_counts_from_another_pixel():
    part = TIRE.moved((100, 50), top_px=200, left_px=-30)
    np.testing.assert_allclose(part.unproject(np.array(7.0), np.array(40.0)), TIRE.rays()[207, 10], rtol=1e-12)


@pytest.mark.parametrize("changes", [{"focus_m": 0.0}, {"pixel_width_m": math.nan}, {"width_px": 0}])
def test_what_is_no_camera_is_refused(changes):
    with pytest.raises(UsageError, match="expected finite values above 0"):
        camera(**changes)


@pytest.mark.parametrize("kappa", [-4e5, 4e5])
def test_a_lens_that_folds_the_image_is_refused(kappa):
    with pytest.raises(UsageError, match=r"kappa is -?400000.0 1/m2; expected less than \d"):
        camera(kappa_per_m2=kappa)


def test_a_pinhole_is_found_from_its_clouds():
    truth = camera(kappa_per_m2=0.0, width_px=60, height_px=80, centre_column_px=37.0, centre_row_px=42.5)
    rng = np.random.default_rng(2)
    clouds = [truth.rays() * rng.uniform(0.4, 0.6, (80, 60, 1)) * (rng.random((80, 60, 1)) < 0.7) for _ in range(3)]
    fitted = fit_pinhole(cloud.astype(np.float32) for cloud in clouds)
    assert fitted.size == truth.size
    np.testing.assert_allclose(fitted.unproject(np.array(3.0), np.array(50.0)), truth.rays()[3, 50], rtol=1e-5)


def test_a_pinhole_needs_points():
    flat = np.zeros((4, 5, 3))
    flat[2, :, 2] = 0.5
    for clouds in ([], [np.zeros((4, 5, 3))], [flat]):
        with pytest.raises(BadInputError, match=r"camera_parameters\.json"):
            fit_pinhole(clouds)
    with pytest.raises(BadInputError, match="expected one size"):
        fit_pinhole([np.ones((4, 5, 3)), np.ones((5, 4, 3))])
