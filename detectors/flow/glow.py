"""Coupling blocks of the GLOW design, as DifferNet and CS-Flow use them: FrEIA's to train, folded ones to run.

After a fixed permutation of the channels, FrEIA's GLOWCouplingBlock (Ardizzone et al.) splits x into x₁, x₂ and
computes

    s₂, t₂ = net₂(x₂);  y₁ = x₁ · e(s₂) + t₂
    s₁, t₁ = net₁(y₁);  y₂ = x₂ · e(s₁) + t₁        with  e(s) = exp(0.636 · clamp · atan(s / clamp))

At inference, exactly:

- no Jacobian, since the score is |z|² alone;
- 1 / clamp goes into the s rows of each net's last layer;
- a permutation is one constant Gather before its block. None follows the last block.

Permutations are drawn from NumPy's global generator, so that they follow the seed of the run. The originals fix
them by block number, which would reset that generator.

A lowered flow runs over a tuple of tensors: CS-Flow couples three scales at once, DifferNet has one vector.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core.size import Size

Levels = tuple[Tensor, ...]
Sizes = tuple[Size, ...]

#: Both detectors look at the image, at half and at quarter its size.
NUM_SCALES = 3
_ATAN_GAIN = 0.636


def pyramid_maps(backbone: nn.Module, images: Tensor) -> Levels:
    """A network's map of images and of their strided slices at half and quarter size, finest first.

    Args:
        backbone: images → tuple whose first is the map.
        images: float32 (N, 3, H, W).
    """
    return tuple(backbone(images[:, :, :: 1 << scale, :: 1 << scale])[0] for scale in range(NUM_SCALES))


def pack(maps: Levels) -> Tensor:
    """Maps (N, C, h, w) of several scales, flattened, side by side: (N, C, sum of h·w)."""
    return torch.cat([item.flatten(2) for item in maps], 2)


def unpack(packed: Tensor, sizes: Sizes) -> Levels:
    """The inverse of ``pack``."""
    parts = packed.split([math.prod(size) for size in sizes], 2)
    return tuple(part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True))


def soft_clamp(log_scale: Tensor, clamp: float) -> Tensor:
    """Into (−1, 1) times ``0.636 · π / 2``, slope ``0.636 / clamp`` at 0: float32, any shape."""
    return _ATAN_GAIN * torch.atan(log_scale / clamp)


def build_glow(
    *dims: int,
    steps: int,
    clamp: float,
    subnet: Callable[[int], Callable[[int, int], nn.Module]],
    largest: float = math.inf,
) -> Any:
    """A FrEIA sequence of permutations and GLOW coupling blocks.

    Args:
        dims: shape of one sample, channels first.
        steps: number of blocks.
        clamp: bound of the log-scale.
        subnet: step index → constructor ``(channels_in, channels_out)``.
        largest: what leaves a block is cut to ± this; infinite for no cut.
    """
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock, PermuteRandom

    flow: Any = SequenceINN(*dims)
    for step in range(steps):
        flow.append(PermuteRandom)
        flow.append(
            GLOWCouplingBlock,
            subnet_constructor=subnet(step),
            clamp=clamp,
            clamp_activation=partial(soft_clamp, clamp=clamp),
        )
        if math.isfinite(largest):
            # A module of its own would move the others' places, and so the names in checkpoints.
            flow.module_list[-1].register_forward_hook(partial(_cut, largest=largest))
    return flow


def _cut(_module: nn.Module, _inputs: Any, output: Any, *, largest: float) -> Any:
    """What a FrEIA block returns, its values cut; the Jacobian is that of the block, as in the authors' code."""
    (values,), log_jacobian = output
    return (values.clamp(-largest, largest),), log_jacobian


def glow_loss(flow: Any, values: Tensor) -> Tensor:
    """Negative log-likelihood up to a constant, mean over samples and dimensions: scalar.

    Args:
        flow: from ``build_glow``.
        values: float32 (N, …).
    """
    z, log_jacobian = flow(values)
    loss: Tensor = (0.5 * z.flatten(1).square().sum(1) - log_jacobian).mean() / math.prod(values.shape[1:])
    return loss


class Standardise(nn.Module):
    """Gives every channel mean 0 and deviation 1 over the training images; the identity until ``learn``.

    Its Jacobian is constant, so the loss leaves it out.

    Args:
        channels: number C of channels.
    """

    mean: Tensor
    rate: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("rate", torch.ones(channels))

    def learn(self, values: Tensor) -> None:
        """Learn mean and deviation of every channel from float32 (M, C, …)."""
        flat = values.transpose(0, 1).flatten(1).double()
        self.mean.copy_(flat.mean(1))
        # A channel that hardly varies among the good images must not drown all others.
        deviation = flat.std(1)
        self.rate.copy_(1.0 / torch.maximum(deviation, 0.01 * deviation.mean() + 1e-12))

    def forward(self, values: Tensor) -> Tensor:
        """float32 (N, C, …) → the same shape."""
        shape = (1, -1, *[1] * (values.dim() - 2))
        return (values - self.mean.reshape(shape)) * self.rate.reshape(shape)


class LoweredGlow(nn.Module):
    """A flow of ``build_glow``, folded.

    Args:
        flow: flow in training form.
        lower: a trained subnet and the gains of its output channels, float64 (C,) → that subnet over levels, with
            the gains folded into its last layer.
        largest: see ``build_glow``.
    """

    def __init__(self, flow: Any, lower: Callable[[Any, Tensor], nn.Module], *, largest: float = math.inf) -> None:
        super().__init__()
        self.largest = largest
        blocks = list(flow.module_list)
        self.couplings = nn.ModuleList(
            GlowCoupling(block, permutation.perm.detach(), lower)
            for permutation, block in zip(blocks[::2], blocks[1::2], strict=True)
        )

    def forward(self, levels: Levels) -> Levels:
        """float32 (N, C, …) per level → z, the same shapes."""
        for coupling in self.couplings:
            levels = coupling(levels)
            if math.isfinite(self.largest):
                levels = tuple(level.clamp(-self.largest, self.largest) for level in levels)
        return levels


class GlowCoupling(nn.Module):
    """One permutation and one coupling block over levels.

    Only the nets are fit for fp16: the halves and their scales stay in float32.

    Args:
        block: FrEIA's GLOWCouplingBlock.
        order: which channel stands where after the permutation, int64 (C,).
        lower: see ``LoweredGlow``.
    """

    order: Tensor

    def __init__(self, block: Any, order: Tensor, lower: Callable[[Any, Tensor], nn.Module]) -> None:
        super().__init__()
        self.sizes = (int(block.split_len1), int(block.split_len2))
        self.gain = _ATAN_GAIN * float(block.clamp)
        first, second = self.sizes
        self.net1 = lower(block.subnet1, _gains(second, float(block.clamp)))
        self.net2 = lower(block.subnet2, _gains(first, float(block.clamp)))
        self.register_buffer("order", order.to(torch.int32))

    def forward(self, levels: Levels) -> Levels:
        """float32 (N, C, …) per level → the same shapes."""
        halves = [level.index_select(1, self.order).split(self.sizes, 1) for level in levels]
        first = tuple(half[0] for half in halves)
        second = tuple(half[1] for half in halves)
        first = self._affine(first, self.net2(second))
        second = self._affine(second, self.net1(first))
        return tuple(torch.cat(pair, 1) for pair in zip(first, second, strict=True))

    def _affine(self, levels: Levels, coefficients: Levels) -> Levels:
        moved = []
        for level, item in zip(levels, coefficients, strict=True):
            log_scale, shift = item.chunk(2, 1)
            moved.append(level * torch.exp(self.gain * torch.atan(log_scale)) + shift)
        return tuple(moved)


def _gains(num_active: int, clamp: float) -> Tensor:
    """1 / clamp for the s rows, 1 for the t rows: float64 (2 · num_active,)."""
    return torch.cat([torch.full((num_active,), 1.0 / clamp), torch.ones(num_active)]).double()


def folded(layer: Any, gains: Tensor) -> Any:
    """Return a frozen copy of a Linear or Conv2d with its output channels multiplied by gains, float64 (C_out,)."""
    copied = copy.deepcopy(layer).requires_grad_(False)
    shape = (-1, *[1] * (layer.weight.dim() - 1))
    copied.weight.copy_(layer.weight.detach().double() * gains.reshape(shape))
    copied.bias.copy_(layer.bias.detach().double() * gains)
    return copied
