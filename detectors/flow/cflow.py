"""CFlow: a normalising flow per pyramid level over single feature vectors, conditioned on their position.

Gudovskiy, Ishizaka, Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
Normalizing Flows", WACV 2022, arXiv 2107.12571.

What differs, and why:

- The authors' code turns log-likelihoods into probabilities with the largest value of the whole test set. Here
  each level's largest value over the training features is a constant, and likelier vectors count as probability 1:
  ``p = exp(min(log-likelihood − ceiling, 0))``. So a score never depends on other frames, and needs no test data.
  The map is the sum over levels of ``1 − p``, upsampled, in [0, num_levels]. ``likeliest`` "image" compares each
  image with its own likeliest vectors instead: so anomalib, given one image at a time, scores it.
- All 200 epochs (the authors' 25 × 8) run and the last one is kept. The authors report, of each metric, the epoch that
  was best on the test images; no epoch is picked on them here.
- As in the authors' code every image is turned by up to 5° to either side, anew in each epoch, and the vectors of 32
  images are dealt out at random, level by level, 256 to a step, what is left over being left out. Their loader drops
  the last images where they are fewer than 32; here they are a smaller batch. ``rotation_deg`` 0 turns no image and
  computes the features once.
- The input size is 256×256 where the category is none of MVTec AD; of these the preset ``paper`` has the authors' size
  (128, 256 or 512), which they picked per class.

In fp16 are the backbone and, of the flows, the convolutions and what stands between them. Exp, the sums over
channels (squares, log-scales), likelihoods and map stay in fp32: an exponent would lose its digits in fp16.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.graph import SmoothUpsample
from ..presets import Preset, of_table_4
from ..ranges import Count, Degrees, Positive, Range
from ..training.devices import full_precision, moved
from ..training.images import ImageSet
from ..training.schedules import Schedule, WarmCosine
from ..training.task import BatchSource, Optimisation
from ..training.trainer import Trainer
from .flows import LoweredConditionalFlow, build_conditional_flow, draw_rotations
from .vectors import CachedVectors, DrawnVectors, StandardiseLevels, TurnedImages, VectorTask, num_steps

_STRIDES = (8, 16, 32)
_CODE_DIM = 128
#: Side of the square input in pixels, by category of MVTec AD, as the authors' code lists them.
_SIZES_PX = {
    128: ("transistor",),
    256: ("cable", "capsule", "hazelnut", "metal_nut", "pill"),
    512: ("bottle", "carpet", "grid", "leather", "screw", "tile", "toothbrush", "wood", "zipper"),
}
_IMAGES_AT_ONCE = 16
_VECTORS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class CFlowConfig(TrainedConfig):
    """Parameters of CFlow.

    Attributes:
        num_levels: number of maps of strides 8, 16, 32 that are used, finest first; 1 to 3.
        steps: number of coupling blocks per level.
        clamp: bound of the log-scale of a coupling.
        batch_size: images whose vectors are dealt out together.
        rotation_deg: largest angle by which training images are turned to either side; 0 turns none.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        vectors_per_step: number of feature vectors of one level per step.
        learning_rate: Adam's highest learning rate, after the warm-up.
        is_standardised: give every channel of the training features mean 0 and variance 1 first. The authors do
            not; it saves most of the epochs where features are large, as those of tf_efficientnet_lite0 are.
        likeliest: what counts as probability 1: "training", each level's likeliest vector of the training images, or
            "image", that of the image itself. With "image" the map says how much less likely than the image's
            likeliest position each position is: an image that is wrong everywhere looks like a good one.
    """

    num_levels: Annotated[int, Range(low=1, high=3)] = 3
    steps: Count = 8
    clamp: Positive = 1.9
    epochs: Count = 200
    batch_size: Count = 32
    rotation_deg: Degrees = 5.0
    vectors_per_step: Count = 256
    learning_rate: Positive = 2e-4
    is_standardised: bool = False
    likeliest: Literal["training", "image"] = "training"


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


class CFlow(AbstractDetector[CFlowConfig]):
    """CFlow in its training form: FrEIA's flows over vectors.

    Attributes:
        ceilings: largest log-likelihood per dimension of each level over the training features, float32 (levels,);
            unused where an image's own likeliest vectors take their place.
    """

    config_class = CFlowConfig
    paper = Preset(
        source="Gudovskiy et al. (2022) and their code: 25 of 8 epochs, and its input size per category.",
        by_category={
            category: {"resize_px": side, "crop_px": side}
            for side, categories in _SIZES_PX.items()
            for category in categories
        },
    )
    table4 = of_table_4(224)
    half_scopes = ("backbone", "head.flows.*.couplings")
    ceilings: Tensor

    def __init__(self, config: CFlowConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES[: config.num_levels])
        self.sizes = self.backbone.map_sizes(config.crop_px)
        self.flows = nn.ModuleList(
            build_conditional_flow(channels, _CODE_DIM, steps=config.steps, clamp=config.clamp, subnet=_subnet)
            for channels in self.backbone.channels
        )
        self.upsamples = nn.ModuleList(
            SmoothUpsample(size, config.crop_px, sigma=0.0, align_corners=True) for size in self.sizes
        )
        self.standardise = StandardiseLevels(self.backbone.channels) if config.is_standardised else nn.Identity()
        for level, size in enumerate(self.sizes):
            self.register_buffer(f"codes{level}", position_code(size).flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("ceilings", torch.zeros(config.num_levels))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """A few epochs with larger steps on standardised features; a map of 4 × 4 has too few vectors to learn from."""
        quick = {
            "num_levels": 2,
            "rotation_deg": 0.0,
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
        source = self._source(images, context)
        holdout_features = self._cache(holdout, context, "held-out features")
        counts = [math.prod(size) for size in self.sizes]
        steps = num_steps(len(images), config.batch_size, counts=counts, per_step=config.vectors_per_step)
        optimiser = torch.optim.Adam(self.flows.parameters(), config.learning_rate)
        scheduler = WarmCosine(optimiser, num_steps=config.epochs * steps)
        task = VectorTask(
            self.flows,
            Optimisation(optimiser=optimiser, scheduler=scheduler),
            source=source,
            features=self.vectors if config.rotation_deg else None,
            loss=lambda *vectors: -F.logsigmoid(self.log_likelihood(*vectors)).mean(),
            holdout_loss=lambda: self._mean_loss(holdout_features),
        )
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = Trainer(task, schedule=schedule, context=context).run()
        self._set_ceilings(images, context.device)
        self.cpu()
        return {**report, "steps_per_epoch": steps, "ceilings": self.ceilings.tolist()}

    def _source(self, images: ImageSet, context: FitContext) -> BatchSource[DrawnVectors]:
        """Return the batches, and learn the standardisation where there is one."""
        config, per_step = self.config, self.config.vectors_per_step
        is_standardised = isinstance(self.standardise, StandardiseLevels)
        features = self._cache(images, context, "features") if is_standardised or not config.rotation_deg else []
        if isinstance(self.standardise, StandardiseLevels):
            self.standardise.learn(features)
        if not config.rotation_deg:
            return CachedVectors(features, per_step)
        black = [-mean / std for mean, std in zip(*self.normalisation, strict=True)]
        return TurnedImages(
            images, config.crop_px, largest_deg=config.rotation_deg, black=black, sizes=self.sizes, per_step=per_step
        )

    def _set_ceilings(self, images: ImageSet, device: torch.device) -> None:
        """Set the largest log-likelihood of each level over the training images, none of them turned."""
        self.ceilings.fill_(-math.inf)
        for part in torch.arange(len(images)).split(_IMAGES_AT_ONCE):
            with torch.no_grad(), full_precision():
                levels = self.vectors(moved(images.batch(part.tolist()), device))
                highest = [self._likelihoods(level, vectors).max() for level, vectors in enumerate(levels)]
            self.ceilings = torch.maximum(self.ceilings, torch.stack(highest))

    def vectors(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images float32 (N, 3, H, W) → feature vectors per level, float32 (N, h·w, C)."""
        return tuple(item.flatten(2).transpose(1, 2) for item in self.standardise(self.backbone(images)))

    @property
    def fixed_ceilings(self) -> Tensor | None:
        """The ceilings, or None where each image has its own."""
        return self.ceilings if self.config.likeliest == "training" else None

    def _cache(self, images: ImageSet, context: FitContext, stage: str) -> list[Tensor]:
        """Feature vectors per level, float32 (num_images, h·w, C)."""
        return cache_features(self.vectors, images, device=context.device, progress=context.progress, stage=stage)

    def log_likelihood(self, level: int, vectors: Tensor, positions: Tensor) -> Tensor:
        """Log-likelihood over C of float32 vectors (V, C) at positions int64 (V,), row-major: float32 (V,)."""
        codes = self.get_buffer(f"codes{level}")
        vectors, positions = moved((vectors, positions), codes.device)
        z, log_jacobian = self.flows[level](vectors, c=[codes[positions]])
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
        return improbability_map(likelihoods, self.fixed_ceilings, self.upsamples)

    def lower(self) -> Deployed:
        """Flows as 1×1 convolutions with the position baked in."""
        return Deployed(self.backbone, _Head(self), _Post(self))


def improbability_map(
    likelihoods: Sequence[Tensor], ceilings: Tensor | None, upsamples: nn.ModuleList
) -> tuple[Tensor, Tensor]:
    """Sum over levels of ``1 − p``, upsampled: score float32 (N,), anomaly_map float32 (N, H, W) in [0, levels].

    Args:
        likelihoods: log-likelihood per dimension of each level, float32 (N, h, w).
        ceilings: log-likelihood of each level that counts as p = 1, float32 (levels,). None takes the largest of each
            image and level, and subtracts from each image's map its smallest value.
        upsamples: one SmoothUpsample per level.
    """
    grown = []
    for level, (upsample, likelihood) in enumerate(zip(upsamples, likelihoods, strict=True)):
        ceiling = likelihood.amax((1, 2), keepdim=True) if ceilings is None else ceilings[level]
        grown.append(upsample(1.0 - torch.exp(torch.clamp(likelihood - ceiling, max=0.0))))
    anomaly_map = torch.stack(grown).sum(0)
    if ceilings is None:
        anomaly_map = anomaly_map - anomaly_map.amin((1, 2), keepdim=True)
    return anomaly_map.amax((1, 2)), anomaly_map


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

    ceilings: Tensor | None

    def __init__(self, detector: CFlow) -> None:
        super().__init__()
        self.register_buffer("ceilings", detector.fixed_ceilings)
        self.upsamples = detector.upsamples

    def forward(self, likelihoods: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return improbability_map(likelihoods, self.ceilings, self.upsamples)
