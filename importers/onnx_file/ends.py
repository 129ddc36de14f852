"""Both ends of an imported graph as modules: what comes before the model's own nodes, and what after them."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ...core.imported_model import ImportedModel
from ...core.linear import bilinear_matrix
from ...core.size import Size
from ...detectors.nn.graph import Preprocess
from ...detectors.nn.tiles import StitchTiles


@final
class Front(nn.Module):
    """Camera frames to what the model takes.

    Args:
        model: what it takes.
        dtype: element type of its input.
    """

    def __init__(self, model: ImportedModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.preprocess = Preprocess(model.preprocessing)
        self._model = model
        self._dtype = dtype

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 (N, H, W, C) → (N, c, h, w) or (N, h, w, c) of the model's type, N times the number of tiles."""
        images: Tensor = self.preprocess(frames)
        if self._model.channel_order == "bgr":
            images = images.flip(1)
        elif self._model.channel_order == "mono":
            images = images[:, :1]
        if self._model.layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        return images.to(self._dtype)


@final
class Back(nn.Module):
    """Outputs of the model to score and anomaly_map.

    Args:
        model: what its outputs mean.
        map_px: height and width of the model's own map; None where it gives none.
        size: height and width of the bundle's map of what the model takes, a frame or a tile.
    """

    def __init__(self, model: ImportedModel, *, map_px: Size | None, size: Size) -> None:
        super().__init__()
        self.post = _Post(model, map_px=map_px, size=size)

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The score and the map, or the one of both that the model gives → score (N,), anomaly_map (N, h, w).

        Where there are tiles, what the model gives is that of N times their number, and the answer that of N frames.
        """
        score, anomaly_map = self.post(first, second)
        return score, anomaly_map


class _Post(nn.Module):
    """Computes what ``Back`` returns; its name is the stage in the names of nodes."""

    rows: Tensor
    columns: Tensor

    def __init__(self, model: ImportedModel, *, map_px: Size | None, size: Size) -> None:
        super().__init__()
        self._model = model
        self._size = size
        self.stitch = StitchTiles(model.preprocessing, tile_map=size) if model.tiles else None
        self._is_enlarged = map_px is not None and map_px != size
        if map_px is not None and self._is_enlarged:
            rows, columns = (
                torch.from_numpy(bilinear_matrix(before, after, align_corners=False)).to(torch.float32)
                for before, after in zip(map_px, size, strict=True)
            )
            self.register_buffer("rows", rows)
            self.register_buffer("columns", columns.T.contiguous())

    def forward(self, first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor]:
        score, anomaly_map = self._of_images(first, second)
        return self.stitch(score, anomaly_map) if self.stitch else (score, anomaly_map)

    def _of_images(self, first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._model.anomaly_map is None:
            score = first.reshape(-1).to(torch.float32)
            return score, score[:, None, None].expand(-1, *self._size)
        maps = _planes((first if second is None else second).to(torch.float32))
        score = self._score_of(maps) if second is None else first.reshape(-1).to(torch.float32)
        return score, self.rows @ maps @ self.columns if self._is_enlarged else maps

    def _score_of(self, maps: Tensor) -> Tensor:
        rule = self._model.score_from_map
        if isinstance(rule, int):
            return maps.flatten(1).topk(rule, dim=1).values.mean(dim=1)
        return maps.amax(dim=(1, 2))


def _planes(maps: Tensor) -> Tensor:
    """(N, 1, h, w), (N, h, w, 1), (N, h, w) or (h, w) → (N, h, w)."""
    if maps.ndim == 2:
        return maps[None]
    if maps.ndim == 4:
        return maps.squeeze(1 if maps.shape[1] == 1 else 3)
    return maps
