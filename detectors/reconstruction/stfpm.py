"""STFPM: an untrained copy of a pretrained network learns the maps of three of its stages from good images.

Wang, Han, Ding, Huang: "Student-Teacher Feature Pyramid Matching for Anomaly Detection", BMVC 2021, arXiv 2103.04257.

At every position of each map teacher and student are compared as unit vectors: half the squared distance (equation 1).
The three maps are upsampled to the image and multiplied (equation 4), the image score is the maximum.

What differs, and why:

- Any timm CNN may teach; the student is the same network, untrained.
- All 100 epochs run and the last one is kept. The paper keeps the one with the lowest loss on a fifth of the images:
  ``keep=best``, by the held-out images.
- Momentum and weight decay are those of the authors' code; the paper gives the learning rate only.
- The student's batch statistics are computed over training images under the weights of each evaluated epoch (see
  ``calibration``).
- Images and the teacher's maps are kept: nothing is augmented.

fp16: the student, and the teacher after its map at stride 4, from where its rounding would be carried through all three
factors of the map. Norms and distances are not: sums of squares over hundreds of channels can pass 65504, and the
distance is a small difference of vectors of length 1.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.features import Backbone, cache_features
from ..backbones.weights import create_network
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.graph import SmoothUpsample
from ..ranges import Count, NotNegative, Positive, ShareBelowOne
from ..training.features import train_on_features
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import Optimisation

_STRIDES = (4, 8, 16)
_SMALLEST_NORM_SQUARED = 1e-24

Maps = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class StfpmConfig(TrainedConfig):
    """Parameters of STFPM.

    Attributes:
        backbone: name of the teacher in timm, and of the student; a tag after a dot says which of its weights.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        batch_size: images per step.
        learning_rate: learning rate of stochastic gradient descent.
        momentum: its momentum; the authors' code's.
        weight_decay: weight of its L2 term; the authors' code's.
    """

    backbone: str = "resnet18.tv_in1k"
    epochs: Count = 100
    batch_size: Count = 32
    learning_rate: Positive = 0.4
    momentum: ShareBelowOne = 0.9
    weight_decay: NotNegative = 1e-4


@final
class Student(nn.Module):
    """A network of the teacher's kind, untrained and cut where the teacher is.

    Args:
        name: name of the teacher in timm.
        indices: stages of it that give maps, as ``Backbone.indices``.
    """

    def __init__(self, name: str, indices: list[int]) -> None:
        super().__init__()
        network: Any = create_network(name, "random")
        network.prune_intermediate_layers(indices, prune_norm=False, prune_head=True)
        self.indices = indices
        self.network = network

    def forward(self, images: Tensor) -> Maps:
        """Normalised images float32 (N, 3, H, W) → one float32 (N, C, h, w) per stage, as the teacher's."""
        network: Any = self.network
        return tuple(
            network.forward_intermediates(images, indices=self.indices, intermediates_only=True, stop_early=True)
        )


@final
class Stfpm(AbstractDetector[StfpmConfig]):
    """STFPM in its training form."""

    config_class = StfpmConfig

    def __init__(self, config: StfpmConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.backbone, config.weights, strides=_STRIDES)
        late = (f"backbone.teacher.{path}" for path in self.backbone.late_stages())
        self.half_scopes = (*late, "head.student")
        self.student = Student(config.backbone, self.backbone.indices)
        self.upsamples = nn.ModuleList(
            SmoothUpsample(size, config.crop_px, sigma=0.0, align_corners=False)
            for size in self.backbone.map_sizes(config.crop_px)
        )

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Small batches, so that a few dozen images give some hundred steps."""
        return {**super().quick_settings(), "batch_size": 4, "epochs": 40, "keep": "best"}

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Teach the student the teacher's maps of the good images."""
        config = self.config
        self.to(context.device)
        optimiser = torch.optim.SGD(
            self.student.parameters(), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        report = train_on_features(
            self.student,
            Optimisation(optimiser=optimiser),
            loss=lambda item: matching_loss(item[1:], self.student(item[0])),
            fit_features=self._seen(images, context, "features"),
            holdout_features=self._seen(holdout, context, "held-out features"),
            schedule=Schedule(
                epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
            ),
            context=context,
        )
        self.cpu()
        return report

    def _seen(self, images: ImageSet, context: FitContext, stage: str) -> list[Tensor]:
        """Return the images, and the teacher's maps of them."""
        return cache_features(
            lambda batch: (batch, *self.backbone(batch)),
            images,
            device=context.device,
            progress=context.progress,
            stage=stage,
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        maps = self.backbone(images), self.student(images)
        return product_map([distance(a, b) for a, b in zip(*maps, strict=True)], self.upsamples)

    def lower(self) -> Deployed:
        """The same modules, unit vectors by products with reciprocal norms."""
        return Deployed(_Teacher(self), _Head(self), _Post(self))


def distance(target: Tensor, given: Tensor) -> Tensor:
    """Half the squared distance of unit vectors (equation 1): float32 (N, C, h, w) twice → float32 (N, h, w)."""
    return 0.5 * (F.normalize(target) - F.normalize(given)).square().sum(1)


def matching_loss(targets: Maps, given: Maps) -> Tensor:
    """Sum over stages of the mean distance over positions and images (equations 2 and 3): a scalar."""
    return torch.stack([distance(a, b).mean() for a, b in zip(targets, given, strict=True)]).sum()


def product_map(distances: list[Tensor], upsamples: nn.ModuleList) -> tuple[Tensor, Tensor]:
    """Multiply the upsampled distances: score float32 (N,), anomaly_map float32 (N, H, W) in [0, 8]."""
    first, *others = (upsample(item) for upsample, item in zip(upsamples, distances, strict=True))
    anomaly_map = first
    for item in others:
        anomaly_map = anomaly_map * item
    return anomaly_map.amax((1, 2)), anomaly_map


class _Teacher(nn.Module):
    """Images → images, for the student, and the teacher's maps."""

    def __init__(self, detector: Stfpm) -> None:
        super().__init__()
        self.teacher = detector.backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Maps]:
        return images, self.teacher(images)


class _Head(nn.Module):
    """Images and the teacher's maps → distance (N, h, w) per stage."""

    def __init__(self, detector: Stfpm) -> None:
        super().__init__()
        self.student = detector.student

    def forward(self, seen: tuple[Tensor, Maps]) -> Maps:
        images, maps = seen
        return tuple(
            0.5 * (_unit(a) - _unit(b)).square().sum(1) for a, b in zip(maps, self.student(images), strict=True)
        )


def _unit(maps: Tensor) -> Tensor:
    return maps * torch.rsqrt(maps.square().sum(1, keepdim=True).clamp(min=_SMALLEST_NORM_SQUARED))


class _Post(nn.Module):
    """Distances → anomaly map; its maximum → score."""

    def __init__(self, detector: Stfpm) -> None:
        super().__init__()
        self.upsamples = detector.upsamples

    def forward(self, distances: Maps) -> tuple[Tensor, Tensor]:
        return product_map(list(distances), self.upsamples)
