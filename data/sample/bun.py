"""The soft part of the 3D sample: a baked bun with two cuts, each of another height, shape and brown."""

import numpy as np

from .canvas import Floats, look_up, mix, rise, rotated
from .relief import HIGHEST_M, Part

_RADIUS_MM, _HEIGHT_MM, _CUT_MM = 33.0, 22.0, 1.6
_CRUMB = np.array((0.86, 0.74, 0.54))


def make(rng: np.random.Generator) -> Part:
    """One bun.

    Args:
        rng: draws pose, shape, crust and colour; an equal generator gives the same bun.
    """
    (shift_x, shift_y), angle_rad = rng.uniform(-1.5, 1.5, 2), np.deg2rad(rng.uniform(-12, 12))
    radius, top, oval = (
        _RADIUS_MM * rng.uniform(0.96, 1.04),
        _HEIGHT_MM * rng.uniform(0.92, 1.08),
        rng.uniform(0.9, 1.0),
    )
    waves = [(number, 0.012 * rng.normal(), rng.uniform(0, 2 * np.pi)) for number in (2, 3, 5)]
    crust = rng.standard_normal((64, 64)).astype(np.float32)
    brown = np.array((0.60, 0.36, 0.17)) * rng.uniform(0.88, 1.10) * rng.normal(1.0, 0.02, 3)

    def place(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """Place on the bun in millimetres, and share of the way from its middle to its rim."""
        u, v = rotated(1e3 * x - shift_x, 1e3 * y - shift_y, float(angle_rad))
        angle = np.arctan2(v, u)
        rim = radius * (1 + sum(size * np.sin(number * angle + phase) for number, size, phase in waves))
        return u, v, np.asarray(np.hypot(u, v / oval) / rim)

    def height(x: Floats, y: Floats) -> Floats:
        u, v, share = place(x, y)
        # The sides of a bun are steeper than those of an ellipsoid, and do not overhang.
        dome = top * np.clip(1 - share**2.6, 0, 1) ** 0.6
        rough = 0.18 * look_up(crust, 0.45 * v + 200, 0.45 * u + 200)
        rounded = np.where(share < 1, np.maximum(dome + rough * rise(1 - share, 0.0, 0.1) - _cuts_mm(u, v), 0), 0)
        return np.asarray(np.minimum(1e-3 * rounded, HIGHEST_M), np.float64)

    def colour(x: Floats, y: Floats) -> Floats:
        u, v, share = place(x, y)
        texture = 1 + 0.05 * look_up(crust, 0.9 * v + 300, 0.9 * u + 300)
        table = np.broadcast_to(np.array((0.62, 0.63, 0.62), np.float32), (*u.shape, 3))
        baked = brown * (texture * (1.10 - 0.25 * rise(share, 0.0, 0.6) + 0.30 * rise(share, 0.6, 1.0)))[..., None]
        inner = mix(np.asarray(baked, np.float32), _CRUMB, np.clip(_cuts_mm(u, v) / _CUT_MM, 0, 1))
        return mix(table, inner, 1 - rise(share, 0.985, 1.015))

    def surface(x: Floats, y: Floats) -> Floats:
        return np.asarray(place(x, y)[2] < 0.72, np.float32)

    return Part(height=height, colour=colour, surface=surface)


def _cuts_mm(u: Floats, v: Floats) -> Floats:
    """Depth of the two cuts across the top."""
    depth = np.zeros_like(u)
    for side in (-7.0, 7.0):
        depth = np.maximum(depth, _CUT_MM * np.exp(-(((v - side) / 1.5) ** 2)) * (1 - rise(np.abs(u), 14.0, 20.0)))
    return depth
