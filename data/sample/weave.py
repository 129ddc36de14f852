"""The texture of the built-in sample: linen in plain weave, warp and weft of slightly different shades."""

import numpy as np

from .canvas import Floats, Scene, grid, look_up, rotated, soft_noise

_PERIOD = 11.5
_HALF_WIDTH = 0.46  # of a thread, in periods
_LIFT = 0.42  # how far a thread swings up and down, in periods
_SWAY = 1.2
_WARP = np.array((0.86, 0.82, 0.73), dtype=np.float32)
_WEFT = np.array((0.73, 0.71, 0.66), dtype=np.float32)
_GAP = np.array((0.13, 0.12, 0.10), dtype=np.float32)


def render(rng: np.random.Generator, size_px: int, *, missing: float | None = None) -> Scene:
    """Draw one piece of cloth in a place and turn of its own.

    Args:
        rng: draws the pose and the threads; an equal generator gives the same cloth.
        size_px: side of the image in pixels.
        missing: where a weft thread is broken out over part of the width, 0 (high up) to 1 (far down); None if all
            are there.

    Returns:
        The scene; a defect may lie anywhere on it.
    """
    x, y = grid(size_px)
    period = np.float32(_PERIOD * rng.uniform(0.95, 1.06))
    u, v = rotated(x, y, np.deg2rad(rng.uniform(-5, 5)))
    shift = rng.uniform(0, 2, size=2)
    u = (u + _SWAY * soft_noise(rng, x.shape, (6, 6))) / period + np.float32(shift[0])
    v = (v + _SWAY * soft_noise(rng, x.shape, (6, 6))) / period + np.float32(shift[1])
    warp_height, warp_light = _threads(rng, u, v, lift=_LIFT)
    weft_height, weft_light = _threads(rng, v, u, lift=-_LIFT)
    if missing is not None:
        weft_height = np.where(_broken_out(u, v, missing), -np.inf, weft_height)
    colour = np.where(
        (warp_height > weft_height)[:, :, None], _WARP * warp_light[:, :, None], _WEFT * weft_light[:, :, None]
    )
    hole = np.maximum(warp_height, weft_height) == -np.inf
    colour[hole] = _GAP
    return Scene(colour=colour.astype(np.float32), surface=np.ones_like(x), relief=1.0)


def _threads(rng: np.random.Generator, side: Floats, length: Floats, *, lift: float) -> tuple[Floats, Floats]:
    """Height (minus infinity between threads) and brightness of threads side by side along ``side``, in periods."""
    number = np.floor(side)
    across = (side - number - np.float32(0.5)) / np.float32(_HALF_WIDTH)
    phase = np.pi * (length - np.float32(0.5) + number)
    swing = lift * np.cos(phase)
    round_off = np.sqrt(np.maximum(1 - across * across, 0))
    height = np.where(np.abs(across) < 1, swing + _HALF_WIDTH * round_off, -np.inf)
    own = 0.04 * rng.standard_normal(64).astype(np.float32)[number.astype(np.int64) % 64]
    slub = 0.035 * look_up(soft_noise(rng, (64, 64), (64, 16)), number, length)
    fibres = 0.05 * look_up(soft_noise(rng, (256, 64), (256, 40)), (side + 64) * 16, (length + 64) * 2)
    twist = 0.07 * np.sin(2 * np.pi * (length * 2.0 + across * 0.45))
    # Light falls from the upper left: on the crown of a thread, and where it climbs towards the light.
    climb = lift * np.sin(phase) * 0.22
    body = 0.30 + 0.52 * round_off + 0.42 * swing - 0.10 * across - climb
    return height.astype(np.float32), (np.maximum(body, 0.16) * (1 + own + slub + fibres + twist)).astype(np.float32)


def _broken_out(u: Floats, v: Floats, missing: float) -> Floats:
    """True where one weft thread is gone over a few warp threads."""
    size = u.shape[0]
    row, column = int(size * (0.15 + 0.7 * missing)), int(size * (0.25 + 0.5 * ((missing * 37) % 1)))
    return np.asarray((np.floor(v) == np.floor(v[row, column])) & (np.abs(u - u[row, column]) < 2.6))
