"""The subnet of CS-Flow, which sees three scales of a map at once, in training form and folded."""

import copy
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.size import Size
from .glow import Levels, Sizes, folded, pack, unpack

_SLOPE = 0.1


class CrossScale(nn.Module):
    """Subnet over three packed scales: a convolution per scale, then each output from its own and its neighbours.

    Args:
        channels_in: number of channels of the passive half.
        channels_out: twice the number of channels of the active half.
        hidden: number of hidden channels.
        kernel: kernel size of all convolutions, odd.
        sizes: height and width per scale, finest first.
    """

    def __init__(self, channels_in: int, channels_out: int, *, hidden: int, kernel: int, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        make = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2)
        scales = range(len(sizes))
        self.first = nn.ModuleList(make(channels_in, hidden) for _ in scales)
        self.same = nn.ModuleList(make(hidden, channels_out) for _ in scales)
        self.up = nn.ModuleList(make(hidden, channels_out) for _ in scales[1:])
        self.down = nn.ModuleList(make(hidden, channels_out, stride=2) for _ in scales[1:])
        self.gamma = nn.Parameter(torch.zeros(len(sizes)))

    def forward(self, packed: Tensor) -> Tensor:
        """float32 (N, C_in, L) → (N, C_out, L)."""
        levels = unpack(packed, self.sizes)
        hidden = [F.leaky_relu(layer(x), _SLOPE) for layer, x in zip(self.first, levels, strict=True)]
        sums = [layer(x) for layer, x in zip(self.same, hidden, strict=True)]
        for scale, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            sums[scale] = sums[scale] + up(_grow(hidden[scale + 1], self.sizes[scale]))
            sums[scale + 1] = sums[scale + 1] + down(hidden[scale])
        return pack(tuple(item * self.gamma[scale] for scale, item in enumerate(sums)))


def _grow(maps: Tensor, size: Size) -> Tensor:
    """Upsample bilinearly to twice the size; an axis of a single position stays one where the finer scale has one."""
    factors = tuple(grown // side for grown, side in zip(size, maps.shape[-2:], strict=True))
    if factors == (1, 1):
        return maps
    return F.interpolate(maps, scale_factor=factors, mode="bilinear", align_corners=False)


class LoweredCrossScale(nn.Module):
    """CrossScale over levels: what comes from the same and from the next coarser scale is one convolution.

    Args:
        subnet: subnet in training form.
        gains: factors of its output channels, float64 (C_out,).
    """

    def __init__(self, subnet: CrossScale, gains: Tensor) -> None:
        super().__init__()
        per_scale = [gains * gamma for gamma in subnet.gamma.detach().double()]
        self.first = copy.deepcopy(subnet.first).requires_grad_(False)
        self.down = nn.ModuleList(folded(layer, gain) for layer, gain in zip(subnet.down, per_scale[1:], strict=True))
        same = [folded(layer, gain) for layer, gain in zip(subnet.same, per_scale, strict=True)]
        ups = [folded(layer, gain) for layer, gain in zip(subnet.up, per_scale[:-1], strict=True)]
        mixed = [_joined(pair) for pair in zip(same[:-1], ups, strict=True)]
        self.mix = nn.ModuleList([*mixed, same[-1]])

    def forward(self, levels: Levels) -> Levels:
        """float32 (N, C_in, h, w) per scale → (N, C_out, h, w) per scale."""
        hidden = [F.leaky_relu(layer(x), _SLOPE) for layer, x in zip(self.first, levels, strict=True)]
        grown = [torch.cat([x, _grow(coarser, (x.shape[-2], x.shape[-1]))], 1) for x, coarser in pairwise(hidden)]
        sums = [layer(x) for layer, x in zip(self.mix, [*grown, hidden[-1]], strict=True)]
        steps = [layer(x) for layer, x in zip(self.down, hidden[:-1], strict=True)]
        return (sums[0], *(x + step for x, step in zip(sums[1:], steps, strict=True)))


def _joined(layers: Any) -> nn.Conv2d:
    """Return the sum of two convolutions of equal kernel and padding as one convolution over the channels of both."""
    first, second = layers
    joined = nn.Conv2d(2 * first.in_channels, first.out_channels, first.kernel_size, padding=first.padding)
    joined.load_state_dict({"weight": torch.cat([first.weight, second.weight], 1), "bias": first.bias + second.bias})
    return joined.requires_grad_(False)
