"""Coupling blocks of normalising flows, lowered from FrEIA to plain, folded convolutions.

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

With a condition c beside x₁ (CFlow), a dense P ("soft permutation"), γ and β merge into one affine 1×1 convolution;
where P only renumbers the channels it is a Gather, γ and β after it. The condition's share of the subnet's first
layer is a constant map where c depends on the position alone; the last P is dropped, since ``|P v| = |v|``. The
log-likelihood needs the Jacobian: the sum of log γ is a constant, the sum of clamp · tanh s is kept.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.size import Size

Vector = NDArray[Any]
#: What conditional blocks cut their input at. The likelihood of such a vector is 0 with or without the cut; without
#: it the product with the scale could overflow in fp16, and the rotation would turn infinities into NaN.
_LARGEST = 4096.0


def build_flow(
    channels: int, size: Size, *, steps: int, clamp: float, subnet: Callable[[int], Callable[[int, int], nn.Module]]
) -> nn.Module:
    """A FrEIA sequence of AllInOneBlocks with hard permutations over maps (channels, *size).

    Args:
        channels: number C of channels.
        size: height and width of the maps.
        steps: number of blocks.
        clamp: bound of the log-scale.
        subnet: step index → constructor ``(channels_in, channels_out)``.
    """
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock

    flow: Any = SequenceINN(channels, *size)
    for step in range(steps):
        flow.append(AllInOneBlock, subnet_constructor=subnet(step), affine_clamping=clamp, permute_soft=False)
    built: nn.Module = flow
    return built


def build_conditional_flow(
    channels: int, condition_dim: int, *, steps: int, clamp: float, subnet: Callable[[int, int], nn.Module]
) -> nn.Module:
    """A FrEIA sequence of AllInOneBlocks over vectors (V, channels) with a condition (V, condition_dim).

    The permutations are made dense by ``draw_rotations``; until then they are hard ones.

    Args:
        channels: number C of channels.
        condition_dim: length of the condition.
        steps: number of blocks.
        clamp: bound of the log-scale.
        subnet: constructor ``(channels_in, channels_out)``.
    """
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock

    flow: Any = SequenceINN(channels)
    for _ in range(steps):
        flow.append(
            AllInOneBlock, cond=0, cond_shape=(condition_dim,), subnet_constructor=subnet, affine_clamping=clamp
        )
        # Only sampling would need the inverse; without it the checkpoint holds each matrix once.
        flow.module_list[-1].w_perm_inv = None
    built: nn.Module = flow
    return built


def draw_rotations(flow: Any, generator: torch.Generator) -> None:
    """Give every block a rotation drawn uniformly from SO(C), as FrEIA's soft permutations are, in place."""
    for block in flow.module_list:
        gauss = torch.randn(block.w_perm.shape, generator=generator, dtype=torch.float64)
        rotation, upper = torch.linalg.qr(gauss)
        rotation *= upper.diagonal().sign()
        rotation[:, 0] *= torch.linalg.slogdet(rotation).sign
        with torch.no_grad():
            block.w_perm.copy_(rotation)


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
    """The relation of stored channels to true ones: ``true[i] = scale[i] · (stored[i] + offset[i])``.

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
    gain, shift = (values.numpy() for values in _affine(block))
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
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], like.kernel_size, padding=like.padding)
    convolution.load_state_dict({"weight": weight, "bias": bias})
    return convolution.requires_grad_(False)


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


class LoweredConditionalFlow(nn.Module):
    """A FrEIA flow over vectors with a condition per position, folded to 1×1 convolutions; gives log-likelihoods.

    Args:
        flow: made by ``build_conditional_flow``, subnets Linear, ReLU, Linear.
        condition: float32 (condition_dim, h, w), baked in.
    """

    def __init__(self, flow: Any, condition: Tensor) -> None:
        super().__init__()
        blocks = list(flow.module_list)
        last = blocks[-1]
        self.couplings = nn.ModuleList(ConditionalCoupling(block, condition, is_last=block is last) for block in blocks)
        self.gain, self.shift = (_fixed(values[:, None, None]) for values in _affine(last))
        log_gains = sum(float(_affine(block)[0].log().sum()) for block in blocks)
        self.channels = int(last.in_channels)
        self.constant = log_gains / self.channels - 0.5 * math.log(2.0 * math.pi)

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → log-likelihood of each vector over C, float32 (N, h, w)."""
        jacobians = []
        for coupling in self.couplings:
            maps, log_scale = coupling(maps)
            jacobians.append(log_scale.sum(1))
        energy = (maps * self.gain + self.shift).square().sum(1)
        return self.constant + (torch.stack(jacobians).sum(0) - 0.5 * energy) / self.channels


class ConditionalCoupling(nn.Module):
    """One coupling with the condition baked in, followed by what rotates or renumbers the channels."""

    condition: Tensor

    def __init__(self, block: Any, condition: Tensor, *, is_last: bool) -> None:
        super().__init__()
        self.sizes = tuple(block.splits)
        self.clamp = float(block.clamp)
        first, _, last = block.subnet
        weight = first.weight.detach().double()
        passive, conditional = weight.split((self.sizes[0], weight.shape[1] - self.sizes[0]), 1)
        self.first = _fixed(passive[:, :, None, None])
        baked = torch.einsum("hd,dyx->hyx", conditional, condition.double()) + first.bias.detach()[:, None, None]
        # Buffers, not parameters: the position code and the rotation are constants of the method.
        self.register_buffer("condition", baked.float())
        self.last = _fixed(0.1 * last.weight.detach().double()[:, :, None, None])
        self.last_bias = _fixed(0.1 * last.bias.detach().double())
        self.mix = nn.Identity() if is_last else _mix(block)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, C, h, w) → the same after the block, and log-scales float32 (N, C // 2, h, w)."""
        passive, active = maps.clamp(-_LARGEST, _LARGEST).split(self.sizes, 1)
        hidden = torch.relu(F.conv2d(passive, self.first) + self.condition)
        log_scale, shift = F.conv2d(hidden, self.last, self.last_bias).chunk(2, 1)
        log_scale = self.clamp * torch.tanh(log_scale)
        maps = torch.cat([passive, active * torch.exp(log_scale) + shift], 1)
        return self.mix(maps), log_scale


def _mix(block: Any) -> nn.Module:
    """Return a block's γ, β and P: a Gather where P only renumbers the channels, else a 1×1 convolution."""
    matrix, (gain, shift) = block.w_perm.detach().double(), _affine(block)
    order = matrix.argmax(1)
    is_order = torch.equal(matrix, F.one_hot(order, len(matrix)).double())
    return _Renumbering(order, gain, shift) if is_order else _Rotation(matrix, gain, shift)


class _Rotation(nn.Module):
    rotation: Tensor

    def __init__(self, matrix: Tensor, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("rotation", (matrix * gain)[:, :, None, None].float())
        self.bias = _fixed(matrix @ shift)

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.rotation, self.bias)


class _Renumbering(nn.Module):
    order: Tensor

    def __init__(self, order: Tensor, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order.to(torch.int32))
        self.gain, self.shift = (_fixed(values[order][:, None, None]) for values in (gain, shift))

    def forward(self, maps: Tensor) -> Tensor:
        return maps.index_select(1, self.order) * self.gain + self.shift


def _affine(block: Any) -> tuple[Tensor, Tensor]:
    """γ and β of a block, float64 (C,)."""
    gain = 0.1 * F.softplus(block.global_scale.detach().double(), beta=0.5)
    return gain.flatten(), block.global_offset.detach().double().flatten()


def _fixed(values: Tensor) -> nn.Parameter:
    """A trained value of the lowered form."""
    return nn.Parameter(values.float().contiguous(), requires_grad=False)
