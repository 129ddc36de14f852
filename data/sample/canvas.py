"""Drawing tools of the built-in sample: coordinates, noise, soft edges, curves, light and camera.

Lengths are in units of 1/256 of the image's side, so that an image of another size shows the same part.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[Any]

#: Length of an image's side in drawing units.
SIDE = 256.0


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn part before light and camera.

    Attributes:
        colour: float32 (S, S, 3) RGB reflectance, about 0 to 1.
        surface: float32 (S, S), 1 where a defect may lie, 0 elsewhere.
        relief: 0 to 1, how much the surface's own pattern hides what lies on it; faint defects would drown in it.
    """

    colour: Floats
    surface: Floats
    relief: float


def grid(size_px: int) -> tuple[Floats, Floats]:
    """X and y of the pixel centres, float32 (S, S), 0 in the middle of the image, y downwards."""
    line = ((np.arange(size_px, dtype=np.float32) + 0.5) / size_px - 0.5) * np.float32(SIDE)
    x, y = np.meshgrid(line, line)
    return x, y


def rotated(x: Floats, y: Floats, angle_rad: float) -> tuple[Floats, Floats]:
    """Coordinates along axes turned by ``angle_rad``."""
    c, s = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
    return c * x + s * y, c * y - s * x


def inside(distance: Floats, *, size_px: int | None = None) -> Floats:
    """Soft share of each pixel that lies inside (negative distance), one pixel wide at the edge.

    ``size_px`` is the image's side, needed where ``distance`` covers a part of the image only.
    """
    pixel = np.float32(SIDE / (size_px or distance.shape[0]))
    return np.clip(0.5 - distance / pixel, 0, 1)


def rise(values: Floats, start: float, end: float) -> Floats:
    """0 before ``start``, 1 after ``end``, smooth between."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def mix(below: Floats, above: Any, share: Floats) -> Floats:
    """Cover ``below`` (…, 3) by ``above`` (a colour or (…, 3)) as far as ``share`` (…) says."""
    weight = share[..., None]
    return np.asarray(below * (1 - weight) + np.asarray(above, dtype=np.float32) * weight, dtype=np.float32)


def box_distance(x: Floats, y: Floats, half_side: float, corner: float) -> Floats:
    """Signed distance to a square with round corners."""
    dx, dy = np.abs(x) - (half_side - corner), np.abs(y) - (half_side - corner)
    outer = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(outer + np.minimum(np.maximum(dx, dy), 0) - corner, dtype=np.float32)


def hexagon_distance(x: Floats, y: Floats, apothem: float) -> Floats:
    """Signed distance (exact at the sides) to a hexagon."""
    c, s = np.float32(0.5), np.float32(np.sqrt(0.75))
    across = np.maximum(np.abs(y), np.maximum(np.abs(s * x + c * y), np.abs(s * x - c * y)))
    return np.asarray(across - apothem, dtype=np.float32)


def curve_distance(x: Floats, y: Floats, points: NDArray[np.floating[Any]]) -> Floats:
    """Distance to a polyline through ``points`` (K, 2)."""
    nearest = np.full_like(x, np.inf)
    for (ax, ay), (bx, by) in zip(points[:-1].astype(np.float32), points[1:].astype(np.float32), strict=True):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, np.float32(1e-9)), 0, 1)
        np.minimum(nearest, (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2, out=nearest)
    return np.sqrt(nearest)


def soft_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Smooth noise of about unit variance with ``cells`` (rows, columns) bumps over ``shape``."""
    coarse = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def look_up(table: Floats, rows: Floats, columns: Floats) -> Floats:
    """Bilinear values of ``table`` at fractional ``rows`` and ``columns``, which wrap around."""
    r0, c0 = np.floor(rows).astype(np.int32), np.floor(columns).astype(np.int32)
    fr, fc = (rows - r0).astype(np.float32), (columns - c0).astype(np.float32)
    wrapped = np.pad(table, ((0, 1), (0, 1)), mode="wrap")
    num_rows, num_columns = table.shape
    first = (r0 % num_rows) * (num_columns + 1) + c0 % num_columns
    flat = wrapped.ravel()
    top = flat[first] * (1 - fc) + flat[first + 1] * fc
    below = first + num_columns + 1
    bottom = flat[below] * (1 - fc) + flat[below + 1] * fc
    return np.asarray(top * (1 - fr) + bottom * fr, dtype=np.float32)


def photograph(colour: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light the scene, blur it a little as a lens does, add the sensor's noise.

    Args:
        colour: float32 (S, S, 3) reflectance.
        rng: draws the light and the noise; an equal generator gives equal light and noise.

    Returns:
        uint8 (S, S, 3) RGB.
    """
    x, y = grid(colour.shape[0])
    gain, slope = np.float32(rng.uniform(0.8, 1.15)), np.float32(rng.uniform(0.0, 0.22))
    along, _ = rotated(x, y, rng.uniform(0, 2 * np.pi))
    tint = rng.normal(1, 0.008, size=3).astype(np.float32)
    light = gain * (1 + slope * along / SIDE) * (1.02 - 0.1 * (x * x + y * y) / (SIDE * SIDE))
    seen = _blurred(colour) * light[:, :, None] * tint
    grain = rng.standard_normal(colour.shape, dtype=np.float32) * (0.006 + 0.008 * np.sqrt(np.maximum(seen, 0)))
    return np.asarray(np.clip(np.rint((seen + grain) * 255), 0, 255), dtype=np.uint8)


def _blurred(colour: Floats) -> Floats:
    tall = np.pad(colour, ((1, 1), (0, 0), (0, 0)), mode="edge")
    colour = np.float32(0.2) * (tall[:-2] + tall[2:]) + np.float32(0.6) * colour
    wide = np.pad(colour, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return np.asarray(np.float32(0.2) * (wide[:, :-2] + wide[:, 2:]) + np.float32(0.6) * colour, dtype=np.float32)
