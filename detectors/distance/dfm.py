"""DFM: pooled features of one stage, as one vector per image; distance from the subspace or the Gaussian of good ones.

Ahuja, Ndiour, Kalyanpur, Tickoo: "Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial
Detection", arXiv 1909.11786 (the likelihood); Ndiour, Ahuja, Tickoo: "Out-Of-Distribution Detection With Subspace
Techniques And Probabilistic Modeling Of Features", arXiv 2012.04250 (the feature reconstruction error).

Principal components carry most of the variance of the good images' vectors. ``score=fre`` is the squared length of what
they leave of a vector; summed over channels alone it is a map, as coarse as the pooled features. ``score=nll`` is twice
the negative logarithm of the Gaussian's density within their subspace, without its constant: it says nothing about
places, so that its map is the score at every pixel.

What differs, and why:

- Good images are one class with one Gaussian; the paper has one for each of a classifier's classes, or a mixture.
- One stage of the network is modelled. The paper models several and then has a classifier of their likelihoods, which
  needs examples of what is abnormal.
- The score is ``fre`` by default, which both localises and was often the better one in the second paper.

fp16: the backbone after its map at stride 4. Both scores are sums over the whole image (see CONTRIBUTING).
"""

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size, size_text
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, DetectorConfig, FitContext
from ..nn.graph import SmoothUpsample
from ..ranges import Count, CountOrZero, PositiveShare
from ..training.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class DfmConfig(DetectorConfig):
    """Parameters of DFM.

    Attributes:
        backbone: name of the pretrained network in timm. A guess: anomalib's, as are the next three.
        stride: down-scale factor of the map that is modelled; a guess.
        pool: side of the squares of the map that are averaged; 1 for none. A guess.
        variance: share of the variance that the chosen components carry; a guess.
        num_components: number of components; 0 chooses it by ``variance``.
        score: ``"fre"`` for the feature reconstruction error, or ``"nll"`` for the negative log-likelihood.
    """

    backbone: str = "resnet50.tv_in1k"
    stride: Count = 16
    pool: Count = 4
    variance: PositiveShare = 0.97
    num_components: CountOrZero = 0
    score: Literal["fre", "nll"] = "fre"


@final
class Dfm(AbstractDetector[DfmConfig]):
    """DFM in its training form.

    Attributes:
        mean: mean vector of the good images, float32 (D,).
        components: principal components as columns, float32 (D, K).
        centre: mean of the Gaussian within their subspace, float32 (K,).
        whitening: matrix W by which ``(z − centre) W`` has unit covariance, float32 (K, M).
        log_determinant: logarithm of the determinant of the Gaussian's covariance, float32 scalar.
    """

    config_class = DfmConfig
    mean: Tensor
    components: Tensor
    centre: Tensor
    whitening: Tensor
    log_determinant: Tensor

    def __init__(self, config: DfmConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=(config.stride,))
        self.half_scopes = tuple(f"backbone.{path}" for path in self.backbone.late_stages())
        grid = _grid(self.backbone.map_sizes(config.crop_px)[0], config)
        size = self.backbone.channels[0] * grid[0] * grid[1]
        self.upsample = SmoothUpsample(grid, config.crop_px, sigma=0.0, align_corners=False)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("components", torch.zeros(size, 1))
        self.register_buffer("centre", torch.zeros(1))
        self.register_buffer("whitening", torch.zeros(1, 1))
        self.register_buffer("log_determinant", torch.zeros(()))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """192 px and no averaging: what is small on the sample is lost in the mean of 64 px by 64 px."""
        return {**super().quick_settings(), "resize_px": 192, "crop_px": 192, "pool": 1}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Compute the principal components of the good images' vectors, and their Gaussian within."""
        if len(images) < 2:
            raise UsageError("dfm needs at least two training images for a variance; got one. Add good images.")
        self.to(context.device)
        (features,) = cache_features(
            lambda batch: (self.pooled(self.backbone(batch)).flatten(1),),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        self.cpu()
        mean = features.double().mean(0)
        _, deviations, rows = torch.linalg.svd(features.double() - mean, full_matrices=False)
        count = self.config.num_components or _count_for(deviations, self.config.variance)
        if count > (rank := _rank(deviations)):
            raise UsageError(
                f"dfm: {count} components were asked for, but {len(images)} images have {rank} with a variance. "
                "Lower num_components or variance, or add good images."
            )
        # Within the subspace the components are uncorrelated: the whitening is diagonal.
        spread = deviations[:count] / len(images) ** 0.5
        self.mean, self.components = mean.float(), rows[:count].T.float().contiguous()
        self.centre, self.whitening = torch.zeros(count), torch.diag(1.0 / spread).float()
        self.log_determinant = (2.0 * spread.log().sum()).float()
        shares = deviations.square()
        return {
            "num_components": count,
            "num_features": len(mean),
            "variance": round(float(shares[:count].sum() / shares.sum()), 4),
        }

    def pooled(self, maps: tuple[Tensor, ...]) -> Tensor:
        """The stage's map alone in a tuple, float32 (N, C, h, w) → its averages, float32 (N, C, h / pool, w / pool)."""
        return F.avg_pool2d(maps[0], self.config.pool) if self.config.pool > 1 else maps[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        features = self.pooled(self.backbone(images))
        centred = features.flatten(1) - self.mean
        within = centred @ self.components
        if self.config.score == "nll":
            white = (within - self.centre) @ self.whitening
            score = white.square().sum(1) + self.log_determinant
            return score, score[:, None, None].expand(-1, *self.config.crop_px)
        left = centred - within @ self.components.T
        errors = left.reshape(features.shape).square().sum(1)
        return errors.sum((1, 2)), self.upsample(errors)

    def lower(self) -> Deployed:
        """Means folded into biases; centring, components and whitening of the likelihood are one matrix."""
        if self.config.score == "nll":
            return Deployed(self.backbone, _Likelihood(self), _Everywhere(self.config.crop_px))
        return Deployed(self.backbone, _Error(self), _Summed(self))


def _grid(size: Size, config: DfmConfig) -> Size:
    grid = size[0] // config.pool, size[1] // config.pool
    if min(grid) < 1:
        raise UsageError(
            f"dfm: pool is {config.pool}, but the map at stride {config.stride} of an image of "
            f"{size_text(config.crop_px)} has {size_text(size)} cells. Lower pool or stride, or enlarge crop_px."
        )
    return grid


def _count_for(deviations: Tensor, variance: float) -> int:
    """Return the number of components, largest first, that carry a share of the variance."""
    shares = deviations.square().cumsum(0)
    return min(int((shares < variance * shares[-1]).sum()) + 1, _rank(deviations))


def _rank(deviations: Tensor) -> int:
    # The mean takes one dimension; what is left of it is rounding.
    return max(1, int((deviations > 1e-9 * deviations[0]).sum()))


class _Error(nn.Module):
    """The stage's map → squared error summed over channels, (N, h, w)."""

    def __init__(self, detector: Dfm) -> None:
        super().__init__()
        self.pool = detector.config.pool
        mean, components = detector.mean.double(), detector.components.double()
        self.project = _linear(components.T, -(mean @ components))
        self.restore = _linear(components, mean)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        features = F.avg_pool2d(maps[0], self.pool) if self.pool > 1 else maps[0]
        restored: Tensor = self.restore(self.project(features.flatten(1)))
        return (features - restored.reshape(features.shape)).square().sum(1)


class _Likelihood(nn.Module):
    """The stage's map → negative log-likelihood (N,)."""

    log_determinant: Tensor

    def __init__(self, detector: Dfm) -> None:
        super().__init__()
        self.pool = detector.config.pool
        whitening = detector.whitening.double()
        matrix = detector.components.double() @ whitening
        self.white = _linear(matrix.T, -(detector.mean.double() @ matrix + detector.centre.double() @ whitening))
        self.register_buffer("log_determinant", detector.log_determinant)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        features = F.avg_pool2d(maps[0], self.pool) if self.pool > 1 else maps[0]
        score: Tensor = self.white(features.flatten(1)).square().sum(1) + self.log_determinant
        return score


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.requires_grad_(False)


class _Summed(nn.Module):
    """Errors → their sum as score, upsampled as map."""

    def __init__(self, detector: Dfm) -> None:
        super().__init__()
        self.upsample = detector.upsample

    def forward(self, errors: Tensor) -> tuple[Tensor, Tensor]:
        return errors.sum((1, 2)), self.upsample(errors)


class _Everywhere(nn.Module):
    """Score → score, and a map of it at every pixel."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, score: Tensor) -> tuple[Tensor, Tensor]:
        return score, score[:, None, None].expand(-1, *self.size)
