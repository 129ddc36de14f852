"""FastFlow: a 2-D normalising flow on each feature map; likelihood per position.

Yu, Zheng, Wang, Li, Wu, Zhao, Wu: "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing
Flows", arXiv 2111.07677 (2021). There is no official code.

What differs, and why:

- Each map is normalised over (C, H, W) before its flow, as the public re-implementations do; by default without
  learned gains (``gains="learned"``), which the paper does not mention and which train less stably. So the extra
  parameters of wide_resnet50_2 are the flows' 41.34 M alone: 41.31 M of the subnets, and a scale and an offset per
  channel.
- All 500 epochs run and the last one is kept: the paper names no other, and no epoch is picked on test images.
- The loss is shown per dimension and minimised as its sum over dimensions, as in the public re-implementations. Adam
  does not see the difference, but the weight decay does, which is added to the gradient: beside a mean over 1.8 million
  values (wide_resnet50_2 at 256 px) it would outweigh what the likelihood asks of the flows' scales.
- The paper does not say which weights its backbones have. Those of the community's code are timm's
  (``racm_in1k`` of wide_resnet50_2), where most other methods have torchvision's.
- Kernel sizes alternate 3, 1, 3, 1, …; ``only_3x3`` gives the paper's variant for resnet18.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.graph import SmoothUpsample
from ..presets import Preset, of_table_4
from ..ranges import Count, NotNegative, Positive
from ..training.features import train_on_features
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import Optimisation
from .flows import LoweredFlow, build_flow

_STRIDES = (4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class FastFlowConfig(TrainedConfig):
    """Parameters of FastFlow.

    Attributes:
        steps: number of coupling blocks per map.
        clamp: bound of the log-scale of a coupling.
        hidden_ratio: width of a subnet's hidden layer as a share of its input's.
        only_3x3: True for 3×3 kernels in all subnets, False for 3×3 and 1×1 in turn.
        gains: ``"none"``, or ``"learned"`` for a gain and an offset of every value of the normalised maps, as anomalib
            and other re-implementations have.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        batch_size: images per step.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's weight decay.
    """

    backbone: str = "wide_resnet50_2.racm_in1k"
    steps: Count = 8
    clamp: Positive = 2.0
    hidden_ratio: Positive = 1.0
    only_3x3: bool = False
    gains: Literal["none", "learned"] = "none"
    epochs: Count = 500
    batch_size: Count = 32
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-5


def _subnet(config: FastFlowConfig, step: int) -> Callable[[int, int], nn.Module]:
    kernel = 3 if config.only_3x3 or step % 2 == 0 else 1

    def make(channels_in: int, channels_out: int) -> nn.Module:
        hidden = max(1, int(channels_in * config.hidden_ratio))
        return nn.Sequential(
            nn.Conv2d(channels_in, hidden, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(hidden, channels_out, kernel, padding=kernel // 2),
        )

    return make


class FastFlow(AbstractDetector[FastFlowConfig]):
    """FastFlow in its training form: FrEIA's flows."""

    config_class = FastFlowConfig
    paper = Preset(source="Yu et al. (2021); there is no code of the authors.")
    table4 = of_table_4(224)
    half_scopes = ("backbone", "head.flows.*.couplings")

    def __init__(self, config: FastFlowConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        self.sizes = self.backbone.map_sizes(config.crop_px)
        self.flows = nn.ModuleList(
            build_flow(
                channels, size, steps=config.steps, clamp=config.clamp, subnet=lambda step: _subnet(config, step)
            )
            for channels, size in zip(self.backbone.channels, self.sizes, strict=True)
        )
        is_learned = config.gains == "learned"
        self.gains = nn.ModuleList(
            _Gain(channels, size)
            for channels, size in zip(self.backbone.channels, self.sizes, strict=True)
            if is_learned
        )
        self.upsamples = nn.ModuleList(
            SmoothUpsample(size, config.crop_px, sigma=0.0, align_corners=False) for size in self.sizes
        )

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """192 px and small batches: a few hundred steps on a few dozen images."""
        quick = {"resize_px": 192, "crop_px": 192, "batch_size": 4, "epochs": 30, "keep": "best", "patience": 5}
        return super().quick_settings() | quick

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Maximise the likelihood of the good images' features."""
        config, device = self.config, context.device
        self.to(device)

        def features(batch: Tensor) -> tuple[Tensor, ...]:
            return tuple(normalise(item) for item in self.backbone(batch))

        fit_features = cache_features(features, images, device=device, progress=context.progress, stage="features")
        holdout_features = cache_features(
            features, holdout, device=device, progress=context.progress, stage="held-out features"
        )

        trained = nn.ModuleList([self.flows, self.gains]) if len(self.gains) else self.flows
        optimiser = torch.optim.Adam(trained.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        schedule = Schedule(
            epochs=config.epochs,
            batch_size=config.batch_size,
            patience=config.patience,
            keeps=config.keep,
            precision="bf16" if device.type == "cuda" else "fp32",
        )
        report = train_on_features(
            trained,
            Optimisation(optimiser=optimiser, factor=sum(item[0].numel() for item in fit_features)),
            loss=self.loss,
            fit_features=fit_features,
            holdout_features=holdout_features,
            schedule=schedule,
            context=context,
        )
        self.cpu()
        return report

    def loss(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Negative log-likelihood of normalised maps, mean over images and dimensions: scalar."""
        total, num_values = torch.zeros((), device=maps[0].device), 0
        for flow, item in zip(self.flows, gained(maps, self.gains), strict=True):
            z, log_jacobian = flow(item)
            total = total + (0.5 * z.float().square().sum((1, 2, 3)) - log_jacobian.float()).mean()
            num_values += item[0].numel()
        return total / num_values

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        maps = tuple(normalise(item) for item in self.backbone(images))
        energies = [
            flow(item)[0].square().mean(1) for flow, item in zip(self.flows, gained(maps, self.gains), strict=True)
        ]
        return likelihood_map(energies, self.upsamples)

    def lower(self) -> Deployed:
        """Flows without Jacobian, scales and permutations folded."""
        return Deployed(self.backbone, _Head(self), _Post(self))


def normalise(maps: Tensor) -> Tensor:
    """Layer normalisation over (C, H, W) without gains: float32 (N, C, h, w) → the same.

    The means are computed axis by axis: some engines sum a quarter of a million values one after the other in float32,
    and what that loses (4e-5 of the features were seen) the flow multiplies.
    """
    centred = maps - _mean(maps)
    return centred * torch.rsqrt(_mean(centred.square()) + 1e-5)


def _mean(maps: Tensor) -> Tensor:
    """Mean over all but the first axis, one axis at a time: (N, C, h, w) → (N, 1, 1, 1)."""
    return maps.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


def likelihood_map(energies: list[Tensor], upsamples: nn.ModuleList) -> tuple[Tensor, Tensor]:
    """Mean over maps of ``−exp(−E / 2)``, upsampled: score float32 (N,), anomaly_map float32 (N, H, W) in [−1, 0].

    Args:
        energies: mean over channels of z², float32 (N, h, w) per map.
        upsamples: one SmoothUpsample per map.
    """
    grown = [upsample(torch.exp(-0.5 * energy)) for upsample, energy in zip(upsamples, energies, strict=True)]
    anomaly_map = -torch.stack(grown).mean(0)
    return anomaly_map.amax((1, 2)), anomaly_map


class _Gain(nn.Module):
    """A gain and an offset of every value of a normalised map."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, *size))
        self.bias = nn.Parameter(torch.zeros(channels, *size))

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → the same."""
        return maps * self.weight + self.bias


def gained(maps: tuple[Tensor, ...], gains: nn.ModuleList) -> tuple[Tensor, ...]:
    """Apply learned gains to normalised maps; without gains they stay as they are."""
    return tuple(gain(item) for gain, item in zip(gains, maps, strict=True)) if len(gains) else maps


class _Normalise(nn.Module):
    """Layer normalisation of every map; statistics over up to a million values stay in fp32."""

    def __init__(self, gains: nn.ModuleList) -> None:
        super().__init__()
        self.gains = gains

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return gained(tuple(normalise(item) for item in maps), self.gains)


class _Head(nn.Module):
    """Feature maps → energies (N, h, w) per map."""

    def __init__(self, detector: FastFlow) -> None:
        super().__init__()
        self.norm = _Normalise(detector.gains)
        self.flows = nn.ModuleList(LoweredFlow(flow) for flow in detector.flows)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(flow(item) for flow, item in zip(self.flows, self.norm(maps), strict=True))


class _Post(nn.Module):
    """Energies → likelihoods, upsampled and averaged → score and anomaly map."""

    def __init__(self, detector: FastFlow) -> None:
        super().__init__()
        self.upsamples = detector.upsamples

    def forward(self, energies: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return likelihood_map(list(energies), self.upsamples)
