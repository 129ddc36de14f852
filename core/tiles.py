"""Tiles of large frames: where they lie, and how their maps become one map of the frame; written once.

Tiles stand in rows and columns, ``tile − overlap`` apart. The last row and the last column are moved back so that they
end at the frame's border: no pixel is left out, none is invented, and the overlap there is larger. All positions are
in pixels of the frame, continuous, from the first pixel's outer edge, as in ``core.geometry``.

The map of the frame is a weighted mean of the tiles' maps, read at the centre of each of its pixels. A tile's weight
along an axis is the distance from there to the tile's nearer end, measured to the centre of its outermost map pixel;
an end at the frame's border does not count. Weights are divided by their sum: alone a tile has the weight 1, and two
tiles that overlap by at most half of their side are cross-faded linearly. A map that is constant, or a ramp, over the
whole frame comes out as it was. Both axes are independent, so that all of it is two constant matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from .errors import UsageError
from .linear import Matrix
from .size import Size, size_text

#: Most tiles that a graph computes at once: those of a frame, times the frames of a batch.
MAX_TILES = 256
#: Weight of a tile where no tile has one by its distance: at a seam without an overlap.
_LEAST_WEIGHT = 1e-9


@final
@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How frames are cut into tiles.

    Attributes:
        height_px: height of a tile in pixels of the frame.
        width_px: width of a tile in pixels of the frame.
        overlap_px: pixels that neighbouring tiles share along either axis, at least; below both sides.
    """

    height_px: int
    width_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise UsageError(f"tiles (--tiles) are {self._words}; expected 1 pixel or more on each side.")
        if not 0 <= self.overlap_px < min(self.size):
            raise UsageError(
                f"overlap (--overlap) is {self.overlap_px} px for tiles of {self._words}; expected 0 or more, "
                "and less than either side."
            )

    @property
    def size(self) -> Size:
        """Height and width of a tile in pixels."""
        return self.height_px, self.width_px

    def axes(self, frame: Size) -> tuple[TileAxis, TileAxis]:
        """Rows and columns of tiles of a frame of this height and width.

        Raises:
            UsageError: the frame is smaller than a tile, or has more than ``MAX_TILES``.
        """
        if any(frame_px < tile_px for frame_px, tile_px in zip(frame, self.size, strict=True)):
            raise UsageError(
                f"tiles (--tiles) are {size_text(self.size)}, frames {size_text(frame)} (height x width): a tile must "
                "not be larger than the frame. Give smaller tiles, or none."
            )
        rows, columns = (TileAxis(*sizes, self.overlap_px) for sizes in zip(frame, self.size, strict=True))
        num = rows.num * columns.num
        if num > MAX_TILES:
            raise UsageError(
                f"tiles (--tiles) of {size_text(self.size)} with overlap (--overlap) {self.overlap_px} are {num} in "
                f"a frame of {size_text(frame)}; expected at most {MAX_TILES}, since a graph computes all of them at "
                "once. Give larger tiles or a smaller overlap: each is resized to what the detector takes."
            )
        return rows, columns

    def num(self, frame: Size) -> int:
        """Number of tiles in a frame of this height and width; raises as ``axes`` does."""
        rows, columns = self.axes(frame)
        return rows.num * columns.num

    def map_size(self, frame: Size, tile_map: Size) -> Size:
        """Height and width of the frame's map, where each tile's has ``tile_map``: at the tiles' scale, rounded."""
        rows, columns = self.axes(frame)
        return rows.map_px(tile_map[0]), columns.map_px(tile_map[1])

    def words(self) -> str:
        """``512x512 px with 64 px of overlap``."""
        return f"{self._words} px with {self.overlap_px} px of overlap"

    @property
    def _words(self) -> str:
        """The size, also where it is none."""
        return f"{self.height_px}x{self.width_px}"


@final
@dataclass(frozen=True)
class TileAxis:
    """The tiles along one axis of a frame.

    Attributes:
        frame_px: size of the frame.
        tile_px: size of a tile, at most the frame's.
        overlap_px: what neighbours share at least, below ``tile_px``.
    """

    frame_px: int
    tile_px: int
    overlap_px: int

    @property
    def num(self) -> int:
        """Number of tiles."""
        return math.ceil((self.frame_px - self.tile_px) / (self.tile_px - self.overlap_px)) + 1

    @property
    def starts_px(self) -> tuple[int, ...]:
        """First pixel of each tile; the last tile ends at the border."""
        stride = self.tile_px - self.overlap_px
        return tuple(min(index * stride, self.frame_px - self.tile_px) for index in range(self.num))

    def map_px(self, num_tile: int) -> int:
        """Pixels of the frame's map, where a tile's has ``num_tile``: at the tiles' scale, rounded half to even."""
        return max(1, round(self.frame_px * num_tile / self.tile_px))

    def stitching(self, num_tile: int, num_map: int) -> Matrix:
        """Weights that make the frame's map of the tiles' maps, one after the other.

        Args:
            num_tile: pixels of a tile's map along this axis.
            num_map: pixels of the frame's map.

        Returns:
            float64 (num_map, num · num_tile), rows sum to 1.
        """
        centres = (np.arange(num_map) + 0.5) * self.frame_px / num_map
        starts = np.asarray(self.starts_px, np.float64)[:, None]
        weights = self._weights(centres, starts, half_px=0.5 * self.tile_px / num_tile)
        # Beyond the outermost centres a tile's map is held constant, as ``geometry.enlarge_map`` holds it.
        at = np.clip((centres - starts) * num_tile / self.tile_px - 0.5, 0.0, num_tile - 1.0)
        low = np.floor(at).astype(np.int64)
        matrix = np.zeros((num_map, self.num, num_tile))
        rows, tiles = np.arange(num_map)[None, :], np.arange(self.num)[:, None]
        np.add.at(matrix, (rows, tiles, low), weights * (1.0 - (at - low)))
        np.add.at(matrix, (rows, tiles, np.minimum(low + 1, num_tile - 1)), weights * (at - low))
        return matrix.reshape(num_map, self.num * num_tile)

    def _weights(self, centres: Matrix, starts: Matrix, *, half_px: float) -> Matrix:
        """Weight of each tile at each centre: float64 (num, len(centres)), columns sum to 1."""
        ends = starts + self.tile_px
        before = np.where(starts == 0.0, np.inf, centres - starts - half_px)
        behind = np.where(ends == self.frame_px, np.inf, ends - centres - half_px)
        distance = np.minimum(np.minimum(before, behind), self.frame_px)
        is_inside = (starts <= centres) & (centres <= ends)
        weights = np.where(is_inside, np.maximum(distance, _LEAST_WEIGHT), 0.0)
        return np.asarray(weights / weights.sum(axis=0))
