"""Rotated views of images by one constant Gather."""

import torch
from torch import Tensor, nn

from ...core.size import Size


def fixed_angles(num_rotations: int) -> Tensor:
    """Multiples of 360° / num_rotations, in degrees: float64 (num_rotations,)."""
    return torch.arange(num_rotations, dtype=torch.float64) * (360.0 / num_rotations)


def rotation_indices(size: Size, angles_deg: Tensor) -> Tensor:
    """Where each pixel of a rotated image lies in the flattened image; h·w where it lies outside.

    Args:
        size: height h and width w.
        angles_deg: angles in degrees, counter-clockwise about the centre, float64 (A,).

    Returns:
        int32 (A, h·w).
    """
    height, width = size
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y = torch.arange(height, dtype=torch.float64, device=angles_deg.device)[:, None] - centre_y
    x = torch.arange(width, dtype=torch.float64, device=angles_deg.device)[None, :] - centre_x
    cos, sin = (function(torch.deg2rad(angles_deg))[:, None, None] for function in (torch.cos, torch.sin))
    # Half-way cases all go the same way, whatever the last bit of cos and sin on this machine.
    column = torch.floor(centre_x + cos * x - sin * y + 0.5 + 1e-6)
    row = torch.floor(centre_y + sin * x + cos * y + 0.5 + 1e-6)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return torch.where(inside, row * width + column, height * width).to(torch.int32).flatten(1)


class Rotate(nn.Module):
    """Views of images, rotated by constant angles within their own frame: nearest pixel, black outside.

    Args:
        size: height and width of the images.
        angles_deg: angles in degrees, float64 (A,).
        black: value of a black pixel after normalisation, per channel.
    """

    table: Tensor
    black: Tensor

    def __init__(self, size: Size, angles_deg: Tensor, *, black: list[float]) -> None:
        super().__init__()
        self.sizes = (len(angles_deg), *size)
        self.register_buffer("table", rotation_indices(size, angles_deg).flatten(), persistent=False)
        self.register_buffer("black", torch.tensor(black).reshape(1, -1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, H, W) → float32 (N · A, 3, H, W), the views of an image side by side."""
        pixels = images.flatten(2)
        # Black for every image, made from its first pixel: to expand by the batch size would trace as a Shape.
        pixels = torch.cat([pixels, 0.0 * pixels[:, :, :1] + self.black], 2)
        views: Tensor = pixels.index_select(2, self.table).unflatten(2, self.sizes)
        return views.transpose(1, 2).flatten(0, 1)
