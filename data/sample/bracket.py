"""The rigid part of the 3D sample: a painted bracket with a bored boss, a rib, a pocket and two holes, always alike."""

from typing import Any

import numpy as np

from .canvas import Floats, box_distance, look_up, mix, rise, rotated
from .relief import Part

_PLATE_MM, _BOSS_MM, _RIB_MM, _POCKET_MM, _BORE_MM = 6.0, 15.0, 11.0, 3.0, 2.0
_BOSS_AT, _HOLES_AT = (-15.0, 0.0), ((24.0, -14.0), (24.0, 14.0))
_EDGE_MM = 0.45


def make(rng: np.random.Generator) -> Part:
    """One bracket, laid down almost in the same place.

    Args:
        rng: draws the pose, the paint and its texture; an equal generator gives the same bracket.
    """
    (shift_x, shift_y), angle_rad = rng.uniform(-0.35, 0.35, 2), np.deg2rad(rng.uniform(-1.2, 1.2))
    paint = np.array((0.30, 0.42, 0.55)) * rng.uniform(0.95, 1.05) * rng.normal(1.0, 0.015, 3)
    grain = rng.standard_normal((128, 128)).astype(np.float32)

    def place(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return rotated(1e3 * x - shift_x, 1e3 * y - shift_y, float(angle_rad))

    def height(x: Floats, y: Floats) -> Floats:
        return np.asarray(1e-3 * _height_mm(*place(x, y)), np.float64)

    def colour(x: Floats, y: Floats) -> Floats:
        u, v = place(x, y)
        texture = 1 + 0.035 * look_up(grain, 1.3 * v + 500, 1.3 * u + 500)
        return _colour(u, v, paint, texture)

    def surface(x: Floats, y: Floats) -> Floats:
        u, v = place(x, y)
        is_clear = (_plate(u, v) < -4) & (np.abs(_from(u, v, _BOSS_AT) - 8.0) > 7.0) & (np.abs(v) > 5.5)
        for hole in _HOLES_AT:
            is_clear &= _from(u, v, hole) > 7.0
        return np.asarray(is_clear, np.float32)

    return Part(height=height, colour=colour, surface=surface)


def _from(u: Floats, v: Floats, at: tuple[float, float]) -> Floats:
    return np.hypot(u - at[0], v - at[1])


def _plate(u: Floats, v: Floats) -> Floats:
    """Signed distance to the plate, in millimetres: longer than wide."""
    return box_distance(u, v * (35.0 / 25.0), 35.0, 6.0)


def _within(distance: Floats) -> Floats:
    """1 inside, 0 outside, steep between."""
    return 1 - rise(distance, -_EDGE_MM, _EDGE_MM)


def _height_mm(u: Floats, v: Floats) -> Floats:
    height = _PLATE_MM * _within(_plate(u, v))
    rib = _RIB_MM - (_RIB_MM - _PLATE_MM) * rise(u, -8.0, 24.0)
    is_rib = _within(np.abs(v) - 2.4) * (1 - rise(u, 23.5, 24.5)) * rise(u, -16.0, -15.0)
    height = np.maximum(height, rib * is_rib)
    boss = _from(u, v, _BOSS_AT)
    height = np.maximum(height, _BOSS_MM * _within(boss - 11.0))
    height = np.minimum(height, _BOSS_MM - (_BOSS_MM - _BORE_MM) * _within(boss - 5.0))
    pocket = np.maximum(np.abs(u - 8.0) - 6.0, np.abs(np.abs(v) - 14.0) - 4.0)
    height = np.minimum(height, _BOSS_MM - (_BOSS_MM - _POCKET_MM) * _within(pocket))
    for hole in _HOLES_AT:
        height = height * (1 - _within(_from(u, v, hole) - 3.2))
    return np.asarray(height)


def _colour(u: Floats, v: Floats, paint: Any, texture: Floats) -> Floats:
    table = np.broadcast_to(np.array((0.24, 0.24, 0.25), np.float32), (*u.shape, 3)) * texture[..., None]
    colour = mix(table, paint * texture[..., None], _within(_plate(u, v)))
    boss = _from(u, v, _BOSS_AT)
    bare = np.array((0.70, 0.70, 0.71)) * (1 + 0.03 * np.sin(boss * 5.0))[..., None]
    colour = mix(colour, bare, _within(boss - 10.6))
    colour = mix(colour, (0.10, 0.10, 0.11), _within(boss - 5.0))
    for hole in _HOLES_AT:
        colour = mix(colour, (0.20, 0.20, 0.21), _within(_from(u, v, hole) - 3.2))
    return colour
