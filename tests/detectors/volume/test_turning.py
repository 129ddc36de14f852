"""Turned copies: the plane of the background, rotation, and what the camera sees of it again."""

import numpy as np
import pytest

pytest.importorskip("torch")

from lineproof.core.errors import UsageError
from lineproof.data.sample import bracket, relief
from lineproof.detectors.volume.copies import Copies
from lineproof.detectors.volume.turning import Plane, background_plane, turned, turned_scan

CAMERA = relief.make_camera(96)
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def scan():
    return relief.scan(bracket.make(RNG(1)), CAMERA, RNG(2))


@pytest.fixture(scope="module")
def cloud(scan):
    return np.concatenate([scan.points, scan.image.astype(np.float32)], axis=2)


def table_normal():
    # The sample's table lies in z = 0.45 + 0.03 x - 0.05 y.
    normal = np.array([-0.03, 0.05, 1.0])
    return normal / np.linalg.norm(normal)


def test_the_background_is_the_table(cloud):
    plane = background_plane(cloud[..., :3], RNG(0))
    np.testing.assert_allclose(plane.normal, table_normal(), atol=2e-3)
    np.testing.assert_allclose(plane.distance_m, 0.45 * table_normal()[2], atol=1e-4)


def test_outliers_on_the_border_do_not_tilt_it(cloud):
    damaged = cloud[..., :3].copy()
    damaged[:10, :60] *= 0.8
    np.testing.assert_allclose(background_plane(damaged, RNG(0)).normal, table_normal(), atol=4e-3)


def test_without_a_border_it_faces_the_camera():
    empty = np.zeros((40, 40, 3))
    empty[20, 20] = (0.0, 0.0, 0.5)
    plane = background_plane(empty, RNG(0))
    np.testing.assert_array_equal(plane.normal, [0, 0, 1])
    assert plane.distance_m == 0.5


def test_a_rotation_by_hand():
    points = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    quarter = turned(points, np.array([0.0, 0, 1]), np.pi / 2, pivot=np.zeros(3))
    np.testing.assert_allclose(quarter, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
    moved = turned(points, np.array([0.0, 0, 1]), np.pi, pivot=np.array([1.0, 1, 5]))
    np.testing.assert_allclose(moved, [[1, 2, 0], [2, 1, 0], [2, 2, 1]], atol=1e-15)


def test_no_angle_gives_the_scan_itself(cloud):
    plane = background_plane(cloud[..., :3], RNG(0))
    np.testing.assert_allclose(turned_scan(cloud, CAMERA, plane, angle_rad=0.0), cloud, atol=1e-6)


def test_a_turned_scan_is_what_the_camera_sees_of_a_turned_part(cloud):
    """Against the surface itself, turned back point by point: no copy lies off it by more than pixels are wide."""
    plane = Plane(table_normal(), 0.45 * float(table_normal()[2]))
    angle = np.deg2rad(5)
    copy = turned_scan(cloud, CAMERA, plane, angle_rad=angle)
    valid = copy[..., 2] > 0
    pivot = cloud[cloud[..., 2] > 0][:, :3].astype(np.float64).mean(axis=0)
    back = turned(copy[valid][:, :3].astype(np.float64), plane.normal, -angle, pivot=pivot)
    part = bracket.make(RNG(1))
    off = np.abs(relief.depth_below(part, back))
    # Noise of 0.04 mm along the ray, and walls.
    assert np.quantile(off, 0.97) < 3e-4
    # Where it was measured it still is, save for the corners that turn out of sight.
    assert valid.mean() > 0.9 * (cloud[..., 2] > 0).mean()
    rows, columns = CAMERA.project(copy[valid][:, :3])
    seen = np.stack([rows, columns], axis=1) - np.argwhere(valid)
    # Points are written to the pixel that shows them; only what fills a crack lies in a neighbour's.
    assert np.quantile(np.abs(seen).max(axis=1), 0.95) < 0.501
    assert np.abs(seen).max() < 1.6


def test_a_lost_pixel_moves_and_stays_lost(cloud):
    lost = cloud.copy()
    lost[70:75, 45:50, :3] = 0.0
    plane = background_plane(lost[..., :3], RNG(0))
    copy = turned_scan(lost, CAMERA, plane, angle_rad=np.deg2rad(4))
    around = copy[60:85, 35:60]
    assert 12 <= (around[..., 2] == 0).sum() <= 45
    # Its colour went along: nothing inside is black.
    assert around[..., 3:].max(axis=2).min() > 20


def test_of_two_points_in_a_pixel_the_nearer_is_seen():
    cloud = CAMERA.rays().astype(np.float32) * 0.45
    cloud[40:44, 40:44] *= 0.5
    copy = turned_scan(cloud, CAMERA, Plane(np.array([0.0, 0.0, 1.0]), 0.45), angle_rad=np.deg2rad(10))
    # Half as far, and as far from the axis, it moves outwards in the image and covers what lies behind.
    assert 10 <= (np.abs(copy[..., 2] - 0.225) < 1e-6).sum() <= 30


class FakeScans:
    """One scan, as a ScanSet gives it."""

    def __init__(self, cloud):
        self._cloud = cloud
        self.rule = type("Rule", (), {"camera": CAMERA})

    def cloud(self, _index):
        return self._cloud


def test_copies_are_drawn_by_seed_and_scan(cloud):
    scans = FakeScans(cloud)
    first, again = (Copies(num=2, largest_deg=5.0).of(scans, 3, seed=1) for _ in range(2))
    assert len(first) == 3
    np.testing.assert_array_equal(first[0], cloud)
    np.testing.assert_array_equal(np.stack(first), np.stack(again))
    other = Copies(num=2, largest_deg=5.0).of(scans, 4, seed=1)
    assert not np.array_equal(first[1], other[1])


def test_moved_copies_are_turned_ones_moved(cloud):
    scans = FakeScans(cloud)
    plain = Copies(num=1, largest_deg=5.0).of(scans, 0, seed=1)[1]
    moved = Copies(num=1, largest_deg=5.0, largest_shift_m=0.001).of(scans, 0, seed=1)[1]
    valid = plain[..., 2] > 0
    shift = (moved - plain)[..., :3][valid]
    assert 1e-5 < np.abs(shift).max() <= 0.001
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-7)
    assert (moved[~valid][:, :3] == 0).all()


@pytest.mark.parametrize("wrong", [{"num": -1}, {"largest_deg": 181.0}, {"largest_shift_m": -1.0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError, match="expected 0 or more copies, 0 to 180 degrees, and a shift from 0"):
        Copies(**{"num": 1, "largest_deg": 5.0, **wrong})
