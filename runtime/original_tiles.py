"""Tiles of the original of an imported bundle, cut and joined in NumPy by the formulas of ``bundle/FORMAT.md``.

The graph is made of the matrices of ``core.tiles``. Here every tile is read where it lies, so that the one can be
compared with the other.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.prediction import Prediction
from ..core.size import Size
from ..core.spec import Frames
from ..core.tiles import Tiles

#: Pixels of the frame's map that a tile covers along an axis, its weight there, and the place in the tile's map.
_Covered = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def cut(frames: Frames, tiles: Tiles | None) -> Frames:
    """The images that a model takes of frames.

    Args:
        frames: uint8 (N, H, W, C).
        tiles: how they are cut; None for not at all.

    Returns:
        uint8 (N · T, h, w, C), the tiles of a frame row by row.
    """
    if tiles is None:
        return frames
    (height, width), overlap = tiles.size, tiles.overlap_px
    tops, lefts = (_starts(*sizes, overlap) for sizes in zip(frames.shape[1:3], tiles.size, strict=True))
    return np.stack(
        [frame[top : top + height, left : left + width] for frame, top, left in product(frames, tops, lefts)]
    )


def stitch(seen: Prediction, tiles: Tiles | None, frame: Size) -> Prediction:
    """Score and map of one frame: the largest score of its tiles, and their maps blended in float64.

    Args:
        seen: score float32 (T,) and anomaly_map float32 (T, h, w) of all its tiles.
        tiles: how the frame was cut; None for not at all.
        frame: height and width of the frame.

    Returns:
        Score float32 (1,), anomaly_map float32 (1, h', w').
    """
    if tiles is None:
        return seen
    maps = seen.anomaly_map
    rows, columns = (
        _covered(*sizes, tiles.overlap_px) for sizes in zip(frame, tiles.size, maps.shape[1:], strict=True)
    )
    size = tuple(1 + max(int(places.max()) for places, _, _ in axis) for axis in (rows, columns))
    total, weights = np.zeros(size), np.zeros(size)
    for tile_map, (row, column) in zip(maps, product(rows, columns), strict=True):
        weight, places = np.outer(row[1], column[1]), np.ix_(row[0], column[0])
        along_rows = _between(tile_map.astype(np.float64), row[2])
        total[places] += weight * _between(along_rows.T, column[2]).T
        weights[places] += weight
    return Prediction(seen.score.max(keepdims=True), (total / weights)[None].astype(np.float32))


def _starts(frame_px: int, tile_px: int, overlap_px: int) -> list[int]:
    """First pixel of each tile along an axis; the last one ends at the border."""
    return [*range(0, frame_px - tile_px, tile_px - overlap_px), frame_px - tile_px]


def _covered(frame_px: int, tile_px: int, num_tile: int, overlap_px: int) -> list[_Covered]:
    """What each tile along an axis covers of the frame's map, where a tile's map has ``num_tile`` pixels."""
    num_map = max(1, round(frame_px * num_tile / tile_px))
    at = (np.arange(num_map) + 0.5) * frame_px / num_map
    covered = []
    for start in _starts(frame_px, tile_px, overlap_px):
        end = start + tile_px
        places = np.flatnonzero((start <= at) & (at <= end))
        inside = at[places]
        before = inside - start if start > 0 else math.inf
        behind = end - inside if end < frame_px else math.inf
        nearest = np.broadcast_to(np.minimum(before, behind), inside.shape)
        weight = np.where(np.isinf(nearest), frame_px, np.maximum(nearest - tile_px / (2 * num_tile), 1e-9))
        covered.append((places, weight, (inside - start) * num_tile / tile_px - 0.5))
    return covered


def _between(values: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values along the first axis at places between them; constant beyond the first and the last."""
    low = np.clip(np.floor(at), 0, len(values) - 1).astype(np.int64)
    high = np.clip(np.floor(at) + 1, 0, len(values) - 1).astype(np.int64)
    share = (at - np.floor(at))[:, None]
    return np.asarray(values[low] * (1 - share) + values[high] * share)
