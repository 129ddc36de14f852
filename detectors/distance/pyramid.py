"""What SPADE and PANDA share: retrieve the nearest good images, then compare every position with those images.

Cohen, Hoshen: "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", arXiv 2005.02357 (2020).

The gallery (half the file) and the products with it may be fp16; each smallest distance is then computed anew in fp32
from the query and the stored vector. Backbone, retrieval, upsampling and smoothing stay in fp32: what the backbone
loses in fp16 can exchange the last of the retrieved images for another one. On the built-in sample that moved SPADE's
map by 0.3 of its range, and PANDA's score of a good part by half the spread of good scores.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.progress import silent
from ...core.size import Size
from ...core.words import counted
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, DetectorConfig, FitContext
from ..nn.graph import SmoothUpsample
from ..nn.neighbours import GallerySearch, covering_radius, greedy_coreset, nearest_distance
from ..ranges import Count, CountOrZero
from ..training.images import ImageSet

_STRIDES = (4, 8, 16, 32)
_LEVELS = range(3)
_SIGMA = 4.0

#: Distances float32 (N, K) to the K nearest images, in ascending order, → scores float32 (N,).
RetrievalScore = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(DetectorConfig):
    """Parameters of the gallery.

    Attributes:
        num_retrieved: number K of nearest images; a smaller gallery gives all it has.
        image_score: ``"retrieval"``, the method's own score from the distances to the nearest images (paper), or
            ``"map"``, the largest value of the anomaly map.
        num_images: images kept in the gallery, greedy k-centre on their global features; 0 keeps all.
        vectors_per_image: vectors kept per image and level, greedy k-centre; 0 keeps all, and so does a level that
            has no more.
    """

    crop_px: Size = (224, 224)
    num_retrieved: Count = 50
    image_score: Literal["retrieval", "map"] = "retrieval"
    num_images: CountOrZero = 0
    vectors_per_image: CountOrZero = 0


PyramidConfigT = TypeVar("PyramidConfigT", bound=PyramidConfig)


class AbstractPyramid(AbstractDetector[PyramidConfigT]):
    """A detector whose anomaly map is the distance of every position to the positions of the nearest good images.

    Attributes:
        globals: pooled features of the last stage of every gallery image, float32 (num_images, D).
        gallery0, gallery1, gallery2: centred feature vectors per level, float32 (num_images, M, C).
        centre0, centre1, centre2: mean vectors that were subtracted from them, float32 (C, 1).
    """

    globals: Tensor
    half_scopes = ("head.levels.*.products",)

    def __init__(self, config: PyramidConfigT) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        self.sizes = self.backbone.map_sizes(config.crop_px)
        self.upsamples = nn.ModuleList(
            SmoothUpsample(self.sizes[level], config.crop_px, sigma=_SIGMA, align_corners=False) for level in _LEVELS
        )
        self.register_buffer("globals", torch.empty(0, self.backbone.channels[-1]))
        for level in _LEVELS:
            self.register_buffer(f"gallery{level}", torch.empty(0, 0, self.backbone.channels[level]))
            self.register_buffer(f"centre{level}", torch.empty(self.backbone.channels[level], 1))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Twenty neighbours, as a small data set allows; the score from the map, as its defects are small."""
        quick = {"resize_px": 192, "crop_px": 192, "num_retrieved": 20, "image_score": "map"}
        return {**super().quick_settings(), **quick}

    @abstractmethod
    def retrieval_score(self) -> RetrievalScore:
        """Return the function from the distances to the nearest images to the method's own image score."""

    @property
    def num_retrieved(self) -> int:
        """Number K of images that are retrieved: the configured one, or the size of a smaller gallery."""
        return min(self.config.num_retrieved, len(self.globals))

    def check_gallery(self, num_images: int) -> int:
        """Return the number of images that the gallery will keep of ``num_images`` good ones.

        Raises:
            UsageError: it would hold none, or more than there are.
        """
        num_kept = self.config.num_images or num_images
        if not 1 <= num_kept <= num_images:
            raise UsageError(
                f"num_images is {num_kept}; expected 1 to {num_images}, the number of good images that the gallery is "
                "made from, or 0 to keep all of them."
            )
        return num_kept

    def store(self, images: ImageSet, context: FitContext) -> dict[str, Any]:
        """Store the features of good images in the gallery, and leave the module on the CPU.

        Returns:
            The numbers of images kept and retrieved, a notice where these are fewer than configured, and the covering
            radius of what was left out.
        """
        num_kept = self.check_gallery(len(images))
        self.to(context.device)
        *levels, pooled = cache_features(
            lambda batch: self.describe(self.backbone(batch)),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        self.cpu()
        num_retrieved = min(self.config.num_retrieved, num_kept)
        report: dict[str, Any] = {"num_images": num_kept, "num_retrieved": num_retrieved}
        if num_retrieved < self.config.num_retrieved:
            report["notice"] = (
                f"{counted(num_retrieved, 'image is', 'images are')} retrieved, not the "
                f"{self.config.num_retrieved} of num_retrieved: the "
                "gallery holds no more."
            )
        if num_kept < len(images):
            chosen = _choose(pooled, num_kept, context.seed)
            report["image_radius"] = covering_radius(pooled, pooled[chosen])
            pooled, levels = pooled[chosen], [vectors[chosen] for vectors in levels]
        self.globals = pooled
        for level in _LEVELS:
            report[f"vector_radius{level}"] = self._keep(level, levels[level], context)
        return report

    def _keep(self, level: int, vectors: Tensor, context: FitContext) -> float:
        """Store the gallery of one level, (num_images, h·w, C); return the covering radius, 0 where all are kept."""
        size, radius = self.config.vectors_per_image, 0.0
        if 0 < size < vectors.shape[1]:
            parts = []
            for number, item in enumerate(vectors):
                parts.append(item[_choose(item, size, context.seed)])
                radius = max(radius, covering_radius(item, parts[-1]))
                context.progress(f"gallery of level {level}", number + 1, len(vectors))
            vectors = torch.stack(parts)
        centre = vectors.flatten(0, 1).double().mean(0).float()
        self.register_buffer(f"gallery{level}", vectors - centre)
        self.register_buffer(f"centre{level}", centre[:, None])
        return radius

    def describe(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Vectors float32 (N, h·w, C) of the three levels, and the pooled last stage float32 (N, D)."""
        return *(maps[level].flatten(2).transpose(1, 2) for level in _LEVELS), maps[-1].mean((2, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        *levels, pooled = self.describe(self.backbone(images))
        distances, nearest = retrieve(pooled, self.globals, self.num_retrieved)
        maps = []
        for level, vectors in enumerate(levels):
            gallery = self.get_buffer(f"gallery{level}")
            queries = vectors - self.get_buffer(f"centre{level}").T
            nearest_distances = [
                nearest_distance(query, gallery[chosen].flatten(0, 1))
                for query, chosen in zip(queries, nearest, strict=True)
            ]
            maps.append(torch.stack(nearest_distances).unflatten(1, self.sizes[level]))
        return combine(distances, maps, self.upsamples, retrieval_score=self.chosen_score())

    def chosen_score(self) -> RetrievalScore | None:
        """Return the function that the image score is computed with; None where it is taken from the map."""
        return self.retrieval_score() if self.config.image_score == "retrieval" else None

    def lower(self) -> Deployed:
        """TopK, then per level gathers and products, some images at a time."""
        return Deployed(self.backbone, _Head(self), _Post(self))


def _choose(vectors: Tensor, size: int, seed: int) -> Tensor:
    return greedy_coreset(vectors, size, projected_dim=vectors.shape[1], seed=seed, progress=silent)


def retrieve(pooled: Tensor, gallery: Tensor, num_retrieved: int) -> tuple[Tensor, Tensor]:
    """Return the distances float32 (N, K) to the K nearest images, nearest first, and their indices int64 (N, K).

    Differences are computed before they are squared: no cancellation blurs which image is nearer.
    """
    distances = (pooled[:, None] - gallery).square().sum(2).sqrt()
    nearest: tuple[Tensor, Tensor] = torch.topk(distances, num_retrieved, dim=1, largest=False)
    return nearest


def combine(
    distances: Tensor, maps: list[Tensor], upsamples: nn.ModuleList, *, retrieval_score: RetrievalScore | None
) -> tuple[Tensor, Tensor]:
    """Mean of the upsampled, smoothed maps → anomaly map; score from the distances to the images, or its maximum."""
    grown = [upsample(item) for upsample, item in zip(upsamples, maps, strict=True)]
    anomaly_map = torch.stack(grown).mean(0)
    return retrieval_score(distances) if retrieval_score else anomaly_map.amax((1, 2)), anomaly_map


class _Head(nn.Module):
    """Feature maps → distances to the nearest images (N, K), and of every position (N, h, w) per level."""

    globals: Tensor

    def __init__(self, detector: AbstractPyramid[Any]) -> None:
        super().__init__()
        self.register_buffer("globals", detector.globals)
        self.num_retrieved = detector.num_retrieved
        self.levels = nn.ModuleList(
            GallerySearch(
                detector.get_buffer(f"gallery{level}"),
                detector.get_buffer(f"centre{level}"),
                num_positions=math.prod(detector.sizes[level]),
                num_images=self.num_retrieved,
            )
            for level in _LEVELS
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        distances, nearest = retrieve(maps[-1].mean((2, 3)), self.globals, self.num_retrieved)
        return distances, *(search(item, nearest) for search, item in zip(self.levels, maps, strict=False))


class _Post(nn.Module):
    """Distances → score and anomaly map."""

    def __init__(self, detector: AbstractPyramid[Any]) -> None:
        super().__init__()
        self.upsamples = detector.upsamples
        self.retrieval_score = detector.chosen_score()

    def forward(self, distances_and_maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        distances, *maps = distances_and_maps
        return combine(distances, maps, self.upsamples, retrieval_score=self.retrieval_score)
