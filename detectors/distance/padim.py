"""PaDiM: one Gaussian per position over concatenated features; score by Mahalanobis distance.

Defard, Setkov, Loesch, Audigier: "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR Workshops 2021, arXiv 2011.08785.

What differs, and why: the precision matrix is kept as its Cholesky factor (see ``nn.gaussians``), which tolerates
rounding far better and gives the same value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.linear import Border
from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, DetectorConfig, FitContext
from ..nn.gaussians import DistanceMap, LoweredGaussians, Maps, PositionGaussians
from ..presets import of_table_4
from ..ranges import CountOrZero, Positive
from ..training.images import ImageSet

_STRIDES = (4, 8, 16)
#: Names of tensors by those in the checkpoints of former releases.
_FORMER_NAMES = {
    "channels": "gaussians.channels",
    "mean": "gaussians.mean",
    "factor": "gaussians.factor",
    "upsample.rows": "distance_map.upsample.rows",
    "upsample.columns": "distance_map.upsample.columns",
}


@dataclass(frozen=True, kw_only=True)
class PadimConfig(DetectorConfig):
    """Parameters of PaDiM.

    Attributes:
        num_features: channels drawn at random from all layers; 0 for the paper's choice (550 where the layers
            have at least 1024 channels together, as wide_resnet50_2; 100 otherwise, as resnet18).
        regularisation: value that is added to the diagonal of each covariance.
        border: how the smoothing of the anomaly map continues it beyond its border; anomalib has ``"reflect"``.
    """

    crop_px: Size = (224, 224)
    num_features: CountOrZero = 0
    regularisation: Positive = 0.01
    border: Border = "symmetric"


class Padim(AbstractDetector[PadimConfig]):
    """PaDiM in its training form."""

    config_class = PadimConfig
    table4 = of_table_4(224)
    half_scopes = ("backbone",)

    def __init__(self, config: PadimConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        self.gaussians = PositionGaussians(
            self.backbone.channels,
            num_features=config.num_features,
            regularisation=config.regularisation,
            backbone=config.backbone,
        )
        self.distance_map = DistanceMap(
            self.backbone.map_sizes(config.crop_px)[0], config.crop_px, border=config.border
        )

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Draw the channels, then fit a mean and an unbiased covariance per position over all images."""
        if len(images) < 2:
            raise UsageError("PaDiM needs at least two training images for a covariance; got one. Add good images.")
        gaussians = self.gaussians
        gaussians.draw(context.seed)
        self.to(context.device)
        (vectors,) = cache_features(
            lambda batch: (gaussians.embed(self.backbone(batch)).transpose(1, 2),),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        self.cpu()
        gaussians.learn(vectors, device=context.device, progress=context.progress)
        return {
            "num_positions": vectors.shape[1],
            "num_features": gaussians.dim,
            "channels": gaussians.channels.tolist(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict, also one of former releases, which held the Gaussians without a module of their own."""
        super().restore({_FORMER_NAMES.get(name, name): tensor for name, tensor in state.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        score, anomaly_map = self.distance_map(self.gaussians(self.backbone(images)))
        return score, anomaly_map

    def lower(self) -> Deployed:
        """Channels selected before the upsampling, means folded into a bias, one batched MatMul."""
        return Deployed(self.backbone, _Head(self), self.distance_map)


class _Head(nn.Module):
    """Feature maps → Mahalanobis distance (N, h·w)."""

    def __init__(self, detector: Padim) -> None:
        super().__init__()
        self.gaussians = LoweredGaussians(detector.gaussians)

    def forward(self, maps: Maps) -> Tensor:
        distances: Tensor = self.gaussians(self.gaussians.select(maps))
        return distances
