"""Patch SVDD: patches that lie close together get embeddings that lie close together; a new patch far from all is odd.

Yi, Yoon: "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020, arXiv 2006.16067.

An encoder of 32 px patches, and one of 64 px that is built on it, are trained from scratch with two losses each: the
distance of two patches a pixel or two apart, and the direction in which one of two neighbouring patches lies. All
patches of the good images are the memory bank; the distance to its nearest vector is spread evenly over the
patch, and the maps of both sizes are multiplied.

What differs, and why:

- The nearest vector is searched exactly. The authors search trees and graphs, the latter approximately, which no
  inference engine offers.
- Patches are not embedded one by one: the encoders pad nothing, so that they give the same values as convolutions over
  the whole image (the second with a dilation of 8), at a twentieth of the cost.
- The weight of the distance loss is the paper's lambda, which its authors choose per category, down to 0.001 in their
  example; only two values are public. ``svdd_weight`` is 1 unless it is set.
- The mean image is of use where parts lie still in one light. ``centring`` "own" takes each image's own mean colour
  away instead, and evens out its contrast.
- The paper gives no split: here the weights after the last epoch are kept (``keep``). ``"best"`` keeps those with the
  lowest loss on pairs of held-out good images.

There is no pretrained network: ``backbone`` must be "none", every parameter counts as the method's own. In the lowered
form the backbone stage centres the images, and both encoders belong to the head. The classifiers of directions
serve the training alone and are not kept.

Score: largest value of the map. fp16: both encoders and the products of the search; distances and maps stay in fp32.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size, size_text
from ..backbones.features import cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.neighbours import BankDistance, covering_radius, greedy_coreset, nearest_index
from ..ranges import Count, CountOrZero, NotNegative, Positive, PositiveShare
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import Draw, LossTask, Optimisation
from ..training.trainer import Trainer
from .patch_svdd_networks import (
    BIG_PX,
    BIG_STRIDE,
    DIM,
    SMALL_PX,
    SMALL_STRIDE,
    DenseEncoder,
    DirectionClassifier,
    PatchEncoder,
)
from .patch_svdd_pairs import PairSource, PatchPairs

#: Draws of every held-out image; the same in every epoch.
_HELD_OUT_PATCHES = 10
#: A quarter of a grey level: an image with less contrast is of one colour.
_SMALLEST_CONTRAST = 1e-3

Pairs = tuple[PatchPairs, PatchPairs]


@dataclass(frozen=True, kw_only=True)
class PatchSvddConfig(TrainedConfig):
    """Parameters of Patch SVDD.

    Attributes:
        backbone: "none"; there is no pretrained network.
        weights: "none".
        centring: ``"mean_image"`` subtracts the good images' mean, pixel by pixel (paper). ``"own"`` subtracts each
            image's own mean colour and scales it to the good images' mean contrast: for light that changes, and parts
            that move; ours.
        combination: ``"product"`` (paper) or ``"sum"`` of the maps of both sizes.
        initial_weights: ``"torch"``, as the authors' code begins, or ``"he"``. With the former all embeddings begin
            nearly equal, which takes thousands of steps to overcome; the latter keep the variance from layer to layer.
        svdd_weight: weight of the distance loss, the paper's lambda. 1 is a guess: the authors choose it per category.
        colour_shift: standard deviation of what is added to patches whose direction is asked for, one value per patch
            and colour; pixels are in [0, 1]. A larger one than the paper's makes embeddings depend less on the light.
        noise: standard deviation of what is added to them beside it, one value per pixel and colour.
        coreset_ratio: share of all embeddings kept in each bank, greedy k-centre. 1 keeps all (paper): with 209 images
            of 256 px 174 MB, and 282 GFLOP for the search in every frame; 0.01 costs a hundredth of both.
        coreset_size: largest number of embeddings kept in each bank; 0 leaves it to the ratio.
        patches_per_image: draws of every image in an epoch.
        epochs: largest number of epochs.
        batch_size: draws per step; each gives two pairs of either size.
        learning_rate: Adam's learning rate.
    """

    backbone: str = "none"
    weights: str = "none"
    centring: Literal["mean_image", "own"] = "mean_image"
    combination: Literal["product", "sum"] = "product"
    initial_weights: Literal["torch", "he"] = "torch"
    svdd_weight: NotNegative = 1.0
    colour_shift: NotNegative = 0.02
    noise: NotNegative = 0.02
    coreset_ratio: PositiveShare = 1.0
    coreset_size: CountOrZero = 0
    patches_per_image: Count = 100
    epochs: Count = 300
    batch_size: Count = 64
    learning_rate: Positive = 1e-4


class PatchSvdd(AbstractDetector[PatchSvddConfig]):
    """Patch SVDD in its training form: nearest vectors are searched in float64.

    Attributes:
        centre: how images are centred before they are embedded.
        small_bank: embeddings of the good images' patches of 32 px, float32 (M, 64).
        big_bank: those of the patches of 64 px, float32 (M', 64).
    """

    config_class = PatchSvddConfig
    half_scopes = ("head.encoder", "head.small.parts.*.search", "head.big.parts.*.search")
    small_bank: Tensor
    big_bank: Tensor

    def __init__(self, config: PatchSvddConfig) -> None:
        super().__init__(config)
        _check(config)
        self.centre = Centring(config.crop_px, is_own=config.centring == "own")
        self.encoder = PatchEncoder(keeps_variance=config.initial_weights == "he")
        self.spread = _Spread(config.crop_px, combination=config.combination)
        self.register_buffer("small_bank", torch.empty(0, DIM))
        self.register_buffer("big_bank", torch.empty(0, DIM))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Few small steps from weights that keep the variance, banks of two thousand embeddings, no light.

        The last epoch is kept, and none is left out: the held-out loss says how well directions are told, not how well
        defects are.
        """
        size = {"resize_px": 256, "crop_px": 256, "centring": "own", "coreset_size": 2000}
        start = {"initial_weights": "he", "svdd_weight": 0.1, "keep": "last", "patience": 0}
        fast = {"patches_per_image": 10, "epochs": 1, "batch_size": 16}
        return size | start | fast

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean 0 and standard deviation 1: pixels stay in [0, 1]."""
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Train the encoders on pairs of patches, then store the embeddings of all patches of the good images."""
        self.centre.learn(images)
        report = self._train(images, holdout, context)
        small, big = cache_features(
            lambda batch: tuple(item.flatten(2).transpose(1, 2) for item in self.encoder(self.centre(batch))),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        for name, vectors in (("small", small.flatten(0, 1)), ("big", big.flatten(0, 1))):
            bank, radius = self._choose(vectors, context)
            self.register_buffer(f"{name}_bank", bank)
            report[f"{name}_vectors"], report[f"{name}_bank"] = len(vectors), len(bank)
            report[f"{name}_radius"] = radius
        self.cpu()
        return report

    def _train(self, images: ImageSet, holdout: ImageSet, context: FitContext) -> dict[str, Any]:
        config = self.config
        trained = _Training(self.encoder, svdd_weight=config.svdd_weight).to(context.device)
        # Patches are cut on the CPU.
        centre = copy.deepcopy(self.centre)
        source, held_out = (
            PairSource(
                items,
                centre,
                patches_per_image=number,
                colour_shift=config.colour_shift,
                noise=config.noise,
            )
            for items, number in ((images, config.patches_per_image), (holdout, _HELD_OUT_PATCHES))
        )
        self.to(context.device)

        def loss(pairs: Pairs) -> Tensor:
            return trained.loss(moved(pairs, context.device))

        task = LossTask(
            trained,
            Optimisation(optimiser=torch.optim.Adam(trained.parameters(), config.learning_rate)),
            source=source,
            loss=loss,
            holdout_loss=lambda: _mean_loss(loss, held_out, batch_size=config.batch_size),
        )
        schedule = Schedule(
            epochs=config.epochs,
            batch_size=config.batch_size,
            patience=config.patience,
            keeps=config.keep,
        )
        return Trainer(task, schedule=schedule, context=context).run()

    def _choose(self, vectors: Tensor, context: FitContext) -> tuple[Tensor, float]:
        """Return the vectors to keep, of (M, 64), and the largest distance of the others to them."""
        size = max(1, round(self.config.coreset_ratio * len(vectors)))
        size = min(size, self.config.coreset_size or size)
        if size == len(vectors):
            return vectors.clone(), 0.0
        # Distances do not change, and cancel less.
        centred = (vectors - vectors.mean(0)).to(context.device)
        chosen = greedy_coreset(centred, size, projected_dim=DIM, seed=context.seed, progress=context.progress)
        return vectors[chosen], covering_radius(centred, centred[chosen.to(context.device)])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        maps = []
        banks = (self.small_bank, self.big_bank)
        for embeddings, bank in zip(self.encoder(self.centre(images)), banks, strict=True):
            queries = embeddings.movedim(1, -1).flatten(0, -2)
            distance = (queries - bank[nearest_index(queries, bank)]).square().sum(1).sqrt()
            maps.append(distance.view(len(images), *embeddings.shape[2:]))
        result: tuple[Tensor, Tensor] = self.spread((maps[0], maps[1]))
        return result

    def lower(self) -> Deployed:
        """Embeddings at the positions that are used alone, search by 1×1 convolutions, spreading as two matrices."""
        return Deployed(_Centred(self.centre), _Head(self), self.spread)


def _check(config: PatchSvddConfig) -> None:
    if config.backbone != "none" or config.weights not in ("none", "random"):
        raise UsageError(
            f"patch_svdd: backbone is {config.backbone!r} and weights {config.weights!r}, but it is trained from "
            "scratch. Leave both at 'none'."
        )
    if any(side % BIG_STRIDE or side < BIG_PX for side in config.crop_px):
        raise UsageError(
            f"patch_svdd: crop_px is {size_text(config.crop_px)}; patches of {BIG_PX} px every {BIG_STRIDE} px must "
            f"cover it. Give multiples of {BIG_STRIDE} from {BIG_PX} on, such as 256x256 or 128x384."
        )


class Centring(nn.Module):
    """Images → images about 0, as the encoders take them.

    Args:
        crop_px: height and width of the images.
        is_own: True to subtract each image's own mean colour and to scale it to the mean contrast of the good images,
            False to subtract the mean of the good images.

    Attributes:
        mean_image: mean of the good images, float32 (3, H, W); empty where ``is_own``.
        contrast: mean of the good images' standard deviations about their mean colours, float32, a scalar.
    """

    mean_image: Tensor
    contrast: Tensor

    def __init__(self, crop_px: Size, *, is_own: bool) -> None:
        super().__init__()
        self.is_own = is_own
        self.register_buffer("mean_image", torch.empty(0) if is_own else torch.zeros(3, *crop_px))
        self.register_buffer("contrast", torch.ones(()))

    def learn(self, images: ImageSet) -> None:
        """Take mean or contrast from good images, summed in float64."""
        total = torch.zeros((), dtype=torch.float64)
        for index in range(len(images)):
            image = images.batch([index])
            total = total + (_contrast(image - _mean_colour(image)).sum() if self.is_own else image[0])
        mean = (total / len(images)).float()
        if self.is_own:
            self.contrast = mean
        else:
            self.mean_image = mean

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, H, W) → float32 (N, 3, H, W)."""
        if not self.is_own:
            return images - self.mean_image
        centred = images - _mean_colour(images)
        return centred * (self.contrast / _contrast(centred).clamp(min=_SMALLEST_CONTRAST))


def _mean_colour(images: Tensor) -> Tensor:
    # In squares first: an engine adds float32 values one by one, and over a whole image that is too coarse.
    return F.avg_pool2d(images, BIG_STRIDE).mean((2, 3), keepdim=True)


def _contrast(centred: Tensor) -> Tensor:
    """Standard deviation over all pixels and colours of each centred image: float32 (N, 1, 1, 1)."""
    return _mean_colour(centred.square()).mean(1, keepdim=True).sqrt()


class _Training(nn.Module):
    """What is trained: the encoders, and one classifier of directions for either size."""

    def __init__(self, encoder: PatchEncoder, *, svdd_weight: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifiers = nn.ModuleList(DirectionClassifier() for _ in range(2))
        self._svdd_weight = svdd_weight

    def loss(self, pairs: tuple[PatchPairs, ...]) -> Tensor:
        """Return the sum over both sizes of cross-entropy of directions and weighted distance of neighbours."""
        total = torch.zeros((), device=pairs[0].near.device)
        for item, classifier in zip(pairs, self.classifiers, strict=True):
            patches = torch.stack((item.near, item.apart))
            embedded = self.encoder.embed(patches.flatten(0, 2)).unflatten(0, patches.shape[:3])
            (first, second), (one, other) = embedded
            distance = torch.linalg.vector_norm(first - second, dim=1).mean()
            total = total + F.cross_entropy(classifier(one - other), item.direction) + self._svdd_weight * distance
        return total


def _mean_loss(loss: Callable[[Pairs], Tensor], source: PairSource, *, batch_size: int) -> float:
    """Mean loss of pairs that are the same at every call."""
    total = 0.0
    for step, indices in enumerate(torch.arange(len(source)).split(batch_size)):
        total += float(loss(source[Draw(indices=indices, epoch=0, step=step, seed=0)])) * len(indices)
    return total / len(source)


class _Centred(nn.Module):
    """Centred images as the only feature map."""

    def __init__(self, centre: Centring) -> None:
        super().__init__()
        self.centre = centre

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.centre(images),)


class _Head(nn.Module):
    """Centred images → distances to the nearest embedding, of small and of big patches."""

    def __init__(self, detector: PatchSvdd) -> None:
        super().__init__()
        self.encoder = DenseEncoder(detector.encoder)
        small, big = map_sizes(detector.config.crop_px)
        self.small = BankDistance(detector.small_bank, num_positions=math.prod(small))
        self.big = BankDistance(detector.big_bank, num_positions=math.prod(big))

    def forward(self, images: tuple[Tensor]) -> tuple[Tensor, Tensor]:
        small, big = self.encoder(*images)
        return self.small(small), self.big(big)


def map_sizes(crop_px: Size) -> tuple[Size, Size]:
    """Return height and width of the maps of small and of big patches."""
    (height, width), kinds = crop_px, ((SMALL_PX, SMALL_STRIDE), (BIG_PX, BIG_STRIDE))
    small, big = (((height - side) // stride + 1, (width - side) // stride + 1) for side, stride in kinds)
    return small, big


class _Spread(nn.Module):
    """Distances of patches → anomaly map, at each pixel the mean over the patches that hold it; maximum → score.

    Both maps are two constant matrices each, rows and columns, since the patches lie on a grid.
    """

    small_rows: Tensor
    small_columns: Tensor
    big_rows: Tensor
    big_columns: Tensor

    def __init__(self, crop_px: Size, *, combination: str) -> None:
        super().__init__()
        self._is_product = combination == "product"
        for name, side, stride in (("small", SMALL_PX, SMALL_STRIDE), ("big", BIG_PX, BIG_STRIDE)):
            rows, columns = (spread_matrix(length, side, stride) for length in crop_px)
            self.register_buffer(f"{name}_rows", rows, persistent=False)
            self.register_buffer(f"{name}_columns", columns.T.contiguous(), persistent=False)

    def forward(self, distances: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """float32 (N, h, w) and (N, h', w') → score float32 (N,), anomaly_map float32 (N, H, W)."""
        small = self.small_rows @ distances[0] @ self.small_columns
        big = self.big_rows @ distances[1] @ self.big_columns
        anomaly_map = small * big if self._is_product else small + big
        return anomaly_map.amax((1, 2)), anomaly_map


def spread_matrix(length: int, side: int, stride: int) -> Tensor:
    """Means over the patches that hold a pixel, along one axis.

    Args:
        length: pixels of the axis.
        side: pixels of a patch.
        stride: pixels between the first pixels of two patches.

    Returns:
        float32 (length, number of patches); every row sums to 1.
    """
    offset = torch.arange(length)[:, None] - torch.arange(0, length - side + 1, stride)
    inside = ((offset >= 0) & (offset < side)).double()
    return (inside / inside.sum(1, keepdim=True)).float()
