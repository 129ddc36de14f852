"""Convolution blocks of the networks that are trained here, and what their batch normalisation needs.

The one training loop keeps parameters; running statistics would be a second, unsaved state. So they are made a
function of the parameters: ``recalibrate`` takes them anew, over fixed training images, before every evaluation. A
resumed run and the best epoch thereby have exactly the statistics that belong to their weights.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..base import FitContext
from ..training.trainer import Schedule, Trainer
from .batch_norm import as_affine

_CALIBRATION_IMAGES = 64


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, and a ReLU or none.

    Args:
        conv: Conv2d, or ConvTranspose2d with kernel 2 and stride 2.
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
    """A ConvNorm of stride 1 and equal size, without the bias that its normalisation would cancel."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    return ConvNorm(conv, relu=relu)


def recalibrate(module: nn.Module, run: Callable[[Any], Any], *, batches: Iterable[Any]) -> None:
    """Set the statistics of every batch normalisation to their mean over ``batches``, under the present weights.

    Args:
        module: left in evaluation mode.
        run: runs ``module`` on a batch.
        batches: at least one; best of equal sizes.
    """
    norms = [item for item in module.modules() if isinstance(item, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None makes torch take the plain mean over all batches.
        norm.momentum = None
    module.train()
    with torch.no_grad():
        for batch in batches:
            run(batch)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def train_on_features(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    loss: Callable[[tuple[Tensor, ...]], Tensor],
    known: list[Tensor],
    kept: list[Tensor],
    schedule: Schedule,
    context: FitContext,
) -> dict[str, Any]:
    """Train ``module`` on cached features, and leave it with its best epoch's weights and their statistics.

    Args:
        module: what is trained; on ``context.device`` already.
        optimiser: over its parameters.
        loss: features of a batch → mean loss over its images.
        known: features of the images to fit on, (num_images, …) each, on the CPU.
        kept: features of the held-out good images.
        schedule: length.
        context: seed, device, progress, state folder; the report that comes back is the trainer's.
    """

    def batch(features: list[Tensor], indices: Tensor) -> tuple[Tensor, ...]:
        return tuple(item[indices].to(context.device) for item in features)

    def calibrate() -> None:
        parts = calibration_parts(len(known[0]), schedule.batch_size)
        recalibrate(module, loss, batches=(batch(known, part) for part in parts))

    def holdout_loss() -> float:
        calibrate()
        parts = torch.arange(len(kept[0])).split(schedule.batch_size)
        with torch.no_grad():
            return sum(float(loss(batch(kept, part))) * len(part) for part in parts) / len(kept[0])

    trainer = Trainer(module, optimiser, schedule=schedule, context=context)
    report = trainer.run(len(known[0]), loss=lambda indices: loss(batch(known, indices)), holdout_loss=holdout_loss)
    calibrate()
    return report


def calibration_parts(num_images: int, batch_size: int) -> Iterator[Tensor]:
    """Indices of at most 64 images, evenly spread, in batches of equal size."""
    count = min(num_images, _CALIBRATION_IMAGES)
    spread = torch.arange(count) * num_images // count
    size = min(batch_size, count)
    return iter(spread[: count // size * size].split(size))


def fold(module: nn.Module) -> nn.Module:
    """A copy of ``module`` in which every ConvNorm is one plain convolution, folded in float64.

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
    """A Conv2d with these weights, with the stride and padding of ``conv``, or 1 and 0."""
    out_channels, in_channels, height, width = weight.shape
    stride, padding = (conv.stride, conv.padding) if conv is not None else (1, 0)
    made = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight)
        if made.bias is not None and bias is not None:
            made.bias.copy_(bias)
    return made.requires_grad_(False)
