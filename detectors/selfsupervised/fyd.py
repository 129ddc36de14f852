"""FYD: good images are aligned, coarsely by spatial transformers and finely by their features; a Gaussian per position.

Zheng, Wang, Deng, Bao, Zhao, Wu: "Focus Your Distribution: Coarse-to-Fine Non-Contrastive Learning for Anomaly
Detection and Localization", ICME 2022, arXiv 2110.04538.

A spatial transformer warps the image, one more the map of each stage before the next stage takes it. The first has a
loss of its own, the distance of two warped images' pixels over all pairs. All of it, the pretrained network too, learns
that the features of two good images agree at every position (a similarity without negative samples, SimSiam's). Then
features are warped back to the image's coordinates and scored as PaDiM does.

The authors published no code, and what is known of the paper leaves much open. Guesses, most of them after RegAD
(Huang et al., ECCV 2022, arXiv 2207.07361), which has the same parts, are parameters: the size of images, the kinds of
transforms and their bound, the sizes of transformers and heads, the levels that have a loss, the weight of the coarse
loss, rate, batch and epochs. Guesses without a parameter: Adam with a falling rate; no augmentation; statistics of the
pretrained network's batch normalisations stay; both losses are means, so that their weight does not depend on sizes.

What differs, and why:

- Transforms back are composed, inverted in closed form and applied once per level. Level by level a map would be
  interpolated up to four times.
- Changes by a transform are bounded (``largest_change``): the coarse loss falls also where images are magnified or
  shrunk instead of aligned, and without a bound the inverse need not exist. Of parts at any angle that is what is
  learned: three epochs on MVTec AD's screw shrank every image by 1.24, of 1.25 that are allowed.
- A last batch of one image gets a second one, since one has no pair.
- Statistics of the new batch normalisations belong to the weights of the evaluated epoch (see ``calibration``).

Projector and predictor are of the training only. The backbone is trained and lies in the checkpoint; extra parameters
are the transformers'. fp16: the backbone. Coordinates, warps and distances stay in fp32.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ...core.errors import UsageError
from ...core.size import Size
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.calibration import calibration_parts, recalibrate
from ..nn.gaussians import DistanceMap, LoweredGaussians, Maps, PositionGaussians
from ..presets import Preset
from ..ranges import Count, CountOrZero, NotNegative, Positive, Range
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import BatchSource, Draw, LossTask, Optimisation
from ..training.trainer import Trainer
from .fyd_learning import Learner
from .fyd_transformers import AlignedStages, SpatialTransformer, WarpBack

_STRIDES = (4, 8, 16)
_LEVEL_HALVINGS = 2


@dataclass(frozen=True, kw_only=True)
class FydConfig(TrainedConfig):
    """Parameters of FYD; those that are guesses say so.

    Attributes:
        backbone: name of the pretrained network in timm (a guess for the published figures: resnet18).
        resize_px: height and width in pixels that a frame is resized to (a guess: RegAD's, without a crop).
        crop_px: height and width of the centre crop after it.
        image_transform: transform of the image: ``"affine"`` (a guess), ``"rotation_scale"`` or ``"none"``.
        level_transform: transform of each level's map: ``"rotation_scale"`` (a guess: RegAD's), ``"affine"`` or
            ``"none"``.
        largest_change: bound of each value of a transform (a guess; see ``SpatialTransformer``), below 0.5; 0 for none,
            with which an inverse need not exist.
        padding: what a warp reads outside: ``"reflection"`` (a guess: RegAD's), ``"border"`` or ``"zeros"``.
        image_halvings: convolutions with a halving of the image's transformer (a guess; a level's has RegAD's two).
        transformer_width: hidden width of the transformers (a guess: RegAD's).
        fine_levels: levels that the fine loss is computed on: ``"all"`` (a guess) or ``"last"``.
        head_width: channels of projector and predictor (a guess: RegAD's).
        coarse_weight: weight of the coarse loss beside the fine one's 1 (a guess).
        num_features: channels drawn at random from all levels (a guess: PaDiM's); 0 for PaDiM's choice (550 where the
            levels have at least 1024 channels together, as wide_resnet50_2; 100 otherwise, as resnet18).
        regularisation: value that is added to the diagonal of each covariance (a guess: PaDiM's).
        epochs: number of epochs (a guess: RegAD's).
        batch_size: images per step, at least 2, in all pairs (a guess: RegAD's).
        learning_rate: Adam's learning rate, which falls by a cosine to 0 (a guess: RegAD's rate).
    """

    backbone: str = "resnet18.tv_in1k"
    resize_px: Size = (224, 224)
    crop_px: Size = (224, 224)
    image_transform: Literal["none", "affine", "rotation_scale"] = "affine"
    level_transform: Literal["none", "affine", "rotation_scale"] = "rotation_scale"
    largest_change: Annotated[float, Range(low=0, high=0.5, takes_high=False)] = 0.25
    padding: Literal["reflection", "border", "zeros"] = "reflection"
    image_halvings: Annotated[int, Range(low=1, high=8)] = 4
    transformer_width: Count = 1024
    fine_levels: Literal["all", "last"] = "all"
    head_width: Count = 256
    coarse_weight: NotNegative = 0.1
    num_features: CountOrZero = 0
    regularisation: Positive = 0.01
    epochs: Count = 50
    batch_size: Annotated[int, Range(low=2)] = 32
    learning_rate: Positive = 1e-4


@final
class Fyd(AbstractDetector[FydConfig]):
    """FYD in its training form."""

    config_class = FydConfig
    half_scopes = ("backbone.aligned.backbone.network",)
    paper = Preset(
        source="Zheng et al. (2022); what it leaves open is guessed, mostly after RegAD, as no code was published."
    )

    def __init__(self, config: FydConfig) -> None:
        super().__init__(config)
        backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        transformers = _transformers(config, backbone)
        self.aligned = AlignedStages(backbone, transformers, crop_px=config.crop_px, padding=config.padding)
        self.warp_back = WarpBack(self.aligned.sizes, padding=config.padding)
        self.gaussians = PositionGaussians(
            backbone.channels,
            num_features=config.num_features,
            regularisation=config.regularisation,
            backbone=config.backbone,
        )
        self.distance_map = DistanceMap(self.aligned.sizes[0], config.crop_px)

    @property
    def backbone(self) -> Backbone:
        """The network that is aligned and trained."""
        return self.aligned.backbone

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Narrow transformers and heads, small batches, a few epochs."""
        narrow = {"transformer_width": 32, "head_width": 64}
        return {**super().quick_settings(), **narrow, "epochs": 10, "batch_size": 8}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Align the good images, then fit the Gaussians on their features."""
        if len(images) < 2:
            raise UsageError("FYD compares good images with each other; expected at least two. Add good images.")
        gaussians = self.gaussians
        gaussians.draw(context.seed)
        self.to(context.device)
        report = self._learn(images, holdout, context)
        (vectors,) = cache_features(
            lambda batch: (gaussians.embed(self.maps(batch)).transpose(1, 2),),
            images,
            device=context.device,
            progress=context.progress,
            stage="features",
        )
        self.cpu()
        gaussians.learn(vectors, device=context.device, progress=context.progress)
        return {
            **report,
            "num_positions": vectors.shape[1],
            "num_features": gaussians.dim,
            "channels": gaussians.channels.tolist(),
        }

    def _learn(self, images: ImageSet, holdout: ImageSet, context: FitContext) -> dict[str, Any]:
        config, device = self.config, context.device
        learner = Learner(
            self.aligned,
            levels=range(len(_STRIDES)) if config.fine_levels == "all" else [len(_STRIDES) - 1],
            head_width=config.head_width,
            coarse_weight=config.coarse_weight if config.image_transform != "none" else 0.0,
        ).to(device)
        self.backbone.requires_grad_(True)
        optimiser = torch.optim.Adam(learner.parameters(), config.learning_rate)
        num_steps = config.epochs * -(-len(images) // config.batch_size)

        def loss(batch: Tensor) -> Tensor:
            value: Tensor = learner(moved(batch, device))
            return value

        def holdout_loss() -> float:
            parts = calibration_parts(len(images), config.batch_size)
            recalibrate(learner.new_parts(), loss, batches=(images.batch(part.tolist()) for part in parts))
            # As many parts as there are whole batches, so that none has one image alone.
            shared = torch.arange(len(holdout)).tensor_split(max(1, len(holdout) // config.batch_size))
            return sum(float(loss(holdout.batch(part.tolist()))) * len(part) for part in shared) / len(holdout)

        task = LossTask(
            learner,
            Optimisation(optimiser=optimiser, scheduler=CosineAnnealingLR(optimiser, num_steps)),
            source=ImagePairs(images),
            loss=loss,
            holdout_loss=holdout_loss,
        )
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = Trainer(task, schedule=schedule, context=context).run()
        self.backbone.requires_grad_(False)
        return report

    def maps(self, images: Tensor) -> Maps:
        """Normalised images float32 (N, 3, H, W) → maps in the image's coordinates, float32 (N, C, h, w) per level."""
        _, maps, backs = self.aligned(images)
        warped: Maps = self.warp_back(maps, backs)
        return warped

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        score, anomaly_map = self.distance_map(self.gaussians(self.maps(images)))
        return score, anomaly_map

    def lower(self) -> Deployed:
        """Normalisations folded, channels selected before they are warped back, one batched MatMul."""
        return Deployed(_Stages(self), _Head(self), self.distance_map)


def _transformers(config: FydConfig, backbone: Backbone) -> nn.ModuleDict:
    sizes = backbone.map_sizes(config.crop_px)
    made: dict[str, nn.Module] = {}

    def add(name: str, channels: int, size: Size, *, kind: str, num_halvings: int) -> None:
        if kind != "none":
            made[name] = SpatialTransformer(
                channels,
                size,
                kind=kind,
                largest_change=config.largest_change,
                num_halvings=num_halvings,
                width=config.transformer_width,
            )

    add("image", 3, config.crop_px, kind=config.image_transform, num_halvings=config.image_halvings)
    for level, (channels, size) in enumerate(zip(backbone.channels, sizes, strict=True)):
        add(f"level{level}", channels, size, kind=config.level_transform, num_halvings=_LEVEL_HALVINGS)
    return nn.ModuleDict(made)


@final
class ImagePairs(BatchSource[Tensor]):
    """Good images as they are, float32 (B, 3, H, W), never one alone.

    Args:
        images: good images, at least two.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> Tensor:
        indices = draw.indices.tolist()
        if len(indices) == 1:
            step = int(torch.randint(1, len(self), (), generator=draw.generator()))
            indices.append((indices[0] + step) % len(self))
        return self._images.batch(indices)


class _Stages(nn.Module):
    """Images → aligned maps, and the transforms back."""

    def __init__(self, detector: Fyd) -> None:
        super().__init__()
        self.aligned = detector.aligned.lower()

    def forward(self, images: Tensor) -> Maps:
        _, maps, backs = self.aligned(images)
        return (*maps, *backs)


class _Head(nn.Module):
    """Aligned maps, and the transforms back → Mahalanobis distance (N, h·w)."""

    def __init__(self, detector: Fyd) -> None:
        super().__init__()
        self.gaussians = LoweredGaussians(detector.gaussians)
        self.warp_back = detector.warp_back
        self._num_levels = len(detector.aligned.sizes)

    def forward(self, inputs: Maps) -> Tensor:
        selected = self.gaussians.select(inputs[: self._num_levels])
        distances: Tensor = self.gaussians(self.warp_back(selected, inputs[self._num_levels :]))
        return distances
