"""CS-Flow: one fully convolutional normalising flow over three scales of features, coupled across scales.

Rudolph, Wehrbein, Rosenhahn, Wandt: "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection", WACV
2022, arXiv 2110.02855.

Features are the last map of EfficientNet-B5 before its last stage (block 35: 304 channels, stride 32) of the image at
768 px and of its strided slices at 384 and 192 px. The score is the mean over all scales, channels and positions of
z² / 2.

What differs, and why:

- Other backbones and sizes are possible: the last map at ``stride``. Of an EfficientNet at stride 32, as in the paper,
  the last stage, which only widens the map, is left out.
- The three scales, flattened and put side by side, go through FrEIA's own coupling block. So one permutation of the
  channels serves all scales, where the original draws one per scale: a channel is the same filter at every scale.
- The original cuts what leaves a block to ±10⁶, which no good image reaches: left out, unless ``largest`` says so.
- All 240 epochs (the authors' 4 × 60) run and the last one is kept. The authors report the epoch that was best on the
  test images; no epoch is picked on them here.
- The anomaly map, the mean over channels of z² at the finest scale, upsampled bilinearly, is weak: coarse, and in the
  paper an illustration only. ``combination`` "product" multiplies the maps of the three scales, as anomalib does.

In fp16 the backbone and the subnets' convolutions compute in half precision. The stream of x, atan, exp and all
means stay in fp32: four blocks multiply it by up to exp(3) each, and the score is a mean over 10⁵ squares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size, size_text
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.batch_norm import fold_batch_norm
from ..nn.graph import SmoothUpsample
from ..presets import Preset, of_table_4
from ..ranges import Count, NotNegative, Positive
from ..training.features import train_on_features
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import Optimisation
from .cross_scale import CrossScale, LoweredCrossScale
from .glow import (
    NUM_SCALES,
    Levels,
    LoweredGlow,
    Sizes,
    Standardise,
    build_glow,
    glow_loss,
    pack,
    pyramid_maps,
    unpack,
)

#: Gradients are no longer than this, as in the paper.
LARGEST_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class CsFlowConfig(TrainedConfig):
    """Parameters of CS-Flow.

    Attributes:
        backbone: name of the network in timm; the default was trained on ImageNet alone, with AutoAugment.
        stride: down-scale factor of the features; each side of ``crop_px`` must be a multiple of four times this.
        steps: number of coupling blocks.
        clamp: bound of the log-scale of a coupling.
        largest: what leaves a coupling block is cut to ± this; 0 cuts nothing. The authors and anomalib cut at 1e6.
            Images unlike any in the training can reach it, and then their scores are those of the cut values.
        hidden_channels: number of hidden channels of a subnet, per scale.
        kernel: kernel size of the subnets' convolutions in all blocks but the last, odd.
        last_kernel: kernel size of the subnets' convolutions in the last block, odd.
        standardises: give every channel mean 0 and deviation 1 before the flow; the paper does not.
        combination: which scales' mean squares make the map: "finest", that scale's alone, or "product", those of all
            three, upsampled and multiplied.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        batch_size: images per step.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's weight decay.
    """

    backbone: str = "tf_efficientnet_b5.aa_in1k"
    resize_px: Size = (768, 768)
    crop_px: Size = (768, 768)
    stride: Count = 32
    steps: Count = 4
    clamp: Positive = 3.0
    largest: NotNegative = 0.0
    hidden_channels: Count = 1024
    kernel: Count = 3
    last_kernel: Count = 5
    standardises: bool = False
    combination: Literal["finest", "product"] = "finest"
    epochs: Count = 240
    batch_size: Count = 16
    learning_rate: Positive = 2e-4
    weight_decay: NotNegative = 1e-5


class CsFlow(AbstractDetector[CsFlowConfig]):
    """CS-Flow in its training form: FrEIA's flow over packed scales."""

    config_class = CsFlowConfig
    paper = Preset(source="Rudolph et al. (2022) and their code, whose 240 epochs are 4 of 60.")
    table4 = of_table_4(768)

    def __init__(self, config: CsFlowConfig) -> None:
        super().__init__(config)
        self.sizes = _sizes(config)
        self.backbone = _backbone(config)
        # The score is a mean over everything: rounding in the backbone's first stages would move it as a whole.
        late = (f"backbone.network.{path}" for path in self.backbone.late_stages())
        self.half_scopes = (*late, "head.flow.couplings.*.net1", "head.flow.couplings.*.net2")
        self.standardise = Standardise(self.backbone.channels[0])
        self.flow: Any = build_glow(
            self.backbone.channels[0],
            sum(math.prod(size) for size in self.sizes),
            steps=config.steps,
            clamp=config.clamp,
            subnet=lambda step: partial(
                CrossScale,
                hidden=config.hidden_channels,
                kernel=config.last_kernel if step == config.steps - 1 else config.kernel,
                sizes=self.sizes,
            ),
            largest=config.largest or math.inf,
        )
        # The finest scale's stands alone, under the name that it has in checkpoints.
        finest, *coarser = (SmoothUpsample(size, config.crop_px, sigma=0.0, align_corners=False) for size in self.sizes)
        self.upsample = finest
        self.coarser = nn.ModuleList(coarser if config.combination == "product" else [])

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Narrower 1×1 subnets, which still mix scales; standardised features; large steps on small batches."""
        small = {"resize_px": 512, "crop_px": 512, "hidden_channels": 192, "kernel": 1, "last_kernel": 1}
        fast = {
            "standardises": True,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "epochs": 80,
            "keep": "best",
            "patience": 10,
        }
        return {**super().quick_settings(), **small, **fast}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Maximise the likelihood of the good images' features."""
        config, device = self.config, context.device
        self.to(device)

        def features(batch: Tensor) -> tuple[Tensor]:
            return (pack(pyramid_maps(self.backbone, batch)),)

        (fit_features,) = cache_features(features, images, device=device, progress=context.progress, stage="features")
        (holdout_features,) = cache_features(
            features, holdout, device=device, progress=context.progress, stage="held-out features"
        )

        if config.standardises:
            self.standardise.learn(fit_features)
        parameters = [item for item in self.flow.parameters() if item.requires_grad]
        optimiser = torch.optim.Adam(parameters, config.learning_rate, eps=1e-4, weight_decay=config.weight_decay)
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = train_on_features(
            self.flow,
            Optimisation(optimiser=optimiser, largest_norm=LARGEST_NORM),
            loss=lambda features: glow_loss(self.flow, self.standardise(features[0])),
            fit_features=[fit_features],
            holdout_features=[holdout_features],
            schedule=schedule,
            context=context,
        )
        self.cpu()
        return report

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        z, _ = self.flow(self.standardise(pack(pyramid_maps(self.backbone, images))))
        energies = tuple(item.square().mean(1) for item in unpack(z, self.sizes))
        return score_and_map(energies, [self.upsample, *self.coarser])

    def lower(self) -> Deployed:
        """Flow without Jacobian or packing; γ, clamp and the sums over scales folded into the convolutions."""
        return Deployed(_Pyramid(self.backbone), _Head(self), _Post(self))


def _sizes(config: CsFlowConfig) -> Sizes:
    """Height and width of the map per scale, finest first: each side twice the next, or both 1."""
    height, width = config.crop_px
    if any(side % config.stride or not _halves(side // config.stride) for side in config.crop_px):
        raise UsageError(
            f"crop_px is {size_text(config.crop_px)}; csflow halves maps of stride {config.stride} twice, so expected "
            f"multiples of {4 * config.stride}. Set crop_px and resize_px to such, or a smaller stride."
        )
    strides = [config.stride << scale for scale in range(NUM_SCALES)]
    return tuple((max(1, height // stride), max(1, width // stride)) for stride in strides)


def _halves(side: int) -> bool:
    """Whether a side of the finest map can be halved twice, a single position staying one."""
    return side in (1, 2) or side % 4 == 0


def _backbone(config: CsFlowConfig) -> Backbone:
    """Return a backbone with the last map at the stride; of an EfficientNet at stride 32, without its last stage."""
    from timm.models import EfficientNet

    backbone = Backbone(config.backbone, config.weights, strides=(config.stride,))
    network: Any = backbone.network
    if isinstance(network, EfficientNet) and config.stride == 32:
        network.blocks[-1] = nn.Identity()
        with torch.no_grad():
            backbone.channels = (int(backbone(torch.zeros(1, 3, 64, 64))[0].shape[1]),)
    return backbone


def score_and_map(energies: Levels, upsamples: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """Half the mean of z², and the product of the scales' maps: score float32 (N,), anomaly_map float32 (N, H, W).

    Args:
        energies: mean over channels of z², float32 (N, h, w) per scale, finest first.
        upsamples: SmoothUpsample of each scale that is part of the map, finest first.
    """
    score = 0.5 * torch.cat([energy.flatten(1) for energy in energies], 1).mean(1)
    maps = [upsample(energy) for upsample, energy in zip(upsamples, energies, strict=False)]
    return score, reduce(torch.mul, maps)


class _Pyramid(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = fold_batch_norm(backbone, torch.zeros(1, 3, 64, 64))

    def forward(self, images: Tensor) -> Levels:
        return pyramid_maps(self.network, images)


class _Head(nn.Module):
    """Feature maps → energies (N, h, w) per scale."""

    def __init__(self, detector: CsFlow) -> None:
        super().__init__()
        self.standardise = detector.standardise
        self.flow = LoweredGlow(detector.flow, LoweredCrossScale, largest=detector.config.largest or math.inf)

    def forward(self, maps: Levels) -> Levels:
        z = self.flow(tuple(self.standardise(item) for item in maps))
        return tuple(item.square().mean(1) for item in z)


class _Post(nn.Module):
    def __init__(self, detector: CsFlow) -> None:
        super().__init__()
        self.upsamples = nn.ModuleList([detector.upsample, *detector.coarser])

    def forward(self, energies: Levels) -> tuple[Tensor, Tensor]:
        return score_and_map(energies, list(self.upsamples))
