"""From scores of patches to a map of pixels."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .glance_networks import PATCH_PX, PatchGrid

#: A pixel in the centre of a patch has no finite weight; nearer than this, in pixels, counts as this far.
_SMALLEST_DISTANCE_PX = 0.5


def make_interpolation(grid: PatchGrid, name: Literal["inverse_distance", "bilinear"], *, power: float) -> nn.Module:
    """Return a module from scores float32 (N, n, n) to a map float32 (N, S, S).

    Args:
        grid: positions of the patches.
        name: ``"inverse_distance"`` or ``"bilinear"``.
        power: power of the inverse distance, above 0.
    """
    return Bilinear(grid) if name == "bilinear" else InverseDistance(grid, power)


def centres(grid: PatchGrid) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Row, or column, of the middle pixel of each patch: int64 (n,)."""
    return np.asarray(grid.starts) + PATCH_PX // 2


class Bilinear(nn.Module):
    """Bilinear between the centres of the patches; beyond the outermost as at them.

    Args:
        grid: positions of the patches.
    """

    matrix: Tensor

    def __init__(self, grid: PatchGrid) -> None:
        super().__init__()
        rows = [np.interp(np.arange(grid.image_px), centres(grid), unit) for unit in np.eye(grid.num)]
        self.register_buffer("matrix", torch.from_numpy(np.stack(rows, 1)).float())

    def forward(self, scores: Tensor) -> Tensor:
        """float32 (N, n, n) → float32 (N, S, S)."""
        return self.matrix @ scores @ self.matrix.T


class InverseDistance(nn.Module):
    """Mean over all patches, weighted by a power of the inverse distance of a patch's centre to the pixel.

    Pixels that lie alike between the centres have the same weights, shifted by whole steps. So all weights are one
    convolution from the grid to step² channels, which are dealt out to the pixels of a step: 0.9 MB at 256 px, where a
    matrix from patches to pixels takes 95 MB.

    Args:
        grid: positions of the patches.
        power: power of the inverse distance.
    """

    kernel: Tensor
    gain: Tensor

    def __init__(self, grid: PatchGrid, power: float) -> None:
        super().__init__()
        step, first = grid.step_px, int(centres(grid)[0])
        before, after = -(first // -step), -((grid.image_px - first) // -step)
        cells = before + after
        self.step, self.side, self.skipped = step, grid.image_px, before * step - first
        self.padding = cells - 1
        # Element m of the kernel is the patch that lies m - (after - 1) steps from a cell's first pixel.
        steps = np.arange(grid.num + cells - 1) - (after - 1)
        offsets = (steps[None, :] * step - np.arange(step)[:, None]).astype(np.float64)
        distances = np.hypot(offsets[:, None, :, None], offsets[None, :, None, :])
        weights = np.maximum(distances, _SMALLEST_DISTANCE_PX) ** -power
        kernel = torch.from_numpy(weights.reshape(step * step, 1, len(steps), len(steps)))
        total = self._spread(torch.ones(1, grid.num, grid.num, dtype=torch.float64), kernel)
        self.register_buffer("kernel", kernel.float())
        self.register_buffer("gain", (1.0 / total[0]).float())

    def _spread(self, scores: Tensor, kernel: Tensor) -> Tensor:
        cells = F.conv2d(scores[:, None], kernel, padding=self.padding)
        inside = slice(self.skipped, self.skipped + self.side)
        return F.pixel_shuffle(cells, self.step)[:, 0, inside, inside]

    def forward(self, scores: Tensor) -> Tensor:
        """float32 (N, n, n) → float32 (N, S, S)."""
        return self._spread(scores, self.kernel) * self.gain
