"""Turned copies of scans: rotations about the normal of the background, as the camera would have seen them.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset", VISAPP 2022, arXiv 2112.09045, turn each training scan
20 times by −5° to 5° about the normal of the estimated background plane. How the plane is found, about which point is
turned, and how a turned cloud is brought to pixels again, is our guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...core.camera import DivisionCamera
from ...data.inputs.scan import is_measured

_BORDER_PX, _NEAR_PLANE_M, _TRIALS, _FEWEST = 10, 0.004, 200, 3
_NOTHING, _UNMEASURED, _MEASURED = 0.0, 1.0, 2.0


@final
@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in front of the camera: the points p with normal · p = distance.

    Attributes:
        normal: float64 (3,), unit length, away from the camera.
        distance_m: distance from the camera, in metres.
    """

    normal: NDArray[np.float64]
    distance_m: float


def background_plane(cloud: NDArray[np.floating], rng: np.random.Generator) -> Plane:
    """The plane that most points near the image's border lie in.

    Args:
        cloud: float (H, W, 3), x, y, z in metres, (0, 0, 0) for no measurement.
        rng: draws which points are tried: 200 times three, then a fit to all points within 4 mm of the best plane.

    Returns:
        The plane; where the border holds fewer than three measurements, one across the camera's axis through the
        farthest point.
    """
    is_border = np.ones(cloud.shape[:2], bool)
    is_border[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = False
    points = cloud[is_border & is_measured(cloud)].astype(np.float64)
    if len(points) < _FEWEST:
        return Plane(np.array([0.0, 0.0, 1.0]), float(cloud[..., 2].max()))
    drawn = points[rng.integers(0, len(points), (_TRIALS, 3))]
    normals = np.cross(drawn[:, 1] - drawn[:, 0], drawn[:, 2] - drawn[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= np.where(lengths > 0.0, lengths, np.inf)
    distances = np.abs(points @ normals.T - np.sum(drawn[:, 0] * normals, axis=1))
    # Three points in one line make no plane.
    num_near = np.where(lengths[:, 0] > 0.0, np.sum(distances < _NEAR_PLANE_M, axis=0), -1)
    near = points[distances[:, int(num_near.argmax())] < _NEAR_PLANE_M]
    middle = near.mean(axis=0)
    normal = np.linalg.eigh((near - middle).T @ (near - middle))[1][:, 0]
    normal = normal if normal @ middle > 0.0 else -normal
    return Plane(normal, float(normal @ middle))


def turned(
    points: NDArray[np.float64], normal: NDArray[np.float64], angle_rad: float, *, pivot: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points (…, 3) turned about the axis along ``normal`` through ``pivot`` (Rodrigues)."""
    offsets = points - pivot
    along = (offsets @ normal)[..., None] * normal
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.asarray(pivot + cosine * (offsets - along) + sine * np.cross(normal, offsets) + along)


def turned_scan(
    cloud: NDArray[np.float32], camera: DivisionCamera, plane: Plane, *, angle_rad: float
) -> NDArray[np.float32]:
    """A scan turned about the normal of its background through the mean of its points, seen by the camera again.

    Each point goes to the pixel that shows it, the nearest to the camera wins. A pixel without a measurement moves as
    if it lay on the background: its colour goes along, and it stays without one. Single pixels that nothing falls on
    take what a neighbour has.

    Args:
        cloud: float32 (H, W, 3), with RGB (H, W, 6).
        camera: the camera, as it sees frames.
        plane: the background.
        angle_rad: angle.

    Returns:
        A copy of the same shape; pixels that show nothing of the scan are 0.
    """
    is_valid = is_measured(cloud[..., :3])
    if not is_valid.any():
        return np.zeros_like(cloud)
    rays = camera.rays()
    points = np.where(is_valid[..., None], cloud[..., :3], rays * (plane.distance_m / (rays @ plane.normal))[..., None])
    moved = turned(points, plane.normal, angle_rad, pivot=points[is_valid].mean(axis=0)).reshape(-1, 3)
    rows, columns = (np.rint(item) for item in camera.project(moved))
    height, width = cloud.shape[:2]
    # NaN compares false.
    order = np.flatnonzero((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width))
    # From far to near: of several points in one pixel the last one written stays.
    order = order[np.argsort(-moved[order, 2], kind="stable")]
    kind = np.where(is_valid, _MEASURED, _UNMEASURED).reshape(-1, 1)
    values = np.concatenate([kind, moved, cloud[..., 3:].reshape(height * width, -1)], axis=1)
    seen = np.zeros((height, width, values.shape[1]))
    seen[rows[order].astype(np.int64), columns[order].astype(np.int64)] = values[order]
    seen = _without_cracks(seen)
    seen[..., 1:4] *= seen[..., :1] == _MEASURED
    return np.ascontiguousarray(seen[..., 1:], np.float32)


def _without_cracks(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels of nothing take the neighbour of median depth, where five or more of the eight have something.

    Args:
        seen: float64 (H, W, 4 or 7): kind, point, colours.
    """
    around = np.pad(seen, ((1, 1), (1, 1), (0, 0)))
    rows, columns = np.nonzero(seen[..., 0] == _NOTHING)
    shifts = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    neighbours = np.stack([around[rows + r, columns + c] for r, c in shifts], axis=1)
    num_something = np.sum(neighbours[..., 0] != _NOTHING, axis=1)
    depths = np.where(neighbours[..., 0] != _NOTHING, neighbours[..., 3], np.inf)
    each = np.arange(len(depths))
    middle = np.argsort(depths, axis=1, kind="stable")[each, (num_something - 1).clip(min=0) // 2]
    is_crack = num_something >= len(shifts) // 2 + 1
    filled = seen.copy()
    filled[rows[is_crack], columns[is_crack]] = neighbours[each, middle][is_crack]
    return filled
