"""EfficientAD: a shallow student learns a teacher's and an autoencoder's features; what it cannot tell is an anomaly.

Batzner, Heckler, König: "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
arXiv 2303.14535.

Teacher and student are patch description networks (PDN): four or six convolutions that describe patches of 33×33
pixels. Half of the student's channels learn the standardised features of the frozen teacher, from the thousandth of
them that it knows least; the other half learn what an autoencoder restores of these features from 64 numbers. The first
difference finds what is locally wrong, the second what is wrong as a whole. Each map is scaled so that its 0.9
quantile on good images becomes 0 and its 0.995 quantile 0.1. Their mean is the map, its maximum the score.

What differs, and why:

- The teacher is given as a file of weights. The paper distils it from a WideResNet-101 on ImageNet, which whoever
  trains on a line has not at hand. ``weights=random`` is a teacher that nobody taught, for figures and tests, and for
  quick settings, which must do without a file: it sees what random filters see.
- Where a folder is given as ``penalty_source``, its images hold the student to zero on what is no part, as
  ImageNet's do in the paper. Without one there is no penalty; the report of the fit says so.
- The quantiles are taken over a tenth of the images of the fit that neither student nor autoencoder learn from, as in
  the paper. The held-out images of the run serve the threshold, and are not touched.
- Where the images are not 256 px, the autoencoder's sizes follow those of the image; see ``Autoencoder``.
- An epoch goes once over the images of the fit; their number is the one with which at least ``steps`` are taken.

The teacher's map has four rows and columns less on each side than a quarter of the image. They are filled with zeros
(``pad_maps``), or the convolutions are padded (``padding``).

fp16: all three networks. Squared differences, their means and the map are not.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from ...core.errors import UsageError
from ...core.size import size_text
from ..backbones.features import cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.graph import SmoothUpsample
from ..ranges import Count, CountOrZero, HalfShare, NotNegative, Positive, ProperShare
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import LossTask, Optimisation
from ..training.trainer import Trainer
from .efficient_ad_batches import GoodAndOthers
from .efficient_ad_networks import WIDTHS, Autoencoder, PatchDescriptionNetwork, Teacher, features_size

_SMALLEST_PX = 64
_QUANTILES = (0.9, 0.995)
#: Value of the upper quantile after the scaling; the lower one becomes 0.
_UPPER = 0.1
_BORDER = 4
_SMALLEST_SPAN = 1e-12
_RATE_LEFT, _STEPS_AT_FULL_RATE = 0.1, 0.95


@dataclass(frozen=True, kw_only=True)
class EfficientAdConfig(TrainedConfig):
    """Parameters of EfficientAD.

    Attributes:
        backbone: the teacher's and the student's network: ``"pdn_small"`` or ``"pdn_medium"``.
        weights: the teacher's weights: a .safetensors or .pth file of such a network, or ``"random"``. There is no hub
            that has them, so that ``"imagenet"`` is refused.
        width: channels of their first convolution; 0 for the paper's (128 and 256).
        channels: channels of the teacher's features.
        padding: whether their convolutions are padded with zeros.
        pad_maps: whether the two maps get a border of four zeros before they are upsampled, which stands for what the
            convolutions without padding leave out.
        penalty_source: folder with images of all kinds but the part, searched with its sub-folders, on which the
            student is held to zero; "" for no penalty.
        quantile_share: share of the images that are left out of the training and set the quantiles of the maps.
        hard_quantile: share of the teacher's features that the student need not learn in a step: those it knows best.
        steps: number of training steps.
        batch_size: images per step.
        learning_rate: Adam's learning rate, of which a tenth is left for the last twentieth of the steps.
        weight_decay: weight of Adam's L2 term.
    """

    backbone: Literal["pdn_small", "pdn_medium"] = "pdn_small"
    width: CountOrZero = 0
    channels: Count = 384
    padding: bool = False
    pad_maps: bool = True
    penalty_source: str = ""
    quantile_share: HalfShare = 0.1
    hard_quantile: ProperShare = 0.999
    steps: Count = 70_000
    batch_size: Count = 1
    learning_rate: Positive = 1e-4
    weight_decay: NotNegative = 1e-5


@final
class EfficientAd(AbstractDetector[EfficientAdConfig]):
    """EfficientAD in its training form.

    Attributes:
        feature_mean: the teacher's mean feature of good images, float32 (C,).
        feature_std: its standard deviation, float32 (C,).
        quantiles: lower and upper quantile of the teacher's and of the autoencoder's map, float32 (2, 2).
    """

    config_class = EfficientAdConfig
    half_scopes = ("backbone.teacher", "head.student", "head.autoencoder")
    feature_mean: Tensor
    feature_std: Tensor
    quantiles: Tensor

    def __init__(self, config: EfficientAdConfig) -> None:
        super().__init__(config)
        if min(config.crop_px) < _SMALLEST_PX:
            raise UsageError(
                f"efficient_ad: crop_px is {size_text(config.crop_px)}; patches have 33 pixels, and the autoencoder "
                f"halves images five times. Give at least {_SMALLEST_PX} pixels on each side."
            )
        kind, width = config.backbone, config.width or WIDTHS[config.backbone]
        size = features_size(config.crop_px, is_padded=config.padding)
        self.backbone = Teacher(kind, config.weights, width=width, channels=config.channels, is_padded=config.padding)
        self.student = PatchDescriptionNetwork(
            kind, width=width, channels=2 * config.channels, is_padded=config.padding
        )
        self.autoencoder = Autoencoder(config.channels, image_px=config.crop_px, size=size)
        self.border = _BORDER if config.pad_maps else 0
        padded = size[0] + 2 * self.border, size[1] + 2 * self.border
        self.upsample = SmoothUpsample(padded, config.crop_px, sigma=0.0, align_corners=False)
        self.register_buffer("feature_mean", torch.zeros(config.channels))
        self.register_buffer("feature_std", torch.ones(config.channels))
        # With these a map stays as it is.
        self.register_buffer("quantiles", torch.tensor([[0.0, _UPPER], [0.0, _UPPER]]))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """An eighth of the width, 128 px, and a higher learning rate for the few steps.

        With the random teacher this learns the sample's texture a little, and its object hardly: nothing of what makes
        the method good is in it. A file of a pretrained teacher (``weights``, with ``width=0 channels=384``) has that.
        """
        network = {"backbone": "pdn_small", "weights": "random", "width": 16, "channels": 32}
        size = {"resize_px": 128, "crop_px": 128}
        return {**network, **size, "steps": 1000, "batch_size": 2, "learning_rate": 3e-3}

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of the teacher."""
        return list(self.backbone.parameters())

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Standardise the teacher, teach student and autoencoder, scale the maps by images that neither has seen."""
        config = self.config
        if len(images) < 2:
            raise UsageError(
                "efficient_ad needs an image to learn from and one for its quantiles; got one. Add images."
            )
        self.to(context.device)
        learned, kept = _split(images, config.quantile_share, seed=context.seed)
        self._standardise(learned, context)
        source = GoodAndOthers(learned, config.crop_px, folder=config.penalty_source, normalisation=self.normalisation)
        report = Trainer(self._task(source, holdout, context), schedule=self._schedule(source), context=context).run()
        self._scale(kept, context)
        self.cpu()
        notice = "The teacher has random weights and finds little; give a pretrained one (--weights)."
        return {
            **report,
            "num_quantile_images": len(kept),
            "penalty": source.penalty,
            **({"notice": f"EfficientAD: {notice}"} if config.weights == "random" else {}),
        }

    def _standardise(self, images: ImageSet, context: FitContext) -> None:
        (moments,) = cache_features(
            lambda batch: (_moments(self.backbone(batch)[0]),),
            images,
            device=context.device,
            progress=context.progress,
            stage="teacher",
        )
        mean, square = moments.double().mean(0)
        self.feature_mean.copy_(mean)
        # What never changes is left as it is, about its mean.
        deviation = (square - mean.square()).clamp(min=0.0).sqrt()
        self.feature_std.copy_(torch.where(deviation > 0.0, deviation, 1.0))

    def _task(self, source: GoodAndOthers, holdout: ImageSet, context: FitContext) -> LossTask[tuple[Tensor, ...]]:
        config = self.config
        trained = nn.ModuleList([self.student, self.autoencoder])
        optimiser = torch.optim.Adam(trained.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        schedule = self._schedule(source)
        total = schedule.epochs * -(-len(source) // config.batch_size)
        scheduler = StepLR(optimiser, max(1, int(_STEPS_AT_FULL_RATE * total)), _RATE_LEFT)

        def holdout_loss() -> float:
            plain = (holdout.batch([index]) for index in range(len(holdout)))
            losses = [float(self.loss(item, item)) for item in (moved(batch, context.device) for batch in plain)]
            return sum(losses) / len(losses)

        return LossTask(
            trained,
            Optimisation(optimiser=optimiser, scheduler=scheduler),
            source=source,
            loss=lambda batch: self.loss(*moved(batch, context.device)),
            holdout_loss=holdout_loss,
        )

    def _schedule(self, source: GoodAndOthers) -> Schedule:
        config = self.config
        epochs = -(-config.steps // -(-len(source) // config.batch_size))
        return Schedule(epochs=epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep)

    def _scale(self, images: ImageSet, context: FitContext) -> None:
        maps = cache_features(
            self.maps, images, device=context.device, progress=context.progress, stage="quantiles", batch_size=1
        )
        values = [np.quantile(item.numpy(), _QUANTILES) for item in maps]
        self.quantiles.copy_(torch.from_numpy(np.asarray(values)))

    def describe(self, images: Tensor) -> Tensor:
        """Normalised images float32 (N, 3, H, W) → the teacher's standardised features, float32 (N, C, h, w)."""
        features: Tensor = self.backbone(images)[0]
        return (features - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]

    def loss(self, images: Tensor, changed: Tensor, others: Tensor | None = None) -> Tensor:
        """Sum of the student's, the autoencoder's and their common loss, with the penalty: a scalar (Algorithm 1).

        Args:
            images: normalised good images, float32 (B, 3, H, W).
            changed: the same images in another light, which the autoencoder restores.
            others: images of all kinds, likewise normalised; None for no penalty.
        """
        local, _ = self.student(images).chunk(2, 1)
        loss = hard_loss((self.describe(images) - local).square(), self.config.hard_quantile)
        restored = self.autoencoder(changed)
        loss = loss + F.mse_loss(restored, self.describe(changed))
        loss = loss + F.mse_loss(self.student(changed).chunk(2, 1)[1], restored)
        return loss if others is None else loss + self.student(others).chunk(2, 1)[0].square().mean()

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images → difference from the teacher and from the autoencoder, unscaled, float32 (N, H, W)."""
        local, whole = self.student(images).chunk(2, 1)
        pairs = ((self.describe(images), local), (self.autoencoder(images), whole))
        first, second = (self.upsample(F.pad((a - b).square().mean(1), [self.border] * 4)) for a, b in pairs)
        return first, second

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        scaled = [
            _UPPER * (item - low) / (high - low).clamp(min=_SMALLEST_SPAN)
            for item, (low, high) in zip(self.maps(images), self.quantiles, strict=True)
        ]
        anomaly_map = 0.5 * (scaled[0] + scaled[1])
        return anomaly_map.amax((1, 2)), anomaly_map

    def lower(self) -> Deployed:
        """Standardisation folded into the teacher's last convolution, border and scaling into the upsampling."""
        return Deployed(_Teacher(self), _Head(self), _Post(self))


def hard_loss(squares: Tensor, share: float) -> Tensor:
    """Mean of the squared differences not below their quantile: float32 (B, C, h, w) → a scalar (section 3.2)."""
    count = squares.numel()
    return squares.flatten().topk(count - int(np.ceil(share * (count - 1)))).values.mean()


def _split(images: ImageSet, share: float, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """Return the images to learn from, and at least one other for the quantiles."""
    order = torch.randperm(len(images.paths), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(share * len(images.paths)))
    return images.part(sorted(order[count:])), images.part(sorted(order[:count]))


def _moments(features: Tensor) -> Tensor:
    """float32 (N, C, h, w) → mean and mean square of each image's channels, float32 (N, 2, C)."""
    return torch.stack([features.mean((2, 3)), features.square().mean((2, 3))], 1)


class _Teacher(nn.Module):
    """Images → images, for the other networks, and the teacher's standardised features."""

    def __init__(self, detector: EfficientAd) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(detector.backbone.network)
        last: Any = self.teacher.convs[-1]
        std = detector.feature_std.double()
        with torch.no_grad():
            last.weight.copy_(last.weight.double() / std[:, None, None, None])
            last.bias.copy_((last.bias.double() - detector.feature_mean.double()) / std)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, self.teacher(images)


class _Head(nn.Module):
    """Images and the teacher's features → mean squared differences from teacher and autoencoder, (N, h, w) each."""

    def __init__(self, detector: EfficientAd) -> None:
        super().__init__()
        self.student = detector.student
        self.autoencoder = detector.autoencoder

    def forward(self, seen: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, features = seen
        local, whole = self.student(images).chunk(2, 1)
        restored = self.autoencoder(images)
        return (features - local).square().mean(1), (restored - whole).square().mean(1)


class _Post(nn.Module):
    """Differences → one weighted sum, upsampled, plus a constant; its maximum → score.

    Scaling and upsampling are linear, and a border of zeros adds nothing but the columns of its matrices.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor
    offset: Tensor

    def __init__(self, detector: EfficientAd) -> None:
        super().__init__()
        height, width = detector.upsample.rows.shape[1], detector.upsample.columns.shape[0]
        border = detector.border
        self.register_buffer("rows", detector.upsample.rows[:, border : height - border].contiguous())
        self.register_buffer("columns", detector.upsample.columns[border : width - border].contiguous())
        low, high = detector.quantiles.double().unbind(1)
        weights = 0.5 * _UPPER / (high - low).clamp(min=_SMALLEST_SPAN)
        self.register_buffer("weights", weights.float())
        self.register_buffer("offset", -(weights * low).sum().float())

    def forward(self, differences: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        local, whole = differences
        weighted = self.weights[0] * local + self.weights[1] * whole
        anomaly_map = self.rows @ weighted @ self.columns + self.offset
        return anomaly_map.amax((1, 2)), anomaly_map
