"""DFR: regional features of many layers, restored per position by an autoencoder of 1×1 convolutions.

Yang, Shi, Qi: "DFR: Deep Feature Reconstruction for Unsupervised Anomaly Segmentation", arXiv 2012.07122 (2020);
journal version: Shi, Yang, Qi, Neurocomputing 2021.

What differs, and why:

- Frames are resized with antialiasing, as everywhere here; the authors' code takes nearest pixels.
- A backbone of the VGG family is tapped after each of its ReLUs up to relu4_4 (VGG19: 12 maps, 3456 channels), as in
  the paper; any other timm CNN at strides 4, 8 and 16.
- Each map is resized to the image and averaged over cells of ``cell_px``: a fixed linear map ``A F Aᵀ`` per layer, and
  computed so. The paper's form unfolds a tensor of 906 MB per image.
- Features are computed anew at every step unless ``caches_features``: with VGG19 at 256 px
  they take 57 MB per image.
- 700 epochs (the authors' figure for MVTec AD), of which the last is kept; 150 in their code. Batch statistics belong
  to the weights of the evaluated epoch (see ``calibration``).

The image score is the maximum of the map. The latent size is the number of principal components that carry 90 % of
the variance of the first ten images' features; the fit reports it, and a checkpoint carries it in its weights' shapes.

fp16: backbone and 1×1 convolutions. The averaging and the squared error stay in fp32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.linear import bilinear_matrix
from ...core.size import Size, size_text
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.blocks import conv_norm, fold, plain_conv
from ..nn.graph import SmoothUpsample
from ..presets import Preset
from ..ranges import Count, CountOrZero, Positive, ProperShare
from ..training.devices import full_precision, moved
from ..training.features import CachedFeatures, Features, FeatureSource, PlainImages, train_on_batches
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import Optimisation
from .vgg import VggBackbone

_STRIDES = (4, 8, 16)
_SHAPE_OF_LATENT = "autoencoder.rest.1.weight"


@dataclass(frozen=True, kw_only=True)
class DfrConfig(TrainedConfig):
    """Parameters of DFR.

    Attributes:
        cell_px: side in pixels of the cells that features are averaged over.
        latent_size: channels of the autoencoder's narrowest layer; 0 chooses it by principal components.
        variance: share of the variance that the chosen components carry.
        pca_images: number of images whose features the components are computed from.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        batch_size: images per step.
        learning_rate: Adam's learning rate.
        caches_features: whether features are computed once and kept, in memory or beyond 3 GB in a temporary file.
    """

    backbone: str = "vgg19.tv_in1k"
    cell_px: Count = 4
    latent_size: CountOrZero = 0
    variance: ProperShare = 0.9
    pca_images: Count = 10
    epochs: Count = 700
    batch_size: Count = 4
    learning_rate: Positive = 1e-4
    caches_features: bool = False


class RegionalFeatures(nn.Module):
    """Maps of any sizes to one map of cell averages, as if each had been resized to the image first.

    Args:
        sizes: height and width of each map.
        image_px: height and width of the image in pixels.
        cell_px: side of a cell in pixels.
    """

    def __init__(self, sizes: tuple[Size, ...], *, image_px: Size, cell_px: int) -> None:
        super().__init__()
        self.cell_px = cell_px
        self.image_px = image_px
        for height, width in sorted(set(sizes) - {image_px}):
            rows = averaging_matrix(height, image_px[0], cell_px)
            columns = averaging_matrix(width, image_px[1], cell_px)
            self.register_buffer(f"rows{height}", rows, persistent=False)
            self.register_buffer(f"columns{width}", columns.T.contiguous(), persistent=False)

    def average(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → float32 (N, C, *image_px / cell_px)."""
        height, width = maps.shape[-2:]
        if (height, width) == self.image_px:
            return F.avg_pool2d(maps, self.cell_px)
        return self.get_buffer(f"rows{height}") @ maps @ self.get_buffer(f"columns{width}")

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """One float32 (N, C, h, w) per layer → float32 (N, sum of C, *image_px / cell_px)."""
        return torch.cat([self.average(item) for item in maps], 1)


def averaging_matrix(size: int, image_px: int, cell_px: int) -> Tensor:
    """Bilinear resize of one axis (corners aligned), then the mean over cells: float32 (image_px / cell_px, size)."""
    grown = bilinear_matrix(size, image_px, align_corners=True)
    means = grown.reshape(image_px // cell_px, cell_px, size).mean(1)
    return torch.from_numpy(means).float()


class Autoencoder(nn.Module):
    """1×1 convolutions C → (C + 2d) / 2 → 2d → d → 2d → (C + 2d) / 2 → C.

    Args:
        channels: number C of channels.
        latent_size: number d of channels of the narrowest layer.
    """

    def __init__(self, channels: int, latent_size: int) -> None:
        super().__init__()
        wide, narrow = (channels + 2 * latent_size) // 2, 2 * latent_size
        self.first = conv_norm(channels, wide, 1)
        self.rest = nn.Sequential(
            conv_norm(wide, narrow, 1),
            nn.Conv2d(narrow, latent_size, 1),
            conv_norm(latent_size, narrow, 1),
            conv_norm(narrow, wide, 1),
            nn.Conv2d(wide, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """float32 (N, C, h, w) → the same shape."""
        restored: Tensor = self.rest(self.first(features))
        return restored


class Dfr(AbstractDetector[DfrConfig]):
    """DFR in its training form."""

    config_class = DfrConfig
    paper = Preset(source="Yang et al. (2020): 700 epochs for MVTec AD.")
    repo = Preset(source="The authors' code, which trains for 150 epochs.", settings={"epochs": 150})
    half_scopes = ("backbone", "head.convs", "head.rest")

    def __init__(self, config: DfrConfig) -> None:
        super().__init__(config)
        if any(side % config.cell_px for side in config.crop_px):
            crop = size_text(config.crop_px)
            raise UsageError(
                f"dfr: crop_px {crop} is no multiple of cell_px {config.cell_px} on each side. Change one."
            )
        self.backbone: Backbone | VggBackbone
        if config.backbone.startswith("vgg"):
            self.backbone = VggBackbone(config.backbone, config.weights)
        else:
            self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        self.sizes = self.backbone.map_sizes(config.crop_px)
        self.features = RegionalFeatures(self.sizes, image_px=config.crop_px, cell_px=config.cell_px)
        self.num_channels = sum(self.backbone.channels)
        # Without a latent size the autoencoder takes its shape from the fit, or from a checkpoint.
        self.autoencoder = Autoencoder(self.num_channels, config.latent_size or 1)
        self.grid = (config.crop_px[0] // config.cell_px, config.crop_px[1] // config.cell_px)
        self.upsample = SmoothUpsample(self.grid, config.crop_px, sigma=0.0, align_corners=True)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """The paper's size, which small defects need; single images, whose 4096 positions are a batch of their own."""
        size = {"resize_px": 256, "crop_px": 256}
        fast = {"batch_size": 1, "epochs": 45, "keep": "best", "patience": 10, "learning_rate": 2e-3}
        return {**super().quick_settings(), **size, **fast, "caches_features": True}

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of the pretrained VGG or timm network."""
        return list(self.backbone.parameters())

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Choose the latent size, then teach the autoencoder to restore the good images' features."""
        config = self.config
        self.to(context.device)
        source = self._source(images, context, "features")
        latent = config.latent_size or self._num_components(source, context.device)
        self.autoencoder = Autoencoder(self.num_channels, latent).to(context.device)
        optimiser = torch.optim.Adam(self.autoencoder.parameters(), config.learning_rate)
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = train_on_batches(
            self.autoencoder,
            Optimisation(optimiser=optimiser),
            loss=self._loss,
            source=source,
            holdout_source=self._source(holdout, context, "held-out features"),
            schedule=schedule,
            context=context,
        )
        self.cpu()
        return {**report, "latent_size": latent, "num_channels": self.num_channels}

    def _source(self, images: ImageSet, context: FitContext, stage: str) -> FeatureSource:
        """Return the batches: features of the images, computed now, or the images themselves."""
        if not self.config.caches_features:
            return PlainImages(images)
        features = cache_features(
            lambda batch: (self.describe(batch),),
            images,
            device=context.device,
            progress=context.progress,
            stage=stage,
            batch_size=self.config.batch_size,
        )
        return CachedFeatures(features)

    def _features_of(self, batch: Features) -> Tensor:
        """Return the features that a batch holds, or those of its images."""
        if self.config.caches_features:
            return batch[0]
        with torch.no_grad():
            return self.describe(batch[0])

    def _num_components(self, source: FeatureSource, device: torch.device) -> int:
        first = torch.arange(min(self.config.pca_images, len(source)))
        with full_precision():
            parts = [self._features_of(moved(source.at(part), device)) for part in first.split(self.config.batch_size)]
        return num_components(torch.cat(parts).cpu(), self.config.variance)

    def _loss(self, batch: Features) -> Tensor:
        features = self._features_of(batch)
        return F.mse_loss(self.autoencoder(features), features)

    def describe(self, images: Tensor) -> Tensor:
        """Normalised images float32 (N, 3, H, W) → features of all layers per cell, float32 (N, C, h, w)."""
        features: Tensor = self.features(self.backbone(images))
        return features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        features = self.describe(images)
        error = (features - self.autoencoder(features)).square().mean(1)
        anomaly_map = self.upsample(error)
        return anomaly_map.amax((1, 2)), anomaly_map

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict strictly, the autoencoder in the shape that was saved."""
        if _SHAPE_OF_LATENT in state:
            self.autoencoder = Autoencoder(self.num_channels, len(state[_SHAPE_OF_LATENT]))
        super().restore(state)

    def lower(self) -> Deployed:
        """Normalisations folded; the first layer at the resolution of the maps where these are small."""
        return Deployed(self.backbone, _Head(self), _Post(self))


def num_components(features: Tensor, variance: float) -> int:
    """Return the number of principal components that carry a share of the variance of all positions' features.

    Args:
        features: features of the images, float32 (num_images, C, h, w).
        variance: share of the variance, in (0, 1).
    """
    num_vectors, channels = features[:, 0].numel(), features.shape[1]
    mean = features.double().mean((0, 2, 3))
    covariance = torch.zeros(channels, channels, dtype=torch.float64)
    for item in features:
        centred = item.flatten(1).double() - mean[:, None]
        covariance += centred @ centred.T / num_vectors
    shares = torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0.0).cumsum(0)
    return min(int((shares < variance * shares[-1]).sum()) + 1, channels)


class _Head(nn.Module):
    """Maps → mean squared error (N, h, w) on the grid of cells.

    A 1×1 convolution commutes with the averaging. On maps smaller than the grid it therefore comes first, at their
    resolution: a quarter of the work for each halving.
    """

    def __init__(self, detector: Dfr) -> None:
        super().__init__()
        self.features = detector.features
        folded = fold(detector.autoencoder)
        first: Any = folded.get_submodule("first.0")
        self.rest = folded.get_submodule("rest")
        self.groups = group_layers(detector.sizes, detector.grid)
        ends = [0, *torch.tensor(detector.backbone.channels).cumsum(0).tolist()]
        self.convs = nn.ModuleList()
        for number, (start, stop, _) in enumerate(self.groups):
            # Rows of A sum to 1, so that a bias passes through the averaging unchanged.
            self.convs.append(plain_conv(first.weight[:, ends[start] : ends[stop]], None if number else first.bias))

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        averaged = [self.features.average(item) for item in maps]
        hidden = []
        for conv, (start, stop, is_coarse) in zip(self.convs, self.groups, strict=True):
            if is_coarse:
                hidden.append(self.features.average(conv(torch.cat(maps[start:stop], 1))))
            else:
                hidden.append(conv(torch.cat(averaged[start:stop], 1)))
        restored = self.rest(F.relu(sum(hidden[1:], hidden[0])))
        error: Tensor = (torch.cat(averaged, 1) - restored).square().mean(1)
        return error


def group_layers(sizes: tuple[Size, ...], grid: Size) -> list[tuple[int, int, bool]]:
    """Return the groups of layers that share a convolution: first, end, and whether their maps are below the grid."""
    smaller = [math.prod(size) < math.prod(grid) for size in sizes]
    keys = [size if is_smaller else grid for size, is_smaller in zip(sizes, smaller, strict=True)]
    starts = [index for index in range(len(keys)) if index == 0 or keys[index] != keys[index - 1]]
    return [(a, b, smaller[a]) for a, b in pairwise([*starts, len(keys)])]


class _Post(nn.Module):
    """Errors → anomaly map; its maximum → score."""

    def __init__(self, detector: Dfr) -> None:
        super().__init__()
        self.upsample = detector.upsample

    def forward(self, error: Tensor) -> tuple[Tensor, Tensor]:
        anomaly_map = self.upsample(error)
        return anomaly_map.amax((1, 2)), anomaly_map
