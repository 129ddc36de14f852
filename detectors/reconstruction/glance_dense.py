"""Glance's networks over all patches at once, without a loop: what is exported.

Only near a hidden patch do the first convolutions differ from those of the whole image. They run once over the image,
and once over a window around each patch, in which all masks are constants. After them nothing is hidden any more, and
the remaining convolutions are plain ones. The patches lie in the batch axis.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import plain_conv
from .glance_networks import PATCH_PX, GlobalNet, PartialConv, PatchGrid, seen_around, window_gain


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Which part of a map differs from the unmasked one, per row (or column) of patches.

    Attributes:
        side: side of the window on the map.
        starts: first row of each window on the map.
        image_side: side in pixels of the part of the image that the window is computed from.
        image_starts: first pixel of it.
    """

    side: int
    starts: list[int]
    image_side: int
    image_starts: list[int]


def _window(grid: PatchGrid, *, map_px: int, stride: int, field_px: int) -> _Window:
    """Position t of the map looks at ``field_px`` pixels from ``t · stride`` on."""
    touched = [(-((field_px - 1 - start) // stride), (start + PATCH_PX - 1) // stride) for start in grid.starts]
    side = min(map_px, max(last - first + 1 for first, last in touched))
    starts = [min(max(first, 0), map_px - side) for first, _ in touched]
    return _Window(
        side=side,
        starts=starts,
        image_side=(side - 1) * stride + field_px,
        image_starts=[stride * start for start in starts],
    )


class NearConv(nn.Module):
    """A partial convolution in windows around the patches, its masks and ratios as constants.

    Args:
        conv: the partial convolution.
        seen: 1 where the window is seen, float32 (num_patches, 1, h, w).
    """

    bias: Tensor
    gain: Tensor
    seen_after: Tensor

    def __init__(self, conv: PartialConv, seen: Tensor) -> None:
        super().__init__()
        gain, seen_after = window_gain(seen, conv.conv)
        self.conv = plain_conv(conv.conv.weight, None, conv=conv.conv)
        bias = torch.zeros(conv.conv.out_channels) if conv.conv.bias is None else conv.conv.bias.detach()
        self.register_buffer("bias", bias[:, None, None].clone())
        self.register_buffer("gain", gain)
        self.register_buffer("seen_after", seen_after)
        self.hides = bool((seen_after == 0).any())

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N · num_patches, C, h, w), 0 where hidden → float32 (N, num_patches, C', h', w'), the same."""
        out: Tensor = self.conv(maps)
        out = out.reshape(-1, len(self.gain), *out.shape[1:]) * self.gain + self.bias
        return out * self.seen_after if self.hides else out


class DenseGlobalNet(nn.Module):
    """Global-Net's prediction for every patch of the grid.

    Args:
        network: the trained network.
        grid: positions of the patches.
    """

    pixels: Tensor
    hidden: Tensor
    placed: Tensor
    covered: Tensor

    def __init__(self, network: GlobalNet, grid: PatchGrid) -> None:
        super().__init__()
        self.num, self.activation, self.pool = grid.num, network.activation, network.pool
        partial = [item for item in network.convs if isinstance(item, PartialConv)]
        depth, map_px, stride, field_px = _reach(network, partial, grid)
        window = _window(grid, map_px=map_px, stride=stride, field_px=field_px)
        self._keep_places(window, grid, map_px)
        seen = self._seen()
        self.shared, self.near = nn.ModuleList(), nn.ModuleList()
        for number, item in enumerate(partial[:depth]):
            self.shared.append(plain_conv(item.conv.weight, item.conv.bias, conv=item.conv))
            self.near.append(NearConv(item, seen))
            seen = window_gain(seen, item.conv)[1]
            seen = self.pool(seen) if number == 0 else seen
        rest: list[nn.Module] = []
        for item in partial[depth:]:
            rest += [plain_conv(item.conv.weight, item.conv.bias, conv=item.conv), self.activation]
        last = network.last.conv
        self.rest = nn.Sequential(*rest, plain_conv(last.weight, last.bias, conv=last))

    def _keep_places(self, window: _Window, grid: PatchGrid, map_px: int) -> None:
        self.side = window.image_side
        # First axis: row, or column, of patches.
        pixels = torch.tensor(window.image_starts)[:, None] + torch.arange(window.image_side)
        self.register_buffer("pixels", pixels.flatten())
        starts = torch.tensor(list(grid.starts))[:, None]
        hidden = ((pixels >= starts) & (pixels < starts + PATCH_PX)).float()
        self.register_buffer("hidden", hidden)
        there = torch.tensor(window.starts)[:, None] + torch.arange(window.side)
        # Row t of the window lies in row there[t] of the map.
        placed = F.one_hot(there, map_px).float().transpose(1, 2).contiguous()
        self.register_buffer("placed", placed)
        self.register_buffer("covered", placed.sum(2))

    def _seen(self) -> Tensor:
        hidden = self.hidden[:, None, :, None] * self.hidden[None, :, None, :]
        return 1.0 - hidden.flatten(0, 1)[:, None]

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, D, n, n)."""
        shared = images
        for number, conv in enumerate(self.shared):
            shared = self.activation(conv(shared))
            shared = self.pool(shared) if number == 0 else shared
        near = self._windows(images)
        for number, conv in enumerate(self.near):
            near = self.activation(conv(near)).flatten(0, 1)
            near = self.pool(near) if number == 0 else near
        maps = self._paste(near, shared)
        embeddings: Tensor = self.rest(maps)
        return embeddings.reshape(-1, self.num, self.num, embeddings.shape[1]).permute(0, 3, 1, 2)

    def _windows(self, images: Tensor) -> Tensor:
        """Windows around the patches, 0 in the patch itself: float32 (N · n², 3, side, side)."""
        num, side = self.num, self.side
        cut = images.index_select(2, self.pixels).index_select(3, self.pixels)
        cut = cut.reshape(-1, 3, num, side, num, side).permute(0, 2, 4, 1, 3, 5)
        rows, columns = self.hidden.reshape(num, 1, 1, side, 1), self.hidden.reshape(num, 1, 1, side)
        return (cut - cut * rows * columns).reshape(-1, 3, side, side)

    def _paste(self, near: Tensor, shared: Tensor) -> Tensor:
        """Each window into its place on a copy of the shared map: float32 (N · n², C, m, m)."""
        num = self.num
        near = near.reshape(-1, num, num, *near.shape[1:])
        put = self.placed[:, None, None] @ near @ self.placed.transpose(1, 2)[:, None]
        rows, columns = self.covered[:, None, None, :, None], self.covered[:, None, None, :]
        around = shared[:, None, None] - shared[:, None, None] * rows * columns
        return (put + around).flatten(0, 2)


def _reach(network: GlobalNet, partial: list[PartialConv], grid: PatchGrid) -> tuple[int, int, int, int]:
    """Return after how many convolutions nothing is hidden, and side, stride and field of the map there."""
    seen = seen_around(torch.tensor(list(grid.positions())), grid.image_px)
    stride, field_px = 1, 1
    for depth, item in enumerate(partial, 1):
        seen = window_gain(seen, item.conv)[1]
        kernels = [(item.conv.kernel_size[0], item.conv.stride[0])]
        if depth == 1:
            seen = network.pool(seen)
            kernels.append((3, 2))
        for kernel, step in kernels:
            field_px += (kernel - 1) * stride
            stride *= step
        if bool((seen == 1).all()):
            break
    return depth, seen.shape[-1], stride, field_px


class DenseLocalNet(nn.Module):
    """Local-Net's embedding of every patch of the grid: the network itself over the square that they cover.

    Args:
        network: the trained network.
        grid: positions of the patches.
    """

    def __init__(self, network: nn.Module, grid: PatchGrid) -> None:
        super().__init__()
        self.network = network
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, D, n, n)."""
        embeddings: Tensor = self.network(self.grid.covered(images))
        return embeddings
