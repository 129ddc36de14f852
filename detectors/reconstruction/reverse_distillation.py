"""Reverse Distillation: a decoder restores the teacher's feature maps from a one-class bottleneck.

Deng, Li: "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, arXiv 2201.10703.

A frozen teacher gives three maps; the bottleneck fuses them (MFF) and compresses them (OCBE); the student, a mirrored
teacher, restores them. What the bottleneck never had to carry comes back wrong: one minus the cosine per position.

What differs, and why:

- Any timm CNN may teach. Where its finest map has 256 channels or more (the ResNet-50 family) the blocks are
  bottlenecks of half width, three of them in the OCBE and 3, 4, 6 in the student, as for wide_resnet50_2; elsewhere
  basic blocks, two each, as for resnet18. Where the teacher's map has negative values (EfficientNet's blocks end
  without an activation) the student's last block has no ReLU, with which it could not restore them. ``blocks``
  "teacher" counts and sizes the blocks as anomalib does.
- All 200 epochs of the paper run and the last one is kept. The authors' code evaluates on the test images every ten
  epochs; no epoch is picked on them here.
- Batch statistics are computed over training images under the weights of each evaluated epoch (see ``calibration``),
  not as running means, which lag behind at this learning rate.
- The teacher's features are computed once and kept: nothing is augmented.

fp16: teacher, bottleneck and student. The cosines are not: sums of squares over a thousand channels can pass 65504.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.linear import Border
from ...core.size import size_text
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.blocks import ConvNorm, conv_norm, fold
from ..nn.graph import SmoothUpsample
from ..ranges import Count, Positive
from ..training.features import train_on_features
from ..training.images import ImageSet
from ..training.schedules import Schedule, WarmCosine
from ..training.task import Optimisation

_STRIDES = (4, 8, 16)
_SIGMA = 4.0
_SMALLEST_NORM_SQUARED = 1e-16


@dataclass(frozen=True, kw_only=True)
class ReverseDistillationConfig(TrainedConfig):
    """Parameters of Reverse Distillation.

    Attributes:
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        batch_size: images per step.
        learning_rate: Adam's learning rate; its betas are the paper's (0.5, 0.999).
        anneals: let the learning rate warm up and fall by a cosine over ``epochs``; the paper keeps it constant.
        blocks: which blocks the student is made of: "paper", as the paper's for its two teachers, or "teacher", for a
            ResNet alone: in the decoder as many, of the same kind and width, as in the teacher's stages, and in the
            bottleneck embedding, where they are bottlenecks, of a quarter of its width.
        combination: what becomes of the levels' maps: "sum", as in the paper, or "product", smoothed after it.
        border: how the smoothing continues the map beyond its border; anomalib has ``"reflect"``.
    """

    epochs: Count = 200
    batch_size: Count = 16
    learning_rate: Positive = 5e-3
    anneals: bool = False
    blocks: Literal["paper", "teacher"] = "paper"
    combination: Literal["sum", "product"] = "sum"
    border: Border = "symmetric"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Number and kind of a student's blocks.

    Attributes:
        depths: number of blocks of each stage of the decoder, coarsest first.
        embedding_depth: number of blocks of the embedding.
        narrowing: how many times as narrow as its output a block of the decoder is between its 1×1 convolutions; 0 for
            basic blocks, which have none.
        embedding_narrowing: the same of the embedding.
    """

    depths: tuple[int, ...]
    embedding_depth: int
    narrowing: int
    embedding_narrowing: int


def _conv(channels_in: int, channels_out: int, kernel: int, *, change: str) -> nn.Conv2d | nn.ConvTranspose2d:
    """A convolution that keeps, halves ("down") or doubles ("up") the size."""
    if change == "up":
        return nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2, bias=False)
    stride = 2 if change == "down" else 1
    return nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """A residual block as in ResNet, or its mirror image.

    Args:
        channels_in: number of input channels.
        channels_out: number of output channels.
        change: change of the size: ``"keep"``, ``"down"`` (half) or ``"up"`` (twice).
        narrowing: for convolutions of 1×1, 3×3, 1×1, how many times as narrow as the output they are between; 0 for two
            of 3×3.
        is_signed: True for no ReLU at the end.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, change: str, narrowing: int, is_signed: bool = False
    ) -> None:
        super().__init__()
        if narrowing:
            width = channels_out // narrowing
            self.body = nn.Sequential(
                conv_norm(channels_in, width, 1),
                ConvNorm(_conv(width, width, 3, change=change), relu=True),
                conv_norm(width, channels_out, 1, relu=False),
            )
        else:
            self.body = nn.Sequential(
                ConvNorm(_conv(channels_in, channels_out, 3, change=change), relu=True),
                conv_norm(channels_out, channels_out, 3, relu=False),
            )
        changed = change != "keep" or channels_in != channels_out
        shortcut = _conv(channels_in, channels_out, 1, change=change)
        self.shortcut: nn.Module = ConvNorm(shortcut, relu=False) if changed else nn.Identity()
        self.activation = nn.Identity() if is_signed else nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → float32 (N, C', h', w')."""
        out: Tensor = self.activation(self.body(maps) + self.shortcut(maps))
        return out


def _stage(
    channels_in: int, channels_out: int, *, change: str, narrowing: int, depth: int, is_signed: bool = False
) -> nn.Sequential:
    blocks = []
    for number in range(depth):
        blocks.append(
            ResidualBlock(
                channels_in if number == 0 else channels_out,
                channels_out,
                change=change if number == 0 else "keep",
                narrowing=narrowing,
                is_signed=is_signed and number == depth - 1,
            )
        )
    return nn.Sequential(*blocks)


class Student(nn.Module):
    """Bottleneck and decoder: the teacher's maps in, the restored maps out.

    Args:
        channels: number of channels of each of the teacher's maps, finest first.
        signed: whether each map can hold negative values.
        blocks: number and kind of its blocks.
    """

    def __init__(self, channels: tuple[int, ...], *, signed: tuple[bool, ...], blocks: Blocks) -> None:
        super().__init__()
        coarsest = channels[-1]
        self.fusion = nn.ModuleList(
            nn.Sequential(*(ConvNorm(_conv(a, b, 3, change="down"), relu=True) for a, b in pairwise(channels[level:])))
            for level in range(len(channels) - 1)
        )
        wide = 2 * coarsest
        fused = len(channels) * coarsest
        self.embedding = _stage(
            fused, wide, change="down", narrowing=blocks.embedding_narrowing, depth=blocks.embedding_depth
        )
        steps = pairwise((wide, *reversed(channels)))
        self.decoder = nn.ModuleList(
            _stage(a, b, change="up", narrowing=blocks.narrowing, depth=depth, is_signed=is_signed)
            for (a, b), depth, is_signed in zip(steps, blocks.depths, reversed(signed), strict=True)
        )
        for item in self.modules():
            if isinstance(item, nn.Conv2d):
                nn.init.kaiming_normal_(item.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """float32 (N, C, h, w) per level, finest first → the same shapes."""
        fused = [module(item) for module, item in zip(self.fusion, maps[:-1], strict=True)]
        item = self.embedding(torch.cat([*fused, maps[-1]], 1))
        restored = []
        for stage in self.decoder:
            item = stage(item)
            restored.append(item)
        return tuple(restored[::-1])


class ReverseDistillation(AbstractDetector[ReverseDistillationConfig]):
    """Reverse Distillation in its training form."""

    config_class = ReverseDistillationConfig
    half_scopes = ("backbone", "head.student")

    def __init__(self, config: ReverseDistillationConfig) -> None:
        super().__init__(config)
        if any(side % 32 or side < 64 for side in config.crop_px):
            raise UsageError(
                f"reverse_distillation: crop_px is {size_text(config.crop_px)}; the maps are halved five times, so "
                "each side needs a multiple of 32, at least 64. Use such as 256x256 or 128x384."
            )
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        channels = self.backbone.channels
        blocks = paper_blocks(channels) if config.blocks == "paper" else teacher_blocks(self.backbone)
        self.student = Student(channels, signed=signed_maps(self.backbone), blocks=blocks)
        smoothed = partial(SmoothUpsample, size_out=config.crop_px, align_corners=True, border=config.border)
        # A sum may be smoothed before it is made, a product may not.
        is_sum = config.combination == "sum"
        self.upsamples = nn.ModuleList(
            smoothed(size, sigma=_SIGMA if is_sum else 0.0) for size in self.backbone.map_sizes(config.crop_px)
        )
        self.smooth = None if is_sum else smoothed(config.crop_px, sigma=_SIGMA)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Small batches and a falling learning rate: a few hundred steps on a few dozen images."""
        size = {"resize_px": 192, "crop_px": 192}
        return {**super().quick_settings(), **size, "batch_size": 4, "epochs": 32, "keep": "best", "anneals": True}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Teach the student to restore the good images' features."""
        config, device = self.config, context.device
        self.to(device)
        fit_features = cache_features(self.backbone, images, device=device, progress=context.progress, stage="features")
        holdout_features = cache_features(
            self.backbone, holdout, device=device, progress=context.progress, stage="held-out features"
        )

        optimiser = torch.optim.Adam(self.student.parameters(), config.learning_rate, betas=(0.5, 0.999))
        num_steps = config.epochs * -(-len(images) // config.batch_size)
        scheduler = WarmCosine(optimiser, num_steps=num_steps) if config.anneals else None
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = train_on_features(
            self.student,
            Optimisation(optimiser=optimiser, scheduler=scheduler),
            loss=lambda maps: distillation_loss(maps, self.student(maps)),
            fit_features=fit_features,
            holdout_features=holdout_features,
            schedule=schedule,
            context=context,
        )
        self.cpu()
        return report

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        maps = self.backbone(images)
        differences = [1.0 - F.cosine_similarity(a, b, 1) for a, b in zip(maps, self.student(maps), strict=True)]
        return score_and_map(differences, self.upsamples, self.smooth)

    def lower(self) -> Deployed:
        """Normalisations folded, transposed convolutions as 1×1 ones, cosines as products of norms."""
        return Deployed(self.backbone, _Head(self), _Post(self))


def paper_blocks(channels: tuple[int, ...]) -> Blocks:
    """Return the blocks for a teacher's maps of these numbers of channels, finest first."""
    if channels[0] >= 256:
        return Blocks(depths=(3, 4, 6), embedding_depth=3, narrowing=2, embedding_narrowing=2)
    return Blocks(depths=(2, 2, 2), embedding_depth=2, narrowing=0, embedding_narrowing=0)


def teacher_blocks(backbone: Backbone) -> Blocks:
    """Return blocks like the teacher's own.

    Raises:
        UsageError: the teacher is not made of a ResNet's blocks, or its convolutions are grouped.
    """
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    network: Any = backbone.network
    stages = [network.layer1, network.layer2, network.layer3] if isinstance(network, ResNet) else []
    kinds = {type(block) for stage in stages for block in stage}
    if kinds not in ({BasicBlock}, {Bottleneck}) or stages[0][0].conv2.groups != 1:
        raise UsageError(
            f"reverse_distillation: blocks is 'teacher' and the backbone a {type(network).__name__} whose blocks "
            "cannot be mirrored. Use one such as resnet34 or wide_resnet50_2, or blocks 'paper'."
        )
    depths = tuple(len(stage) for stage in stages)
    if kinds == {BasicBlock}:
        return Blocks(depths=depths, embedding_depth=2, narrowing=0, embedding_narrowing=0)
    narrowing = backbone.channels[0] // int(stages[0][0].conv1.out_channels)
    return Blocks(depths=depths, embedding_depth=3, narrowing=narrowing, embedding_narrowing=4)


def signed_maps(backbone: Backbone) -> tuple[bool, ...]:
    """Return whether each map can be negative: a property of the architecture, tested on noise with any weights."""
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return tuple(bool((item < 0).any()) for item in backbone(noise))


def distillation_loss(targets: tuple[Tensor, ...], restored: tuple[Tensor, ...]) -> Tensor:
    """Return the sum over levels of one minus the cosine between whole maps, as the mean over images: a scalar."""
    losses = [1.0 - F.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in zip(targets, restored, strict=True)]
    return torch.stack(losses).sum(0).mean()


def score_and_map(
    differences: Sequence[Tensor], upsamples: nn.ModuleList, smooth: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Levels upsampled, smoothed and added up, or multiplied: score float32 (N,), anomaly_map float32 (N, H, W).

    Args:
        differences: one minus the cosine of each level, float32 (N, h, w).
        upsamples: one SmoothUpsample per level; it smooths what will be added up.
        smooth: what smooths the product of the levels; None for their sum, a map in [0, 6].
    """
    grown = [upsample(item) for upsample, item in zip(upsamples, differences, strict=True)]
    anomaly_map = torch.stack(grown).sum(0) if smooth is None else smooth(reduce(torch.mul, grown))
    return anomaly_map.amax((1, 2)), anomaly_map


class _Cosine(nn.Module):
    """One minus the cosine over channels, from products and reciprocal norms."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        norms = first.square().sum(1), second.square().sum(1)
        inverse = [torch.rsqrt(item.clamp(min=_SMALLEST_NORM_SQUARED)) for item in norms]
        return 1.0 - (first * second).sum(1) * inverse[0] * inverse[1]


class _Head(nn.Module):
    """Teacher's maps → dissimilarity (N, h, w) per level."""

    def __init__(self, detector: ReverseDistillation) -> None:
        super().__init__()
        self.student = fold(detector.student)
        self.cosine = _Cosine()

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.cosine(a, b) for a, b in zip(maps, self.student(maps), strict=True))


class _Post(nn.Module):
    """Dissimilarities → anomaly map; its maximum → score."""

    def __init__(self, detector: ReverseDistillation) -> None:
        super().__init__()
        self.upsamples = detector.upsamples
        self.smooth = detector.smooth

    def forward(self, differences: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return score_and_map(differences, self.upsamples, self.smooth)
