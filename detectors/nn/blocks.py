"""Convolution blocks of the networks that are trained here, and their folded form."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .batch_norm import as_affine


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, and a ReLU or none.

    Args:
        conv: a Conv2d or a ConvTranspose2d.
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
    """Return a copy of ``module`` in which every ConvNorm is one convolution, folded in float64.

    A transposed convolution of kernel 2 and stride 2 overlaps nowhere: it becomes a 1×1 convolution to four times
    the channels, which are then dealt out to 2×2 pixels (DepthToSpace). Any other one stays transposed.
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
    if not isinstance(conv, nn.ConvTranspose2d):
        weight = conv.weight.double() * scale[:, None, None, None]
        return nn.Sequential(plain_conv(weight, bias, conv=conv), block.activation)
    if (conv.kernel_size, conv.stride, conv.padding) == ((2, 2), (2, 2), (0, 0)):
        grouped = conv.weight.double().permute(1, 2, 3, 0) * scale[:, None, None, None]
        weight = grouped.reshape(4 * conv.out_channels, conv.in_channels, 1, 1)
        dealt = plain_conv(weight, bias.repeat_interleave(4))
        return nn.Sequential(dealt, block.activation, nn.PixelShuffle(2))
    return nn.Sequential(_with_bias(conv, conv.weight.double() * scale[None, :, None, None], bias), block.activation)


def _with_bias(conv: nn.ConvTranspose2d, weight: Tensor, bias: Tensor) -> nn.ConvTranspose2d:
    """Return a frozen copy of a transposed convolution with these weights and a bias."""
    copied = copy.deepcopy(conv)
    with torch.no_grad():
        copied.weight.copy_(weight)
    copied.bias = nn.Parameter(bias.to(copied.weight.dtype))
    return copied.requires_grad_(False)


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
