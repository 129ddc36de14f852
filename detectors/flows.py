"""Coupling blocks of normalizing flows, lowered from FrEIA to plain, folded convolutions.

FrEIA's AllInOneBlock (Ardizzone et al.) computes, for x split into x₁, x₂ along the channels,

    s, t = 0.1 · subnet(x₁);  x₂ ← x₂ · exp(clamp · tanh s) + t;  y = P (γ · [x₁, x₂] + β)

with P a fixed permutation, γ = 0.1 · softplus(g) per channel. At inference no Jacobian is needed where the score
is |z|² alone, and everything but the coupling itself folds away, exactly:

- 0.1 goes into the subnet's last layer; γ, β of the coupled half go into its t rows;
- a channel is kept as ``σ (u + ω)``: the scales σ gathered so far are folded into the next subnet's first layer
  and, at the very end, into the weights of the channel mean; the pending offsets ω are added only where a padded
  convolution needs them;
- P is a renumbering of channels: folded into what comes next, the last one dropped, since a mean over channels
  does not see their order.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Vector = NDArray[Any]


def build_flow(
    channels: int, size: int, *, steps: int, clamp: float, subnet: Callable[[int], Callable[[int, int], nn.Module]]
) -> nn.Module:
    """A FrEIA sequence of AllInOneBlocks with hard permutations over maps (channels, size, size).

    Args:
        channels: C.
        size: height (= width) of the maps.
        steps: number of blocks.
        clamp: bound of the log-scale.
        subnet: step index → constructor ``(channels_in, channels_out)``.
    """
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock

    flow: Any = SequenceINN(channels, size, size)
    for step in range(steps):
        flow.append(AllInOneBlock, subnet_constructor=subnet(step), affine_clamping=clamp, permute_soft=False)
    built: nn.Module = flow
    return built


class LoweredFlow(nn.Module):
    """A FrEIA flow of convolutional coupling blocks, folded; gives the channel mean of z².

    Args:
        flow: SequenceINN of AllInOneBlocks whose subnets are Conv2d, ReLU, Conv2d with stride 1 and equal padding.
    """

    offset: Tensor

    def __init__(self, flow: Any) -> None:
        super().__init__()
        blocks = list(flow.module_list)
        channels = int(blocks[0].in_channels)
        state = _ChannelState(np.arange(channels), np.ones(channels), np.zeros(channels))
        lowered = []
        for block in blocks:
            module, state = _lower(block, state)
            lowered.append(module)
        self.couplings = nn.ModuleList(lowered)
        self.register_buffer("offset", _per_channel(state.offset))
        self.energy = nn.Conv2d(channels, 1, 1, bias=False).requires_grad_(False)
        self.energy.weight.copy_(_per_channel(state.scale**2 / channels))

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → mean over channels of z², float32 (N, h, w)."""
        for coupling in self.couplings:
            maps = coupling(maps)
        energy: Tensor = self.energy((maps + self.offset).square())
        return energy.squeeze(1)


class _ChannelState:
    """How stored channels stand for true ones: ``true[i] = scale[i] · (stored[i] + offset[i])``.

    ``order[k]`` is the stored position of the k-th channel that the next block sees.
    """

    def __init__(self, order: Vector, scale: Vector, offset: Vector) -> None:
        self.order = order
        self.scale = scale
        self.offset = offset


def _per_channel(values: Vector) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(1, -1, 1, 1)


def _lower(block: Any, state: _ChannelState) -> tuple[nn.Module, _ChannelState]:
    """One block, folded into stored channels ``[passive, active]``; both in float64."""
    num_passive, num_active = block.splits
    gain = (0.1 * torch.nn.functional.softplus(block.global_scale.detach().double(), beta=0.5)).flatten().numpy()
    shift = block.global_offset.detach().double().flatten().numpy()
    order = state.order
    passive, active = order[:num_passive], order[num_passive:]
    scale, offset = state.scale, state.offset
    module = Coupling(block, order, (scale[passive], offset[passive]), (scale[active], offset[active], gain, shift))
    new_scale = np.concatenate([scale[passive], scale[active]]) * gain
    new_offset = np.concatenate([shift[:num_passive] / new_scale[:num_passive], np.zeros(num_active)])
    permutation = block.w_perm.detach().flatten(1).argmax(1).numpy()
    return module, _ChannelState(permutation, new_scale, new_offset)


class Coupling(nn.Module):
    """One coupling: gathers the passive and the active channels, applies the folded subnet, concatenates."""

    order: Tensor
    offset: Tensor

    def __init__(
        self,
        block: Any,
        order: Vector,
        passive: tuple[Vector, Vector],
        active: tuple[Vector, Vector, Vector, Vector],
    ) -> None:
        super().__init__()
        num_passive = len(passive[0])
        self.is_ordered = bool((order == np.arange(len(order))).all())
        self.sizes = (num_passive, len(order) - num_passive)
        self.clamp = float(block.clamp)
        first, _, last = block.subnet
        self.first = _fold_first(first, passive[0])
        self.last = _fold_last(last, active, num_passive)
        if not self.is_ordered:
            self.register_buffer("order", torch.from_numpy(order))
        offsets = np.concatenate([passive[1], active[1]])
        self.has_offset = bool(offsets.any())
        if self.has_offset:
            self.register_buffer("offset", _per_channel(offsets))

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w), stored channels → the same, [passive, active]."""
        if not self.is_ordered:
            maps = maps.index_select(1, self.order)
        if self.has_offset:
            maps = maps + self.offset
        passive, active = maps.split(self.sizes, 1)
        log_scale, shift = self.last(torch.relu(self.first(passive))).chunk(2, 1)
        return torch.cat([passive, active * torch.exp(self.clamp * torch.tanh(log_scale)) + shift], 1)


def _convolution(like: Any, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    made = nn.Conv2d(weight.shape[1], weight.shape[0], like.kernel_size, padding=like.padding)
    made.load_state_dict({"weight": weight, "bias": bias})
    return made.requires_grad_(False)


def _fold_first(first: Any, scale: Vector) -> nn.Conv2d:
    """Scale of the stored passive channels goes into the input side of the weights."""
    weight = first.weight.detach().double() * torch.from_numpy(scale)[None, :, None, None]
    return _convolution(first, weight, first.bias.detach())


def _fold_last(last: Any, active: tuple[Vector, ...], num_passive: int) -> nn.Conv2d:
    """0.1 everywhere; on the t rows also γ and β, divided by the scale that the stored channel carries on."""
    scale, _, gain, shift = active
    weight, bias = 0.1 * last.weight.detach().double(), 0.1 * last.bias.detach().double()
    gain_active, shift_active = gain[num_passive:], shift[num_passive:]
    num_active = len(scale)
    # true' = γ (σ(u+ω) eˢ + t) + β = γσ [ (u+ω) eˢ + (γ t + β) / (γσ) ]
    weight[num_active:] *= torch.from_numpy(1.0 / scale)[:, None, None, None]
    bias[num_active:] = bias[num_active:] * torch.from_numpy(1.0 / scale) + torch.from_numpy(
        shift_active / (gain_active * scale)
    )
    return _convolution(last, weight, bias)
