"""Exponential moving averages of a module's weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged_model(module: nn.Module, decay: float) -> AveragedModel:
    """Return exponential moving averages of all parameters and buffers; integer tensors are copied instead."""
    move = get_ema_multi_avg_fn(decay)

    def average(averages: _Tensors, present: _Tensors, num_averaged: Tensor | int) -> None:
        # A permutation or a count has no mean.
        if averages[0].is_floating_point():
            move(averages, present, num_averaged)
            return
        for item, new in zip(averages, present, strict=True):
            item.copy_(new)

    return AveragedModel(module, multi_avg_fn=average, use_buffers=True)
