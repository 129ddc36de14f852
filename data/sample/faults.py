"""Faults of the 3D sample: bump, colour, contamination, dent, hole. Each changes a part's height, colour or both."""

from collections.abc import Callable, Mapping

import numpy as np

from .canvas import Floats, mix, rise
from .relief import HIGHEST_M, WIDTH_M, Part

Fault = Callable[[Part, np.random.Generator], Part]

_SPOTS = ((0.55, 0.52, 0.50), (1.45, 1.25, 0.80), (0.75, 1.10, 0.80))
_FOREIGN = ((0.75, 0.12, 0.10), (0.10, 0.45, 0.18), (0.93, 0.93, 0.90))


def bump(part: Part, rng: np.random.Generator) -> Part:
    """A swelling of 1.4 to 3.2 mm; the colour stays."""
    return _raised(
        part, _place(part, rng), height_m=1e-3 * rng.uniform(1.4, 3.2), radius_m=1e-3 * rng.uniform(2.2, 4.0)
    )


def dent(part: Part, rng: np.random.Generator) -> Part:
    """A hollow of 1.2 to 2.8 mm; the colour stays."""
    return _raised(
        part, _place(part, rng), height_m=-1e-3 * rng.uniform(1.2, 2.8), radius_m=1e-3 * rng.uniform(2.2, 4.0)
    )


def hole(part: Part, rng: np.random.Generator) -> Part:
    """A hole of 4 to 8 mm down to the table, dark inside."""
    distance, radius = _round(_place(part, rng), rng), 1e-3 * rng.uniform(2.0, 4.0)

    def within(x: Floats, y: Floats) -> Floats:
        return 1 - rise(distance(x, y), radius - 3e-4, radius + 3e-4)

    def height(x: Floats, y: Floats) -> Floats:
        return np.asarray(part.height(x, y) * (1 - within(x, y)), np.float64)

    def colour(x: Floats, y: Floats) -> Floats:
        return mix(part.colour(x, y), part.colour(x, y) * np.float32(0.35), within(x, y))

    return Part(height=height, colour=colour, surface=part.surface)


def stain(part: Part, rng: np.random.Generator) -> Part:
    """A spot of 6 to 14 mm in another shade; the height stays."""
    distance, radius = _round(_place(part, rng), rng), 1e-3 * rng.uniform(3.0, 7.0)
    tint = np.array(_SPOTS[int(rng.integers(len(_SPOTS)))], np.float32)

    def colour(x: Floats, y: Floats) -> Floats:
        share = 1 - rise(distance(x, y), radius - 1e-3, radius + 5e-4)
        return mix(part.colour(x, y), part.colour(x, y) * tint, share)

    return Part(height=part.height, colour=colour, surface=part.surface)


def contamination(part: Part, rng: np.random.Generator) -> Part:
    """Two to four crumbs of something else, 1 to 2 mm high, in a colour of their own."""
    middle, foreign = _place(part, rng), _FOREIGN[int(rng.integers(len(_FOREIGN)))]
    crumbs = [
        (_round(middle + 1e-3 * rng.normal(0, 2.5, 2), rng), 1e-3 * rng.uniform(1.2, 2.2), 1e-3 * rng.uniform(1.0, 2.0))
        for _ in range(int(rng.integers(2, 5)))
    ]

    def thickness(x: Floats, y: Floats) -> Floats:
        shares = [top * np.sqrt(np.clip(1 - (distance(x, y) / radius) ** 2, 0, 1)) for distance, radius, top in crumbs]
        return np.asarray(np.max(shares, axis=0))

    def height(x: Floats, y: Floats) -> Floats:
        return np.asarray(np.minimum(part.height(x, y) + thickness(x, y), HIGHEST_M))

    def colour(x: Floats, y: Floats) -> Floats:
        return mix(part.colour(x, y), foreign, np.asarray(thickness(x, y) > 0, np.float32))

    return Part(height=height, colour=colour, surface=part.surface)


FAULTS: Mapping[str, Fault] = {
    "bump": bump,
    "colour": stain,
    "contamination": contamination,
    "dent": dent,
    "hole": hole,
}


def _raised(part: Part, at: Floats, *, height_m: float, radius_m: float) -> Part:
    """Add a bell to the height, which stays between the table and the highest that there is."""

    def height(x: Floats, y: Floats) -> Floats:
        bell = height_m * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * radius_m**2))
        # No farther than the bell reaches: below it is nothing to see.
        bell = np.where(np.abs(bell) < 2e-5, 0.0, bell)
        return np.asarray(np.clip(part.height(x, y) + bell, 0.0, HIGHEST_M))

    return Part(height=height, colour=part.colour, surface=part.surface)


def _place(part: Part, rng: np.random.Generator) -> Floats:
    """A place (x, y) in metres where a fault may lie."""
    while True:
        at = rng.uniform(-0.4 * WIDTH_M, 0.4 * WIDTH_M, 2)
        if part.surface(at[:1], at[1:])[0] > 0.5:
            return np.asarray(at)


def _round(at: Floats, rng: np.random.Generator) -> Callable[[Floats, Floats], Floats]:
    """Distance from a place, in metres, on a wavy scale."""
    waves = [(number, 0.10 * rng.normal(), rng.uniform(0, 2 * np.pi)) for number in (2, 3)]

    def distance(x: Floats, y: Floats) -> Floats:
        angle = np.arctan2(y - at[1], x - at[0])
        rim = 1 + sum(size * np.sin(number * angle + phase) for number, size, phase in waves)
        return np.asarray(np.hypot(x - at[0], y - at[1]) / np.maximum(rim, 0.5))

    return distance
