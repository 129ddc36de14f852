"""PatchCore: distance to the nearest vector of a memory bank of locally averaged features.

Roth, Pemula, Zepeda, Schoelkopf, Brox, Gehler: "Towards Total Recall in Industrial Anomaly Detection",
CVPR 2022, arXiv 2106.08265.

What differs, and why:

- The paper's chain of 3×3 unfolding and adaptive pooling to 1024 channels is a fixed linear map. For layers of
  512 and 1024 channels (wide_resnet50_2) that map is written down directly, which is exact: per channel a 3×3
  filter with centre 0.2 and rim 0.1 on the first, a 3×3 mean and the mean of channel pairs on the second.
  Other backbones would be over-expanded by it; there the 3×3 mean of each layer is concatenated.
- Distances are Euclidean (paper), not squared (authors' code).
- The image score is re-weighted (paper, equation 7) over ``num_neighbours`` bank vectors; 1 turns it off, as the
  authors' code does.
- anomalib's variant (``embedding="concatenated"``, ``growth="nearest"``, ``border="reflect"``) joins the 3×3 means of
  both layers for every backbone, and repeats the patch scores instead of interpolating them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.linear import Border, Growth
from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, DetectorConfig, FitContext
from ..nn.graph import SmoothUpsample
from ..nn.neighbours import NearestNeighbour, greedy_coreset, nearest_index, neighbour_table
from ..presets import Preset, of_table_4
from ..ranges import Count, CountOrZero, PositiveShare
from ..training.devices import moved
from ..training.images import ImageSet

_STRIDES = (8, 16)
_SIGMA = 4.0


@dataclass(frozen=True, kw_only=True)
class PatchCoreConfig(DetectorConfig):
    """Parameters of PatchCore.

    Attributes:
        coreset_ratio: share of all patch vectors kept in the bank.
        coreset_size: exact number of vectors kept; 0 leaves it to the ratio.
        projected_dim: dimension in which the coreset is chosen.
        num_neighbours: bank vectors that re-weight the image score; 1 for none.
        embedding: ``"pooled"`` for the paper's 1024 channels where the layers have 512 and 1024, ``"concatenated"`` for
            the 3×3 means of both layers whatever the backbone.
        growth: how the map of patch scores grows before it is smoothed.
        border: how the smoothing continues the map beyond its border.
    """

    crop_px: Size = (224, 224)
    coreset_ratio: PositiveShare = 0.1
    coreset_size: CountOrZero = 0
    projected_dim: Count = 128
    num_neighbours: Count = 9
    embedding: Literal["pooled", "concatenated"] = "pooled"
    growth: Growth = "bilinear"
    border: Border = "symmetric"


class Embedding(nn.Module):
    """Feature maps of two layers to locally averaged patch vectors (N, D, h, w)."""

    kernel: Tensor

    def __init__(self, channels: tuple[int, ...], sizes: tuple[Size, ...], *, is_concatenated: bool = False) -> None:
        super().__init__()
        self.upsample = SmoothUpsample(sizes[1], sizes[0], sigma=0.0, align_corners=False)
        self.is_pooled = channels == (512, 1024) and not is_concatenated
        self.dim = 1024 if self.is_pooled else sum(channels)
        kernel = torch.full((channels[0], 1, 3, 3), 0.1)
        kernel[:, :, 1, 1] = 0.2
        self.register_buffer("kernel", kernel if self.is_pooled else torch.empty(0), persistent=False)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """float32 (N, C1, h, w), (N, C2, h', w') → float32 (N, D, h, w)."""
        fine, coarse = maps
        coarse = F.avg_pool2d(coarse, 3, 1, 1)
        if self.is_pooled:
            fine = F.conv2d(fine, self.kernel, padding=1, groups=fine.shape[1])
            coarse = 0.5 * (coarse[:, 0::2] + coarse[:, 1::2])
        else:
            fine = F.avg_pool2d(fine, 3, 1, 1)
        coarse = self.upsample(coarse)
        return torch.cat([fine, coarse], 1)


class PatchCore(AbstractDetector[PatchCoreConfig]):
    """PatchCore in its training form: the nearest vector is searched in float64."""

    config_class = PatchCoreConfig
    paper = Preset(source="Roth et al. (2022), with a tenth of the vectors (PatchCore-10%).")
    repo = Preset(source="The authors' code, which does not re-weight the image score.", settings={"num_neighbours": 1})
    table4 = of_table_4(224)
    half_scopes = ("backbone", "head.nearest.search")
    bank: Tensor
    table: Tensor

    def __init__(self, config: PatchCoreConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        sizes = self.backbone.map_sizes(config.crop_px)
        self.embedding = Embedding(self.backbone.channels, sizes, is_concatenated=config.embedding == "concatenated")
        self.size = sizes[0]
        self.upsample = SmoothUpsample(
            self.size, config.crop_px, sigma=_SIGMA, align_corners=False, border=config.border, growth=config.growth
        )
        self.register_buffer("bank", torch.empty(0, self.embedding.dim))
        self.register_buffer("table", torch.empty(0, config.num_neighbours, dtype=torch.int64))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """256 px, where small defects still fill a patch, and a bank of two thousand vectors."""
        return {**super().quick_settings(), "resize_px": 256, "crop_px": 256, "coreset_size": 2000}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Collect the patch vectors of all images and keep a greedy k-centre coreset of them."""
        self.to(context.device)
        (patches,) = cache_features(
            lambda batch: (self.embedding(self.backbone(batch)).flatten(2).transpose(1, 2),),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        vectors = patches.flatten(0, 1)
        size = self.config.coreset_size or round(self.config.coreset_ratio * len(vectors))
        if not self.config.num_neighbours <= size <= len(vectors):
            raise UsageError(
                f"The coreset would hold {size} of {len(vectors)} patch vectors; it must hold at least "
                f"num_neighbours = {self.config.num_neighbours} and at most all. Change coreset_size or coreset_ratio."
            )
        chosen = greedy_coreset(
            moved(vectors, context.device),
            size,
            projected_dim=self.config.projected_dim,
            seed=context.seed,
            progress=context.progress,
        )
        self.register_buffer("bank", vectors[chosen].contiguous())
        self.register_buffer("table", neighbour_table(moved(self.bank, context.device), self.config.num_neighbours))
        self.cpu()
        return {"num_vectors": len(vectors), "bank_size": size, "dim": self.embedding.dim}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        queries = self.embedding(self.backbone(images)).flatten(2).transpose(1, 2)
        index = nearest_index(queries.flatten(0, 1), self.bank).view(queries.shape[:2])
        distance = (queries - self.bank[index]).square().sum(2).sqrt()
        anomaly_map = self.upsample(distance.unflatten(1, self.size))
        highest, worst = distance.max(1)
        if self.config.num_neighbours == 1:
            return highest, anomaly_map
        rows = torch.arange(len(images), device=images.device)
        near = self.bank[self.table[index[rows, worst]]]
        others = (queries[rows, worst][:, None] - near).square().sum(2).sqrt()
        return highest * reweight(others), anomaly_map

    def lower(self) -> Deployed:
        """Search by a 1×1 convolution, exact distances to the nearest vector, re-weighting by the precomputed table."""
        return Deployed(self.backbone, _Head(self), _Post(self))


class _Head(nn.Module):
    """Feature maps → distance of every patch, and of the worst one to the neighbours of its nearest vector."""

    table: Tensor

    def __init__(self, detector: PatchCore) -> None:
        super().__init__()
        self.embedding = detector.embedding
        self.nearest = NearestNeighbour(detector.bank)
        self.register_buffer("table", detector.table)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        vectors, distance, index = self.nearest(self.embedding(maps))
        worst = distance.argmax(1, keepdim=True)
        patch = torch.gather(vectors, 1, worst[:, :, None].expand(-1, -1, vectors.shape[2]))
        neighbours = self.table.index_select(0, torch.gather(index, 1, worst).squeeze(1))
        return distance, self.nearest.distance(patch, neighbours)


class _Post(nn.Module):
    """Distances → anomaly map and re-weighted score."""

    def __init__(self, detector: PatchCore) -> None:
        super().__init__()
        self.upsample = detector.upsample
        self.size = detector.size
        self.is_weighted = detector.config.num_neighbours > 1

    def forward(self, distances: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        distance, others = distances
        anomaly_map = self.upsample(distance.unflatten(1, self.size))
        score = others[:, 0]
        return (score * reweight(others) if self.is_weighted else score), anomaly_map


def reweight(others: Tensor) -> Tensor:
    """Equation 7 of the paper: ``1 − exp(d*) / sum exp(d)``; ``others`` (N, b) holds d* first."""
    return 1.0 - torch.softmax(others, 1)[:, 0]
