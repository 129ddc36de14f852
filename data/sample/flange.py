"""The object of the built-in sample: a brushed steel flange with a turned hub, a bore and four socket screws."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import (
    SIDE,
    Floats,
    Scene,
    box_distance,
    grid,
    hexagon_distance,
    inside,
    look_up,
    mix,
    rise,
    rotated,
    soft_noise,
)

_HALF_SIDE, _CORNER, _HUB, _BORE = 86.0, 24.0, 54.0, 25.0
_SCREW_AT, _SCREW, _COUNTERBORE, _SOCKET = 61.0, 10.5, 13.0, 5.6
_BENCH = (0.60, 0.61, 0.60)
_STEEL = np.array((0.64, 0.65, 0.67), dtype=np.float32)
_LIGHT_RAD = -2.2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pose:
    x: Floats
    y: Floats
    u: Floats
    v: Floats
    angle_rad: float


def render(rng: np.random.Generator, size_px: int, *, missing: float | None = None) -> Scene:
    """Draw one flange in a pose of its own.

    Args:
        rng: draws the pose and the textures; an equal generator gives the same flange.
        size_px: side of the image in pixels.
        missing: which screw has been forgotten, the first (0 to 0.25) to the fourth (0.75 to 1); None if none.

    Returns:
        The scene; its surface is the steel without bore and screws.
    """
    pose = _pose(rng, size_px)
    plate = box_distance(pose.u, pose.v, _HALF_SIDE, _CORNER)
    radius = np.hypot(pose.u, pose.v)
    colour = _bench(rng, pose)
    colour = mix(colour, _plate(rng, pose, plate), inside(plate))
    colour = _hub(rng, pose, radius, colour)
    colour = _bore(pose, radius, colour)
    surface = inside(plate + 3) * (1 - inside(radius - _BORE - 3))
    for number, (su, sv) in enumerate(_screw_places()):
        turn = rng.uniform(0, np.pi / 3)
        du, dv = pose.u - np.float32(su), pose.v - np.float32(sv)
        near = _window(np.hypot(du, dv) < _COUNTERBORE + 4)
        du, dv = du[near], dv[near]
        at = np.hypot(du, dv)
        colour[near] = _screw_hole(at, colour[near], size_px)
        if missing is None or number != int(missing * 4):
            colour[near] = _screw(du, dv, turn, colour[near], size_px)
        surface[near] *= 1 - inside(at - _COUNTERBORE - 1, size_px=size_px)
    return Scene(colour=colour, surface=surface, relief=0.0)


def _screw_places() -> list[tuple[float, float]]:
    return [(a * _SCREW_AT, b * _SCREW_AT) for a in (-1, 1) for b in (-1, 1)]


def _window(where: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rectangle around the true pixels; drawing there alone saves most of the time."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _pose(rng: np.random.Generator, size_px: int) -> _Pose:
    x, y = grid(size_px)
    shift_x, shift_y = rng.uniform(-7, 7, size=2)
    angle_rad, scale = np.deg2rad(rng.uniform(-9, 9)), rng.uniform(0.96, 1.05)
    u, v = rotated(
        (x - np.float32(shift_x)) / np.float32(scale), (y - np.float32(shift_y)) / np.float32(scale), angle_rad
    )
    return _Pose(x=x, y=y, u=u, v=v, angle_rad=float(angle_rad))


def _bench(rng: np.random.Generator, pose: _Pose) -> Floats:
    shape = pose.x.shape
    mottle = 0.012 * soft_noise(rng, shape, (9, 9)) + 0.010 * soft_noise(rng, shape, (90, 90))
    # The shadow falls away from the light, on the bench, whatever way the part is turned.
    away = np.asarray(7 * np.cos(_LIGHT_RAD), np.float32), np.asarray(7 * np.sin(_LIGHT_RAD), np.float32)
    dx, dy = rotated(*away, pose.angle_rad)
    shadow = 1 - 0.42 * (1 - rise(box_distance(pose.u + dx, pose.v + dy, _HALF_SIDE, _CORNER), -6, 11))
    return np.asarray((np.asarray(_BENCH) + mottle[:, :, None]) * shadow[:, :, None], dtype=np.float32)


def _slope_light(distance: Floats, width: float, depth: float, *, size_px: int | None = None) -> Floats:
    """Brightness of a bevel of ``width`` just inside a shape: bright towards the light, dark away from it."""
    gy, gx = np.gradient(distance)
    length = np.maximum(np.hypot(gx, gy), 1e-6)
    facing = (gx * np.cos(_LIGHT_RAD) + gy * np.sin(_LIGHT_RAD)) / length
    band = inside(distance, size_px=size_px) * (1 - inside(distance + width, size_px=size_px))
    return np.asarray(1 + depth * facing * band, dtype=np.float32)


def _plate(rng: np.random.Generator, pose: _Pose, plate: Floats) -> Floats:
    fine, coarse = soft_noise(rng, (512, 64), (512, 7)), soft_noise(rng, (512, 64), (90, 4))
    rows, columns = (pose.v + SIDE) * np.float32(1.0), (pose.u + SIDE) / np.float32(8)
    brushed = 0.030 * look_up(fine, rows, columns) + 0.018 * look_up(coarse, rows, columns)
    sheen = 0.05 * rng.uniform(0.5, 1.0) * np.sin(pose.u / 60 + rng.uniform(0, 6))
    shade = (1 + brushed + sheen) * _slope_light(plate, 3.0, 0.30)
    return np.asarray(_STEEL * shade[:, :, None], dtype=np.float32)


def _hub(rng: np.random.Generator, pose: _Pose, radius: Floats, colour: Floats) -> Floats:
    angle = np.arctan2(pose.y, pose.x)
    grooves = soft_noise(rng, (256, 96), (256, 5))
    turned = 0.045 * look_up(grooves, radius * 3, (np.arctan2(pose.v, pose.u) / (2 * np.pi) + 0.5) * 96)
    # Turned steel shines along two opposite sectors that stay with the light, not with the part.
    highlight = 0.20 * np.abs(np.cos(angle - _LIGHT_RAD)) ** 6 - 0.07
    step = 1 - 0.30 * np.exp(-(((radius - _HUB - 1.5) / 1.8) ** 2))
    shade = (1.03 + turned + highlight) * _slope_light(radius - _HUB, 2.5, 0.22)
    colour = np.asarray(colour * step[:, :, None], dtype=np.float32)
    return mix(colour, _STEEL * shade[:, :, None], inside(radius - _HUB))


def _bore(pose: _Pose, radius: Floats, colour: Floats) -> Floats:
    # The slope of a hole faces the other way than that of a boss.
    chamfer = 0.74 * _slope_light(radius - _BORE - 3.5, 3.5, -0.38)
    colour = mix(colour, _STEEL * chamfer[:, :, None], inside(radius - _BORE - 3.5))
    wall = 0.17 - 0.10 * (np.cos(_LIGHT_RAD) * pose.x + np.sin(_LIGHT_RAD) * pose.y) / _BORE
    depth = wall * (0.55 + 0.45 * rise(radius, 8, _BORE))
    return mix(colour, np.stack([depth, depth, depth * 1.05], axis=2), inside(radius - _BORE))


def _screw_hole(at: Floats, colour: Floats, size_px: int) -> Floats:
    rim = 0.55 * _slope_light(at - _COUNTERBORE, 2.0, -0.35, size_px=size_px)
    colour = mix(colour, _STEEL * rim[:, :, None], inside(at - _COUNTERBORE, size_px=size_px))
    thread = 0.20 + 0.05 * np.sin(at * 2.4)
    thread = np.where(at < 5.5, 0.07, thread).astype(np.float32)
    return mix(colour, np.stack([thread, thread, thread], axis=2), inside(at - _COUNTERBORE + 2.5, size_px=size_px))


def _screw(du: Floats, dv: Floats, turn_rad: float, colour: Floats, size_px: int) -> Floats:
    at = np.hypot(du, dv)
    shade = (0.80 + 0.05 * np.sin(at * 3.1)) * _slope_light(at - _SCREW, 2.2, 0.40, size_px=size_px)
    colour = mix(colour, _STEEL * np.float32(0.86) * shade[:, :, None], inside(at - _SCREW, size_px=size_px))
    hexagon = hexagon_distance(*rotated(du, dv, turn_rad), _SOCKET)
    colour = mix(colour, (0.42, 0.42, 0.44), inside(hexagon, size_px=size_px))
    return mix(colour, (0.12, 0.12, 0.13), inside(hexagon + 0.9, size_px=size_px))
