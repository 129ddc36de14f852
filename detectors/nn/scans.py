"""Preprocessing modules of detectors that take depth or voxels; their specifications stand in ``core.inputs``."""

from typing import final

import torch
from torch import Tensor, nn

from ...core.geometry import nearest_pixels
from ...core.inputs import DepthPreprocessing, VoxelPreprocessing


@final
class DepthPart(nn.Module):
    """Depth frames to scaled depth images: nearest resize, −1 to 1; RGB antialiased, 0 to 1.

    The resize of depth is a Gather by constant indices, that of colours a product with a matrix per axis; where frames
    have the right size already there is neither. Scaling is one multiplication and one addition. All in float32.
    """

    rows: Tensor
    columns: Tensor
    row_weights: Tensor
    column_weights: Tensor

    def __init__(self, spec: DepthPreprocessing) -> None:
        super().__init__()
        self.spec = spec
        half_m = (spec.far_m - spec.near_m) / 2.0
        self.scale, self.bias = 1.0 / half_m, -(spec.far_m + spec.near_m) / 2.0 / half_m
        self.resizes = not all(axis.is_unchanged for axis in spec.axes)
        if not self.resizes:
            return
        for axis, index, weights in zip(spec.axes, ("rows", "columns"), ("row_weights", "column_weights"), strict=True):
            self.register_buffer(index, torch.from_numpy(nearest_pixels(axis.crop_px, axis.frame_px)))
            if spec.has_rgb:
                self.register_buffer(weights, torch.from_numpy(axis.matrix).float())

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Scale frames.

        Args:
            frames: float32 (N, H, W, 1), depth in metres, 0 for none; with RGB (N, H, W, 4), colours from 0 to 255.

        Returns:
            float32 (N, 1 or 4, h, w): depth, nominally −1 to 1, then RGB in [0, 1]. And float32 (N, 1, h, w): 1 where
            depth was measured, else 0.
        """
        images = frames.permute(0, 3, 1, 2)
        depth, colours = images[:, :1], images[:, 1:]
        if self.resizes:
            depth = depth.index_select(2, self.rows).index_select(3, self.columns)
        is_measured = depth != 0.0
        scaled = depth * self.scale + self.bias
        if self.spec.holes == "near":
            scaled = torch.where(is_measured, scaled, -1.0)
        measured = is_measured.to(torch.float32)
        if not self.spec.has_rgb:
            return scaled, measured
        if self.resizes:
            colours = self.row_weights @ colours @ self.column_weights.transpose(0, 1)
        return torch.cat([scaled, colours * (1.0 / 255.0)], dim=1), measured


@final
class VoxelPart(nn.Module):
    """Cells of pixels to a filled grid, by a scatter without a reduction: points of one cell write one value.

    Every engine takes that; TensorRT RTX refuses scatters that add or take a maximum.
    """

    def __init__(self, spec: VoxelPreprocessing) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the grid.

        Args:
            cells: float32 (N, H, W, 1), each pixel's cell or −1; with RGB (N, H, W, 4), its mean colour beside it.

        Returns:
            float32 (N, 1 or 3, G, G, G) along z, y, x: −1 where a cell is empty, else 1 or the mean colour. And int64
            (N, H · W): each pixel's cell, G³ (one beyond the last) where nothing was measured.
        """
        side = self.spec.num_cells
        pixels = cells.flatten(1, 2).transpose(1, 2)
        numbers = pixels[:, 0]
        index = torch.where(numbers < 0.0, float(side**3), numbers).to(torch.int64)
        values = pixels[:, 1:] if self.spec.has_rgb else torch.ones_like(pixels)
        # One cell more than the grid has takes the pixels without a measurement. TensorRT takes no more indices than
        # there is room, so there is room for every pixel; what is too much is cut off.
        num_cells, num_pixels = side**3, self.spec.frame_height_px * self.spec.frame_width_px
        empty = torch.full_like(values[:, :, :1], -1.0).expand(-1, -1, max(num_cells + 1, num_pixels))
        filled = empty.scatter(2, index[:, None].expand_as(values), values)
        return filled[:, :, :num_cells].unflatten(2, (side, side, side)), index
