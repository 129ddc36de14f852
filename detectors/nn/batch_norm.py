"""Batch normalisation folded into the convolutions before it.

The ONNX exporter folds it too, but not where a network runs several times in one graph, as over three scales: the
convolution's weights then have several users.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class _Norm(nn.Module):
    """The activation of a norm layer whose normalisation was folded away."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.act = getattr(norm, "act", None) or nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        activated: Tensor = self.act(maps)
        return activated


def fold_batch_norm(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a frozen copy without the batch norms that directly follow a convolution, folded in float64.

    Args:
        network: network in evaluation mode.
        example: input that the network runs on once, to see which batch norm follows which convolution.
    """
    folded = copy.deepcopy(network).requires_grad_(False)
    names = {module: name for name, module in folded.named_modules()}
    for convolution, norm in _pairs(folded, example):
        _fold(convolution, norm)
        parent, _, leaf = names[norm].rpartition(".")
        setattr(folded.get_submodule(parent), leaf, _Norm(norm))
    return folded


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the pairs of a convolution and the batch norm that takes its output."""
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: Any, _: Any, output: Tensor) -> None:
        outputs.append((output, module))

    def before(module: Any, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((convolution, module) for output, convolution in outputs if output is inputs[0])

    hooks = [item.register_forward_hook(after) for item in network.modules() if isinstance(item, nn.Conv2d)]
    hooks += [item.register_forward_pre_hook(before) for item in network.modules() if isinstance(item, nn.BatchNorm2d)]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return pairs


def as_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return gain and offset of a batch norm in evaluation mode, ``gain · x + offset``: float64 (C,) each.

    Raises:
        ValueError: the batch norm has no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("A batch norm without running statistics cannot be folded. Train it with them.")
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain, norm.bias.double() - gain * norm.running_mean.double()


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    gain, folded = as_affine(norm)
    if convolution.bias is not None:
        folded = folded + gain * convolution.bias.double()
    convolution.weight.copy_(convolution.weight.double() * gain[:, None, None, None])
    convolution.bias = nn.Parameter(folded.to(convolution.weight.dtype), requires_grad=False)
