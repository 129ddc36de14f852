"""Convolution blocks of the networks that are trained here, and their folded form."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .batch_norm import as_affine


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, and a ReLU or none.

    Args:
        conv: a Conv2d, or a ConvTranspose2d with kernel 2 and stride 2.
        relu: whether a ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, *, relu: bool) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → float32 (N, C', h', w')."""
        out: Tensor = self.activation(self.norm(self.conv(maps)))
        return out


def conv_norm(channels_in: int, channels_out: int, kernel: int, *, relu: bool = True) -> ConvNorm:
    """Return a ConvNorm of stride 1 that keeps the size, without the bias that its normalisation would cancel."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    return ConvNorm(conv, relu=relu)


def fold(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` in which every ConvNorm is one plain convolution, folded in float64.

    A transposed convolution of kernel 2 and stride 2 overlaps nowhere: it becomes a 1×1 convolution to four times
    the channels, which are then dealt out to 2×2 pixels (DepthToSpace).
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for name, item in list(folded.named_modules()):
        if isinstance(item, ConvNorm):
            folded.set_submodule(name, _folded(item))
    return folded


def _folded(block: ConvNorm) -> nn.Sequential:
    conv = block.conv
    scale, bias = as_affine(block.norm)
    if conv.bias is not None:
        bias = bias + scale * conv.bias.double()
    is_grown = isinstance(conv, nn.ConvTranspose2d)
    if is_grown:
        grouped = conv.weight.double().permute(1, 2, 3, 0) * scale[:, None, None, None]
        weight = grouped.reshape(4 * conv.out_channels, conv.in_channels, 1, 1)
        bias = bias.repeat_interleave(4)
    else:
        weight = conv.weight.double() * scale[:, None, None, None]
    parts: list[nn.Module] = [plain_conv(weight, bias, conv=None if is_grown else conv), block.activation]
    return nn.Sequential(*parts, nn.PixelShuffle(2)) if is_grown else nn.Sequential(*parts)


def plain_conv(weight: Tensor, bias: Tensor | None, *, conv: Any = None) -> nn.Conv2d:
    """Return a frozen Conv2d with these weights, and the stride and padding of ``conv``, or 1 and 0 without it."""
    out_channels, in_channels, height, width = weight.shape
    stride, padding = (conv.stride, conv.padding) if conv is not None else (1, 0)
    convolution = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(weight)
        if convolution.bias is not None and bias is not None:
            convolution.bias.copy_(bias)
    return convolution.requires_grad_(False)
