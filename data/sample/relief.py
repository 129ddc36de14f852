"""What the 3D sample is seen with: a table, a division camera above it, one light, and a sensor with shadows.

A part is a height above the table and a colour, both functions of the place. Each pixel's ray is followed to where it
first meets the part, so that depth is true for the camera, its distortion included. The sensor throws its pattern from
beside the camera: what lies in its shadow, or stands too steep, has no measurement. Lengths are in metres, as in
MVTec 3D-AD; axes are the camera's, x to the right, y downwards, z forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...core.camera import DivisionCamera
from .canvas import Floats, photograph, soft_noise

#: A function of the place (x, y) in metres.
Field = Callable[[Floats, Floats], Floats]

#: Side of the part of the table that an image shows, in metres.
WIDTH_M = 0.11
#: No part is higher, in metres.
HIGHEST_M = 0.032

_TABLE_M, _TILT_X, _TILT_Y = 0.45, 0.03, -0.05
_FOCUS_M, _KAPPA_PER_M2 = 0.012, -2000.0
_PROJECTOR = np.array((-0.12, -0.02, 0.0))
_TO_LIGHT = np.array((-0.45, -0.55, -0.70)) / np.linalg.norm((-0.45, -0.55, -0.70))
_NOISE_M, _STEEPEST, _SKIN_M = 4e-5, 0.28, 2e-4
_STEPS, _HALVINGS, _SHADOW_STEPS, _STEP_M = 24, 16, 24, 1e-5


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part on the table.

    Attributes:
        height: height above the table along z, 0 to ``HIGHEST_M``.
        colour: RGB reflectance of what lies there, part or table, about 0 to 1: (…) → (…, 3).
        surface: 1 where a fault may lie, 0 elsewhere.
    """

    height: Field
    colour: Field
    surface: Field


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What the sensor gives for a part.

    Attributes:
        points: float32 (S, S, 3) in metres, (0, 0, 0) for no measurement.
        image: uint8 (S, S, 3) RGB, pixel by pixel beside it.
        true_points: float64 (S, S, 3), where each pixel's ray meets the part, without noise and without holes.
        reflectance: float32 (S, S, 3), its colour there, without light.
    """

    points: NDArray[np.float32]
    image: NDArray[np.uint8]
    true_points: NDArray[np.float64]
    reflectance: Floats


def make_camera(size_px: int) -> DivisionCamera:
    """The camera of the sample, for square images of this side."""
    pixel_m = _FOCUS_M * WIDTH_M / _TABLE_M / size_px
    return DivisionCamera(
        focus_m=_FOCUS_M,
        kappa_per_m2=_KAPPA_PER_M2,
        pixel_width_m=pixel_m,
        pixel_height_m=pixel_m * 1.0002,
        centre_column_px=0.51 * size_px,
        centre_row_px=0.485 * size_px,
        width_px=size_px,
        height_px=size_px,
    )


def depth_below(part: Part, points: Floats) -> Floats:
    """How far points lie below the surface of a part or of the table, along z in metres; negative above it."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.asarray(z - (_TABLE_M + _TILT_X * x + _TILT_Y * y) + part.height(x, y))


def meet(part: Part, rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where rays first meet a part or the table.

    Args:
        part: the part.
        rays: float64 (…, 3), with z = 1.

    Returns:
        float64 (…, 3), exact to a tenth of a micrometre where the part has no wall.
    """
    x, y, _ = np.moveaxis(rays, -1, 0)
    slope = 1.0 - _TILT_X * x - _TILT_Y * y
    far, near = _TABLE_M / slope, (_TABLE_M - HIGHEST_M) / slope
    step = (far - near) / _STEPS
    # The last place above the surface before the first one below it.
    above, has_met = near.copy(), np.zeros(x.shape, bool)
    for number in range(1, _STEPS + 1):
        here = near + number * step
        has_met |= depth_below(part, rays * here[..., None]) >= 0.0
        above = np.where(has_met, above, here)
    below = np.minimum(above + step, far)
    for _ in range(_HALVINGS):
        middle = (above + below) / 2.0
        is_below = depth_below(part, rays * middle[..., None]) >= 0.0
        above, below = np.where(is_below, above, middle), np.where(is_below, middle, below)
    return np.asarray(rays * ((above + below) / 2.0)[..., None])


def normals(part: Part, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normals of the surface at points on it, towards the camera: float64 (…, 3)."""
    x, y, _ = np.moveaxis(points, -1, 0)
    width = 20 * _STEP_M
    slope_x = _TILT_X - (part.height(x + width, y) - part.height(x - width, y)) / (2 * width)
    slope_y = _TILT_Y - (part.height(x, y + width) - part.height(x, y - width)) / (2 * width)
    vectors = np.stack([slope_x, slope_y, -np.ones_like(x)], axis=-1)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def is_shadowed(part: Part, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points the projector's pattern does not reach, because the part stands between: bool (…)."""
    towards = _PROJECTOR - points
    # Above the highest part nothing stands in the way.
    longest = 1.5 * HIGHEST_M / np.abs(towards[..., 2:])
    shadowed = np.zeros(points.shape[:-1], bool)
    for number in range(1, _SHADOW_STEPS + 1):
        shadowed |= depth_below(part, points + towards * longest * (number / _SHADOW_STEPS) ** 2) > _SKIN_M
    return shadowed


def scan(part: Part, camera: DivisionCamera, rng: np.random.Generator) -> Scan:
    """See a part.

    Args:
        part: the part.
        camera: a camera of square images.
        rng: draws light and noise; an equal generator gives equal light and noise.
    """
    rays = camera.rays()
    true_points = meet(part, rays)
    facing = normals(part, true_points)
    reflectance = np.asarray(part.colour(true_points[..., 0], true_points[..., 1]), np.float32)
    light = 0.42 + 0.62 * np.clip(facing @ _TO_LIGHT, 0.0, 1.0)
    image = photograph(np.asarray(reflectance * light[..., None], np.float32), rng)
    size = camera.size
    noise = rng.standard_normal(size) + 0.7 * soft_noise(rng, size, (size[0] // 8, size[1] // 8))
    is_lost = (rng.random(size) < 0.002) | (soft_noise(rng, size, (size[0] // 6, size[1] // 6)) > 2.9)
    is_lost |= is_shadowed(part, true_points) | (-np.sum(facing * rays, axis=-1) < _STEEPEST)
    depth = true_points[..., 2] + _NOISE_M * noise
    points = np.where(is_lost[..., None], 0.0, rays * depth[..., None]).astype(np.float32)
    return Scan(points=points, image=image, true_points=true_points, reflectance=reflectance)
