"""Tiles in the graph: frames are cut before a detector, what it says of the tiles is joined behind it; all linear."""

import numpy as np
import torch
from torch import Tensor, nn

from ...core.size import Size
from ...core.spec import Preprocessing
from ...core.tiles import TileAxis, Tiles


def _axes(spec: Preprocessing) -> tuple[TileAxis, TileAxis]:
    tiles: Tiles | None = spec.tiles
    if tiles is None:
        raise TypeError("The specification has no tiles.")
    return tiles.axes(spec.frame_shape[:2])


class CutTiles(nn.Module):
    """Frames to tiles, by copying; see ``core.tiles`` for where they lie.

    Args:
        spec: specification with tiles.
    """

    def __init__(self, spec: Preprocessing) -> None:
        super().__init__()
        self.axes = _axes(spec)

    def forward(self, frames: Tensor) -> Tensor:
        """float32 (N, H, W, C) → float32 (N · T, h, w, C), the tiles of a frame row by row."""
        rows, columns = self.axes
        strips = torch.stack([frames[:, start : start + rows.tile_px] for start in rows.starts_px], 1)
        ends = ((start, start + columns.tile_px) for start in columns.starts_px)
        tiles = torch.stack([strips[:, :, :, start:end] for start, end in ends], 2)
        return tiles.flatten(0, 2)


class StitchTiles(nn.Module):
    """Scores and maps of tiles to those of frames: the largest score, and the maps blended as ``core.tiles`` says.

    Args:
        spec: specification with tiles.
        tile_map: height and width of a tile's map; None where it is that of what the detector takes.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, spec: Preprocessing, *, tile_map: Size | None = None) -> None:
        super().__init__()
        axes = _axes(spec)
        self.grid = tuple(axis.num for axis in axes)
        tile_map = tile_map or (spec.crop_height_px, spec.crop_width_px)
        frame_map = (axis.map_px(num_tile) for axis, num_tile in zip(axes, tile_map, strict=True))
        rows, columns = map(TileAxis.stitching, axes, tile_map, frame_map)
        self.register_buffer("rows", torch.from_numpy(rows.astype(np.float32)))
        self.register_buffer("columns", torch.from_numpy(np.ascontiguousarray(columns.T, np.float32)))

    def forward(self, score: Tensor, anomaly_map: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N · T,), float32 (N · T, h, w) → float32 (N,), float32 (N, h', w')."""
        num_rows, num_columns = self.grid
        height, width = anomaly_map.shape[1:]
        tiles = anomaly_map.reshape(-1, num_rows, num_columns, height, width).transpose(2, 3)
        joined = tiles.reshape(-1, num_rows * height, num_columns * width)
        return score.reshape(-1, num_rows * num_columns).amax(1), self.rows @ joined @ self.columns
