"""DifferNet: a normalising flow over globally pooled features of an image at three scales, averaged over rotations.

Rudolph, Wandt, Rosenhahn: "Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows", WACV
2021, arXiv 2008.12577.

Features are the spatial means of AlexNet's last map at 448, 224 and 112 px, 768 values in all. The score is the mean
of z² over these and over rotated views of the image.

What differs, and why:

- The views are fixed, i · 360° / num_rotations, and computed inside the graph by one constant Gather: nearest pixel,
  black outside, as torchvision rotates. The original draws them at random, so that a score would not repeat.
- It localises by input gradients, which no inference graph can give. So there is no localisation here: the anomaly
  map is the score at every pixel, and ``localises`` says so.
- A rectangle is turned within its own frame, as the original's rotation does: of a long part turned across, only the
  middle is seen, and its ends count in the views along it alone (of a 1:3 part in about a fifth of them).
- ``caches_rotations`` trains on the fixed views, whose features are computed once. The default, as in the paper,
  draws rotations of [0°, 360°) anew for every image and epoch.
- All 192 epochs (the authors' 24 × 8) run and the last one is kept. The authors report the epoch that was best on the
  test images; no epoch is picked on them here. The held-out loss is that of the fixed views.
- A timm network may stand in for AlexNet: its last map at ``stride``.

In fp16 the backbone and the subnets compute in half precision. The pooling, the stream of x, atan, exp and the means
stay in fp32.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size, size_text
from ..backbones.features import Backbone, cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.batch_norm import fold_batch_norm
from ..presets import Preset, of_table_4
from ..ranges import Count, NotNegative, Positive
from ..training.devices import moved
from ..training.features import CachedFeatures, mean_loss
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import BatchSource, LossTask, Optimisation
from ..training.trainer import Trainer
from .alexnet import ALEXNET, SMALLEST_PX, AlexNet
from .glow import (
    NUM_SCALES,
    Levels,
    LoweredGlow,
    Standardise,
    build_glow,
    folded,
    glow_loss,
    pyramid_maps,
)
from .rotations import Rotate, fixed_angles
from .views import DrawnViews, FixedViews, RandomViews


@dataclass(frozen=True, kw_only=True)
class DifferNetConfig(TrainedConfig):
    """Parameters of DifferNet.

    Attributes:
        backbone: ``"alexnet"``, or the name of a network in timm.
        stride: down-scale factor of the map; of a timm network only.
        num_rotations: number of views per frame.
        num_training_rotations: number of views per image and step of the training.
        caches_rotations: train on the fixed views, not on random ones.
        standardises: give every feature mean 0 and deviation 1 before the flow; the paper does not.
        steps: number of coupling blocks.
        clamp: bound of the log-scale of a coupling.
        hidden: width of a subnet's three hidden layers.
        epochs: number of epochs, unless ``patience`` or a time limit ends the training before.
        batch_size: images per step.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's weight decay.
    """

    backbone: str = ALEXNET
    resize_px: Size = (448, 448)
    crop_px: Size = (448, 448)
    stride: Count = 32
    num_rotations: Count = 64
    num_training_rotations: Count = 4
    caches_rotations: bool = False
    standardises: bool = False
    steps: Count = 8
    clamp: Positive = 3.0
    hidden: Count = 2048
    epochs: Count = 192
    batch_size: Count = 24
    learning_rate: Positive = 2e-4
    weight_decay: NotNegative = 1e-5


class DifferNet(AbstractDetector[DifferNetConfig]):
    """DifferNet in its training form: FrEIA's flow."""

    config_class = DifferNetConfig
    paper = Preset(source="Rudolph et al. (2021) and their code, whose 192 epochs are 24 of 8.")
    table4 = of_table_4(448)
    localises: ClassVar[bool] = False

    def __init__(self, config: DifferNetConfig) -> None:
        super().__init__(config)
        self.backbone = _backbone(config)
        # The score is a mean over everything: rounding in the backbone's first stages would move it as a whole.
        late = (f"backbone.network.{path}" for path in self.backbone.late_stages())
        self.half_scopes = (*late, "head.flow.couplings.*.net1", "head.flow.couplings.*.net2")
        self.rotate = Rotate(config.crop_px, fixed_angles(config.num_rotations), black=self._black())
        num_features = NUM_SCALES * self.backbone.channels[0]
        self.standardise = Standardise(num_features)
        self.flow: Any = build_glow(
            num_features,
            steps=config.steps,
            clamp=config.clamp,
            subnet=lambda _: _subnet(config.hidden),
        )

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Fewer views, their features computed once and standardised; narrow subnets; small batches."""
        views = {"resize_px": 256, "crop_px": 256, "num_rotations": 8, "caches_rotations": True, "standardises": True}
        fast = {"batch_size": 8, "learning_rate": 5e-4, "epochs": 200, "keep": "best", "patience": 25}
        return {**super().quick_settings(), **views, "hidden": 128, **fast}

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of AlexNet or the timm network."""
        return list(self.backbone.parameters())

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Maximise the likelihood of the good images' features over rotations."""
        config, device = self.config, context.device
        self.to(device)

        def cached(chosen: ImageSet, stage: str) -> Tensor:
            def fixed(batch: Tensor) -> tuple[Tensor]:
                return (self.features(self.rotate(batch))[None],)

            return cache_features(fixed, chosen, device=device, progress=context.progress, stage=stage, batch_size=1)[0]

        source: BatchSource[DrawnViews] = RandomViews(images, config.num_training_rotations)
        if config.caches_rotations or config.standardises:
            fit_features = cached(images, "features").flatten(0, 1)
            if config.standardises:
                self.standardise.learn(fit_features)
            if config.caches_rotations:
                views = self.standardise(moved(fit_features, device)).cpu().unflatten(0, (len(images), -1))
                source = FixedViews(views, config.num_training_rotations)
        holdout_features = CachedFeatures([cached(holdout, "held-out features").flatten(0, 1)])
        parameters = [item for item in self.flow.parameters() if item.requires_grad]
        optimiser = torch.optim.Adam(
            parameters, config.learning_rate, betas=(0.8, 0.8), eps=1e-4, weight_decay=config.weight_decay
        )
        task = LossTask(
            self.flow,
            Optimisation(optimiser=optimiser),
            source=source,
            loss=lambda batch: glow_loss(self.flow, self.drawn_features(batch)),
            holdout_loss=lambda: mean_loss(
                lambda features: glow_loss(self.flow, moved(features[0], device)),
                holdout_features,
                batch_size=config.batch_size,
            ),
        )
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = Trainer(task, schedule=schedule, context=context).run()
        self.cpu()
        return report

    def drawn_features(self, batch: DrawnViews) -> Tensor:
        """Features of drawn views of images: float32 (B · num_training_rotations, D), on the flow's device."""
        values, angles = moved(batch, next(self.flow.parameters()).device)
        if angles is None:
            return values
        with torch.no_grad():
            return torch.cat([self._features_at(*pair) for pair in zip(values.split(1), angles, strict=True)])

    def _features_at(self, image: Tensor, angles: Tensor) -> Tensor:
        rotate = Rotate(self.config.crop_px, angles, black=self._black())
        return self.features(rotate.to(image.device)(image))

    def _black(self) -> list[float]:
        return [-mean / std for mean, std in zip(self.backbone.mean, self.backbone.std, strict=True)]

    def features(self, views: Tensor) -> Tensor:
        """Normalised images float32 (V, 3, H, W) → pooled features of three scales, float32 (V, D)."""
        pooled: Tensor = self.standardise(pool(pyramid_maps(self.backbone, views)))
        return pooled

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``.

        It takes one image at a time, since its 64 views of 448 px need much memory.
        """
        z = torch.stack([self.flow(self.features(self.rotate(image)))[0] for image in images.split(1)])
        return score_and_map(z.flatten(0, 1), self.config)

    def lower(self) -> Deployed:
        """Flow without Jacobian, clamp folded; the views of all frames are one batch."""
        return Deployed(_Views(self), _Head(self), _Post(self.config))


def _backbone(config: DifferNetConfig) -> AlexNet | Backbone:
    if config.backbone != ALEXNET:
        return Backbone(config.backbone, config.weights, strides=(config.stride,))
    if min(config.crop_px) >> (NUM_SCALES - 1) < SMALLEST_PX:
        raise UsageError(
            f"crop_px is {size_text(config.crop_px)}: alexnet needs {SMALLEST_PX} px at the smallest scale, "
            f"so at least {SMALLEST_PX << (NUM_SCALES - 1)} on each side. Set crop_px and resize_px larger."
        )
    return AlexNet(config.weights)


def _subnet(hidden: int) -> Callable[[int, int], nn.Module]:
    def make(num_in: int, num_out: int) -> nn.Module:
        widths = [num_in, hidden, hidden, hidden, num_out]
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        return nn.Sequential(*[part for layer in layers[:-1] for part in (layer, nn.ReLU())], layers[-1])

    return make


def pool(maps: Levels) -> Tensor:
    """Spatial means side by side: float32 (V, C, h, w) per scale → (V, 3 · C)."""
    return torch.cat([item.mean((2, 3)) for item in maps], 1)


def score_and_map(z: Tensor, config: DifferNetConfig) -> tuple[Tensor, Tensor]:
    """float32 (N · num_rotations, D) → score float32 (N,), and the same at every pixel, float32 (N, H, W)."""
    score = z.square().mean(1).unflatten(0, (-1, config.num_rotations)).mean(1)
    return score, score[:, None, None].expand(-1, *config.crop_px)


class _Views(nn.Module):
    """Images → maps of all views at three scales."""

    def __init__(self, detector: DifferNet) -> None:
        super().__init__()
        self.rotate = detector.rotate
        self.network = fold_batch_norm(detector.backbone, torch.zeros(1, 3, 64, 64))

    def forward(self, images: Tensor) -> Levels:
        return pyramid_maps(self.network, self.rotate(images))


class _Head(nn.Module):
    """Maps → z (V, D)."""

    def __init__(self, detector: DifferNet) -> None:
        super().__init__()
        self.standardise = detector.standardise
        self.flow = LoweredGlow(detector.flow, _LoweredSubnet)

    def forward(self, maps: Levels) -> Levels:
        z: Levels = self.flow((self.standardise(pool(maps)),))
        return z


class _LoweredSubnet(nn.Module):
    def __init__(self, subnet: nn.Sequential, gains: Tensor) -> None:
        super().__init__()
        *layers, last = subnet
        self.layers = nn.Sequential(*copy.deepcopy(layers), folded(last, gains)).requires_grad_(False)

    def forward(self, levels: Levels) -> Levels:
        return (self.layers(levels[0]),)


class _Post(nn.Module):
    """z → score and constant map."""

    def __init__(self, config: DifferNetConfig) -> None:
        super().__init__()
        self._config = config

    def forward(self, levels: Levels) -> tuple[Tensor, Tensor]:
        return score_and_map(levels[0], self._config)
