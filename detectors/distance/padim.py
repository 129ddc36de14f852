"""PaDiM: one Gaussian per position over concatenated features; score by Mahalanobis distance.

Defard, Setkov, Loesch, Audigier: "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR Workshops 2021, arXiv 2011.08785.

What differs, and why: the precision matrix is kept as its Cholesky factor, ``M² = |W (x − μ)|²`` with
``WᵀW = Σ⁻¹``. The value is the same, never negative, and tolerates rounding far better than Σ⁻¹ itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, DetectorConfig, FitContext
from ..nn.graph import SmoothUpsample
from ..training.images import ImageSet

_STRIDES = (4, 8, 16)
_SIGMA = 4.0
_POSITIONS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class PadimConfig(DetectorConfig):
    """Parameters of PaDiM.

    Attributes:
        num_features: channels drawn at random from all layers; 0 for the paper's choice (550 where the layers
            have at least 1024 channels together, as wide_resnet50_2; 100 otherwise, as resnet18).
        regularisation: value that is added to the diagonal of each covariance.
    """

    crop_px: Size = (224, 224)
    num_features: int = 0
    regularisation: float = 0.01


class Padim(AbstractDetector[PadimConfig]):
    """PaDiM in its training form."""

    config_class = PadimConfig
    half_scopes = ("backbone",)
    channels: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, config: PadimConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        total = sum(self.backbone.channels)
        self.dim = config.num_features or (550 if total >= 1024 else min(100, total))
        if not 1 <= self.dim <= total:
            raise UsageError(f"num_features is {self.dim}; {config.backbone} has {total} channels.")
        self.size = self.backbone.map_sizes(config.crop_px)[0]
        self.upsample = SmoothUpsample(self.size, config.crop_px, sigma=_SIGMA, align_corners=False)
        self.register_buffer("channels", torch.arange(self.dim))
        self.register_buffer("mean", torch.empty(0, self.dim))
        self.register_buffer("factor", torch.empty(0, self.dim, self.dim))

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Draw the channels, then fit a mean and an unbiased covariance per position over all images."""
        generator = torch.Generator().manual_seed(context.seed)
        drawn = torch.randperm(sum(self.backbone.channels), generator=generator)[: self.dim]
        self.channels = drawn.sort().values
        if len(images) < 2:
            raise UsageError("PaDiM needs at least two training images for a covariance; got one. Add good images.")
        self.to(context.device)
        (patches,) = cache_features(
            lambda batch: (self.embed(self.backbone(batch)).transpose(1, 2),),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        self.cpu()
        num_positions = patches.shape[1]
        self.register_buffer("mean", torch.empty(num_positions, self.dim))
        self.register_buffer("factor", torch.empty(num_positions, self.dim, self.dim))
        for start in range(0, num_positions, _POSITIONS_AT_ONCE):
            part = slice(start, start + _POSITIONS_AT_ONCE)
            self.mean[part], self.factor[part] = self._gaussians(patches[:, part])
            context.progress("covariance", min(part.stop, num_positions), num_positions)
        return {"num_positions": num_positions, "num_features": self.dim, "channels": self.channels.tolist()}

    def _gaussians(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (num_images, P, d) → means (P, d) and whitening factors W (P, d, d), in float64."""
        values = vectors.transpose(0, 1).double()
        mean = values.mean(1, keepdim=True)
        centred = values - mean
        covariance = centred.transpose(1, 2) @ centred / (values.shape[1] - 1)
        covariance += self.config.regularisation * torch.eye(self.dim, dtype=torch.float64)
        identity = torch.eye(self.dim, dtype=torch.float64).expand_as(covariance)
        factor = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
        return mean[:, 0].float(), factor.float()

    def embed(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Concatenate at the finest grid (nearest), then select: float32 (N, d, h·w)."""
        size = maps[0].shape[-2:]
        grown = [F.interpolate(item, size, mode="nearest") for item in maps]
        return torch.cat(grown, 1)[:, self.channels].flatten(2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        centred = self.embed(self.backbone(images)).permute(2, 1, 0) - self.mean[:, :, None]
        distance = (self.factor @ centred).square().sum(1).sqrt().T
        anomaly_map = self.upsample(distance.unflatten(1, self.size))
        return anomaly_map.amax((1, 2)), anomaly_map

    def lower(self) -> Deployed:
        """Channels selected before the upsampling, means folded into a bias, one batched MatMul."""
        return Deployed(self.backbone, _Head(self), _Post(self))


class _Head(nn.Module):
    """Feature maps → Mahalanobis distance (N, h·w)."""

    factor: Tensor
    bias: Tensor

    def __init__(self, detector: Padim) -> None:
        super().__init__()
        first = 0
        for level, count in enumerate(detector.backbone.channels):
            inside = (detector.channels >= first) & (detector.channels < first + count)
            self.register_buffer(f"channels{level}", detector.channels[inside] - first)
            first += count
        factor = detector.factor.double()
        bias = factor @ detector.mean.double()[:, :, None]
        # (1, d) x (d, d) per position: a row vector times a matrix, the form engines multiply fastest.
        self.register_buffer("factor", detector.factor.transpose(1, 2).contiguous())
        self.register_buffer("bias", bias.transpose(1, 2).float().contiguous())

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps (N, C, h, w) of three levels → float32 (N, h·w)."""
        size = maps[0].shape[-2:]
        picked = [item.index_select(1, self.get_buffer(f"channels{level}")) for level, item in enumerate(maps)]
        grown = [picked[0], *(F.interpolate(item, size, mode="nearest") for item in picked[1:])]
        vectors = torch.cat(grown, 1).flatten(2).permute(2, 0, 1)
        return (vectors @ self.factor - self.bias).square().sum(2).sqrt().transpose(0, 1)


class _Post(nn.Module):
    """Distances → anomaly map; its maximum → score."""

    def __init__(self, detector: Padim) -> None:
        super().__init__()
        self.upsample = detector.upsample
        self.size = detector.size

    def forward(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        anomaly_map = self.upsample(distance.unflatten(1, self.size))
        return anomaly_map.amax((1, 2)), anomaly_map
