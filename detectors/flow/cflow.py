"""CFlow: a normalising flow per pyramid level over single feature vectors, conditioned on their position.

Gudovskiy, Ishizaka, Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
Normalizing Flows", WACV 2022, arXiv 2107.12571.

What differs, and why:

- The authors' code turns log-likelihoods into probabilities with the largest value of the whole test set. Here
  each level's largest value over the training features is a constant, and likelier vectors count as probability 1:
  ``p = exp(min(log-likelihood − ceiling, 0))``. So a score never depends on other frames, and needs no test data.
  The map is the sum over levels of ``1 − p``, upsampled, in [0, num_levels].
- All 200 epochs (the authors' 25 × 8) run and the last one is kept. The authors report, of each metric, the epoch that
  was best on the test images; no epoch is picked on them here.
- Features are computed once, so there is no rotation of training images by up to 5°. The vectors of each
  level are dealt out over all images at random, 256 to a step (the authors: within 32 images); the order of the
  steps is drawn anew in each epoch.
- One input size, 256×256, for every class; the authors picked 128, 256 or 512 per class.

In fp16 are the backbone and, of the flows, the convolutions and what stands between them. Exp, the sums over
channels (squares, log-scales), likelihoods and map stay in fp32: an exponent would lose its digits in fp16.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.graph import SmoothUpsample
from ..training.images import ImageSet
from ..training.schedules import Schedule, WarmCosine
from ..training.task import BatchSource, Draw, LossTask, Optimisation
from ..training.trainer import Trainer
from .flows import LoweredConditionalFlow, build_conditional_flow, draw_rotations

_STRIDES = (8, 16, 32)
_CODE_DIM = 128
_VECTORS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class CFlowConfig(TrainedConfig):
    """Parameters of CFlow.

    Attributes:
        num_levels: number of maps of strides 8, 16, 32 that are used, finest first; 1 to 3.
        steps: number of coupling blocks per level.
        clamp: bound of the log-scale of a coupling.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        vectors_per_step: number of feature vectors of one level per step.
        learning_rate: Adam's highest learning rate, after the warm-up.
        is_standardised: give every channel of the training features mean 0 and variance 1 first. The authors do
            not; it saves most of the epochs where features are large, as those of tf_efficientnet_lite0 are.
    """

    num_levels: int = 3
    steps: int = 8
    clamp: float = 1.9
    epochs: int = 200
    vectors_per_step: int = 256
    learning_rate: float = 2e-4
    is_standardised: bool = False


def position_code(size: Size) -> Tensor:
    """Sinusoidal code of every position: float32 (128, *size), 64 channels of x, then 64 of y.

    Channels 2k and 2k + 1 of a half are the sine and cosine of the position times ``10000 ** (−2k / 64)``.
    """
    half = _CODE_DIM // 2
    frequencies = torch.exp(torch.arange(0, half, 2, dtype=torch.float64) * (-math.log(1e4) / half))
    height, width = size

    def waves(count: int) -> Tensor:
        angles = frequencies[:, None] * torch.arange(count, dtype=torch.float64)
        return torch.stack([angles.sin(), angles.cos()], 1).flatten(0, 1)

    x, y = waves(width)[:, None, :], waves(height)[:, :, None]
    return torch.cat([x.expand(-1, height, -1), y.expand(-1, -1, width)]).float()


def _subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 2 * channels_in), nn.ReLU(), nn.Linear(2 * channels_in, channels_out))


class _Standardise(nn.Module):
    """``(x − centre) · scale`` per channel of each level; in fp32, as a channel may hardly vary."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        for level, count in enumerate(channels):
            self.register_buffer(f"centre{level}", torch.zeros(count, 1, 1))
            self.register_buffer(f"scale{level}", torch.ones(count, 1, 1))

    def learn(self, features: list[Tensor]) -> None:
        """Learn mean and deviation from vectors (num_images, h·w, C) per level, and standardise them in place."""
        for level, vectors in enumerate(features):
            deviation, mean = torch.std_mean(vectors.flatten(0, 1), 0)
            # A channel that never varies, as behind a dead ReLU, is only centred.
            scale = torch.where(deviation > 1e-6, 1.0 / deviation, torch.ones(()))
            self.get_buffer(f"centre{level}").copy_(mean[:, None, None])
            self.get_buffer(f"scale{level}").copy_(scale[:, None, None])
            vectors.sub_(mean).mul_(scale)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            (item - self.get_buffer(f"centre{level}")) * self.get_buffer(f"scale{level}")
            for level, item in enumerate(maps)
        )


class CFlow(AbstractDetector[CFlowConfig]):
    """CFlow in its training form: FrEIA's flows over vectors.

    Attributes:
        ceilings: largest log-likelihood per dimension of each level over the training features, float32 (levels,).
    """

    config_class = CFlowConfig
    half_scopes = ("backbone", "head.flows.*.couplings")
    ceilings: Tensor

    def __init__(self, config: CFlowConfig) -> None:
        super().__init__(config)
        if not 1 <= config.num_levels <= len(_STRIDES):
            raise UsageError(f"num_levels is {config.num_levels}; expected 1 to {len(_STRIDES)}.")
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES[: config.num_levels])
        self.sizes = self.backbone.map_sizes(config.crop_px)
        self.flows = nn.ModuleList(
            build_conditional_flow(channels, _CODE_DIM, steps=config.steps, clamp=config.clamp, subnet=_subnet)
            for channels in self.backbone.channels
        )
        self.upsamples = nn.ModuleList(
            SmoothUpsample(size, config.crop_px, sigma=0.0, align_corners=True) for size in self.sizes
        )
        self.standardise = _Standardise(self.backbone.channels) if config.is_standardised else nn.Identity()
        for level, size in enumerate(self.sizes):
            self.register_buffer(f"codes{level}", position_code(size).flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("ceilings", torch.zeros(config.num_levels))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """A few epochs with larger steps on standardised features; a map of 4 × 4 has too few vectors to learn from."""
        quick = {
            "num_levels": 2,
            "epochs": 16,
            "keep": "best",
            "patience": 4,
            "learning_rate": 2e-3,
            "is_standardised": True,
        }
        return {**super().quick_settings(), **quick}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Maximise the likelihood of the good images' feature vectors, then set the ceilings."""
        config = self.config
        generator = torch.Generator().manual_seed(context.seed)
        for flow in self.flows:
            draw_rotations(flow, generator)
        self.to(context.device)
        fit_features = self._cache(images, context, "features")
        if isinstance(self.standardise, _Standardise):
            self.standardise.learn(fit_features)
        holdout_features = self._cache(holdout, context, "held-out features")
        steps = _draw_steps([item.shape[:2].numel() for item in fit_features], config.vectors_per_step, generator)
        optimiser = torch.optim.Adam(self.flows.parameters(), config.learning_rate)
        scheduler = WarmCosine(optimiser, num_steps=config.epochs * len(steps))
        task = LossTask(
            self.flows,
            Optimisation(optimiser=optimiser, scheduler=scheduler),
            source=_LevelVectors(fit_features, steps),
            loss=lambda batch: -F.logsigmoid(self.log_likelihood(*batch)).mean(),
            holdout_loss=lambda: self._mean_loss(holdout_features),
        )
        schedule = Schedule(epochs=config.epochs, batch_size=1, patience=config.patience, keeps=config.keep)
        report = Trainer(task, schedule=schedule, context=context).run()
        for level, vectors in enumerate(fit_features):
            self.ceilings[level] = self._likelihoods(level, vectors).max()
        self.cpu()
        return {**report, "steps_per_epoch": len(steps), "ceilings": self.ceilings.tolist()}

    def _cache(self, images: ImageSet, context: FitContext, stage: str) -> list[Tensor]:
        """Feature vectors per level, float32 (num_images, h·w, C)."""
        return cache_features(
            lambda batch: tuple(item.flatten(2).transpose(1, 2) for item in self.standardise(self.backbone(batch))),
            images,
            device=context.device,
            progress=context.progress,
            stage=stage,
        )

    def log_likelihood(self, level: int, vectors: Tensor, positions: Tensor) -> Tensor:
        """Log-likelihood over C of float32 vectors (V, C) at positions int64 (V,), row-major: float32 (V,)."""
        codes = self.get_buffer(f"codes{level}")
        z, log_jacobian = self.flows[level](vectors.to(codes.device), c=[codes[positions.to(codes.device)]])
        likelihood: Tensor = (log_jacobian - 0.5 * z.square().sum(1)) / z.shape[1] - 0.5 * math.log(2.0 * math.pi)
        return likelihood

    def _likelihoods(self, level: int, vectors: Tensor) -> Tensor:
        """Log-likelihoods of vectors (num_images, h·w, C), some images at a time: (num_images · h·w,)."""
        positions, likelihoods = torch.arange(vectors.shape[1]), []
        for part in vectors.split(max(1, _VECTORS_AT_ONCE // len(positions))):
            with torch.no_grad():
                likelihoods.append(self.log_likelihood(level, part.flatten(0, 1), positions.repeat(len(part))))
        return torch.cat(likelihoods)

    def _mean_loss(self, holdout_features: list[Tensor]) -> float:
        losses = [
            -F.logsigmoid(self._likelihoods(level, vectors)).mean() for level, vectors in enumerate(holdout_features)
        ]
        return float(torch.stack(losses).mean())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        likelihoods = []
        for level, (size, maps) in enumerate(zip(self.sizes, self.standardise(self.backbone(images)), strict=True)):
            vectors = maps.permute(0, 2, 3, 1).flatten(0, 2)
            positions = torch.arange(math.prod(size)).repeat(len(images))
            likelihoods.append(self.log_likelihood(level, vectors, positions).view(-1, *size))
        return improbability_map(likelihoods, self.ceilings, self.upsamples)

    def lower(self) -> Deployed:
        """Flows as 1×1 convolutions with the position baked in."""
        return Deployed(self.backbone, _Head(self), _Post(self))


def improbability_map(likelihoods: list[Tensor], ceilings: Tensor, upsamples: nn.ModuleList) -> tuple[Tensor, Tensor]:
    """Sum over levels of ``1 − p``, upsampled: score float32 (N,), anomaly_map float32 (N, H, W) in [0, levels].

    Args:
        likelihoods: log-likelihood per dimension of each level, float32 (N, h, w).
        ceilings: log-likelihood of each level that counts as p = 1, float32 (levels,).
        upsamples: one SmoothUpsample per level.
    """
    grown = [
        upsample(1.0 - torch.exp(torch.clamp(likelihood - ceilings[level], max=0.0)))
        for level, (upsample, likelihood) in enumerate(zip(upsamples, likelihoods, strict=True))
    ]
    anomaly_map = torch.stack(grown).sum(0)
    return anomaly_map.amax((1, 2)), anomaly_map


def _draw_steps(num_vectors: list[int], size: int, generator: torch.Generator) -> list[tuple[int, Tensor]]:
    """Deal out all vectors of all levels at random, ``size`` to a step; return level and indices of each step."""
    return [
        (level, indices)
        for level, count in enumerate(num_vectors)
        for indices in torch.randperm(count, generator=generator).split(size)
    ]


@final
class _LevelVectors(BatchSource[tuple[int, Tensor, Tensor]]):
    """Batches of one level's vectors: the level, float32 (V, C), positions int64 (V,).

    Args:
        fit_features: vectors (num_images, h·w, C) per level.
        steps: level and indices into its num_images · h·w vectors, of each step.
    """

    def __init__(self, fit_features: list[Tensor], steps: list[tuple[int, Tensor]]) -> None:
        self._features = fit_features
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, draw: Draw) -> tuple[int, Tensor, Tensor]:
        level, indices = self._steps[int(draw.indices)]
        vectors = self._features[level]
        return level, vectors.flatten(0, 1)[indices], indices % vectors.shape[1]


class _Head(nn.Module):
    """Feature maps → log-likelihoods (N, h, w) per level."""

    def __init__(self, detector: CFlow) -> None:
        super().__init__()
        self.standardise = detector.standardise
        self.flows = nn.ModuleList(
            LoweredConditionalFlow(flow, position_code(size))
            for flow, size in zip(detector.flows, detector.sizes, strict=True)
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(flow(item) for flow, item in zip(self.flows, self.standardise(maps), strict=True))


class _Post(nn.Module):
    """Log-likelihoods → improbabilities, upsampled and added up → score and anomaly map."""

    ceilings: Tensor

    def __init__(self, detector: CFlow) -> None:
        super().__init__()
        self.register_buffer("ceilings", detector.ceilings)
        self.upsamples = detector.upsamples

    def forward(self, likelihoods: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return improbability_map(list(likelihoods), self.ceilings, self.upsamples)
