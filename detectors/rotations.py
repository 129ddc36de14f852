"""Rotated views of images by one constant Gather."""

import torch
from torch import Tensor, nn


def fixed_angles(num_rotations: int) -> Tensor:
    """Multiples of 360° / num_rotations, in degrees: float64 (num_rotations,)."""
    return torch.arange(num_rotations, dtype=torch.float64) * (360.0 / num_rotations)


def rotation_indices(size: int, angles_deg: Tensor) -> Tensor:
    """Where each pixel of a rotated square lies in the flattened square; size² where it lies outside.

    Args:
        size: height (= width).
        angles_deg: counter-clockwise about the centre, float64 (A,).

    Returns:
        int32 (A, size²).
    """
    centre = (size - 1) / 2
    axis = torch.arange(size, dtype=torch.float64, device=angles_deg.device) - centre
    y, x = axis[:, None], axis[None, :]
    cos, sin = (function(torch.deg2rad(angles_deg))[:, None, None] for function in (torch.cos, torch.sin))
    # Half-way cases all go the same way, whatever the last bit of cos and sin on this machine.
    column = torch.floor(centre + cos * x - sin * y + 0.5 + 1e-6)
    row = torch.floor(centre + sin * x + cos * y + 0.5 + 1e-6)
    inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
    return torch.where(inside, row * size + column, size * size).to(torch.int32).flatten(1)


class Rotate(nn.Module):
    """Views of images, rotated by constant angles: nearest pixel, black outside.

    Args:
        size: height (= width) of the images.
        angles_deg: float64 (A,).
        black: value of a black pixel, per channel.
    """

    table: Tensor
    black: Tensor

    def __init__(self, size: int, angles_deg: Tensor, *, black: list[float]) -> None:
        super().__init__()
        self.sizes = (len(angles_deg), size, size)
        self.register_buffer("table", rotation_indices(size, angles_deg).flatten(), persistent=False)
        self.register_buffer("black", torch.tensor(black).reshape(1, -1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N · A, 3, S, S), the views of an image side by side."""
        pixels = images.flatten(2)
        # Black for every image, made from its first pixel: to expand by the batch size would trace as a Shape.
        pixels = torch.cat([pixels, 0.0 * pixels[:, :, :1] + self.black], 2)
        views: Tensor = pixels.index_select(2, self.table).unflatten(2, self.sizes)
        return views.transpose(1, 2).flatten(0, 1)
