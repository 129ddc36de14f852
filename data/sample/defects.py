"""Defects that the built-in sample paints on a scene: scratch, spot, crack, contamination, colour_shift."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .canvas import SIDE, Floats, Scene, curve_distance, grid, inside, mix, rise

Painter = Callable[[Scene, np.random.Generator], Floats]


def scratch(scene: Scene, rng: np.random.Generator) -> Floats:
    """A thin line: a bright groove with a dark flank."""
    x, y = grid(scene.colour.shape[0])
    points = _bent_line(rng, _place(scene, rng), length=rng.uniform(34, 70), bend=0.35, num_points=9)
    width = rng.uniform(1.3, 1.9) + 0.8 * scene.relief
    strength = _strength(scene, rng)
    flank = inside(curve_distance(x - 1, y - 1, points) - width / 2) * scene.surface
    groove = inside(curve_distance(x, y, points) - width / 2) * scene.surface
    dark = mix(scene.colour, scene.colour * np.float32(0.5), flank * strength)
    # A groove has lost the surface's pattern.
    bare = 0.55 * np.average(scene.colour, axis=(0, 1)) + 0.55
    return mix(dark, bare, groove * strength)


def crack(scene: Scene, rng: np.random.Generator) -> Floats:
    """A dark jagged line with one branch, thinner towards its ends."""
    x, y = grid(scene.colour.shape[0])
    points = _jagged_line(rng, _place(scene, rng), rng.uniform(0, 2 * np.pi), num_steps=int(rng.integers(8, 13)))
    branch = _jagged_line(rng, points[len(points) // 2], rng.uniform(0, 2 * np.pi), num_steps=4)
    trunk = inside(curve_distance(x, y, points) - rng.uniform(0.6, 1.1))
    twig = inside(curve_distance(x, y, branch) - 0.55)
    share = np.maximum(trunk, twig) * scene.surface
    return mix(scene.colour, scene.colour * np.float32(0.12) + np.float32(0.02), share * _strength(scene, rng))


def spot(scene: Scene, rng: np.random.Generator) -> Floats:
    """A stain of oil or rust with an uneven rim."""
    distance = _blob(scene, rng, radius=rng.uniform(5, 10), unevenness=0.22)
    rust = np.array((0.66, 0.45, 0.30)) if rng.random() < 0.5 else np.array((0.42, 0.41, 0.40))
    share = (1 - rise(distance, -2.5, 1.0)) * scene.surface * _strength(scene, rng)
    return mix(scene.colour, scene.colour * rust.astype(np.float32), share)


def contamination(scene: Scene, rng: np.random.Generator) -> Floats:
    """Something that does not belong there: a curled fibre, or a few chips of swarf."""
    return _fibre(scene, rng) if rng.random() < 0.5 else _chips(scene, rng)


def colour_shift(scene: Scene, rng: np.random.Generator) -> Floats:
    """A patch in another shade, as heat tint on steel or uneven dye on cloth."""
    distance = _blob(scene, rng, radius=rng.uniform(14, 24), unevenness=0.15)
    tints = ((1.08, 0.95, 0.72), (0.82, 0.91, 1.10), (1.07, 0.86, 0.87))
    tint = np.array(tints[int(rng.integers(len(tints)))], dtype=np.float32)
    share = (1 - rise(distance, -6, 2)) * scene.surface * _strength(scene, rng)
    return mix(scene.colour, scene.colour * tint, share)


PAINTERS: Mapping[str, Painter] = {
    "colour_shift": colour_shift,
    "contamination": contamination,
    "crack": crack,
    "scratch": scratch,
    "spot": spot,
}


def _strength(scene: Scene, rng: np.random.Generator) -> np.float32:
    """How far a defect covers what lies below: at times faint on a plain surface, never on a patterned one."""
    return np.float32(rng.uniform(0.4 + 0.45 * scene.relief, 1))


def _place(scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    """A point (x, y) on the surface, not too near to the image's border."""
    size = scene.surface.shape[0]
    margin = size // 8
    inner = scene.surface[margin:-margin, margin:-margin]
    rows, columns = np.nonzero(inner > 0.99)
    chosen = int(rng.integers(len(rows)))
    at = np.array((columns[chosen], rows[chosen]), dtype=np.float64) + margin + 0.5
    return np.asarray((at / size - 0.5) * SIDE)


def _bent_line(
    rng: np.random.Generator, middle: NDArray[np.float64], *, length: float, bend: float, num_points: int
) -> NDArray[np.float64]:
    heading, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-bend, bend)
    headings = heading + np.linspace(-turn, turn, num_points - 1)
    steps = length / (num_points - 1) * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return np.asarray(points - points.mean(axis=0) + middle)


def _jagged_line(
    rng: np.random.Generator, start: NDArray[np.float64], heading_rad: float, *, num_steps: int
) -> NDArray[np.float64]:
    headings = heading_rad + rng.uniform(-0.75, 0.75, size=num_steps)
    lengths = rng.uniform(2.5, 5.5, size=num_steps)
    steps = lengths[:, None] * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return np.asarray(start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)]))


def _blob(scene: Scene, rng: np.random.Generator, *, radius: float, unevenness: float) -> Floats:
    """Distance to a round shape with a wavy rim."""
    x, y = grid(scene.colour.shape[0])
    cx, cy = _place(scene, rng)
    angle = np.arctan2(y - cy, x - cx)
    rim = np.ones_like(angle)
    for waves in (2, 3, 5):
        rim += unevenness / np.sqrt(waves) * rng.normal() * np.sin(waves * angle + rng.uniform(0, 2 * np.pi))
    stretch = rng.uniform(0.75, 1.0)
    return np.asarray(np.hypot(x - cx, (y - cy) / stretch) - radius * np.maximum(rim, 0.4), dtype=np.float32)


def _fibre(scene: Scene, rng: np.random.Generator) -> Floats:
    x, y = grid(scene.colour.shape[0])
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0.12, 0.32, size=22))
    steps = 2.2 * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    points = np.cumsum(steps, axis=0)
    points += _place(scene, rng) - points.mean(axis=0)
    colours = ((0.70, 0.12, 0.12), (0.10, 0.18, 0.45), (0.08, 0.08, 0.08))
    shadow = inside(curve_distance(x - 1.5, y - 1.5, points) - 1.0) * np.float32(0.35)
    dark = mix(scene.colour, scene.colour * np.float32(0.4), shadow * scene.surface)
    share = inside(curve_distance(x, y, points) - 0.8 - 0.4 * scene.relief) * scene.surface
    return mix(dark, colours[int(rng.integers(len(colours)))], share)


def _chips(scene: Scene, rng: np.random.Generator) -> Floats:
    x, y = grid(scene.colour.shape[0])
    middle, colour = _place(scene, rng), scene.colour
    for _ in range(int(rng.integers(4, 8))):
        centre = middle + rng.normal(0, 6.5, size=2)
        points = _bent_line(rng, centre, length=rng.uniform(3, 7), bend=1.2, num_points=5)
        width = rng.uniform(0.9, 1.5) + 0.4 * scene.relief
        shadow = inside(curve_distance(x - 1.2, y - 1.2, points) - width) * scene.surface
        colour = mix(colour, colour * np.float32(0.35), shadow * np.float32(0.8))
        glint = np.float32(rng.uniform(0.75, 0.98))
        chip: Any = (glint, glint * np.float32(0.93), glint * np.float32(0.74))
        colour = mix(colour, chip, inside(curve_distance(x, y, points) - width) * scene.surface)
    return colour
