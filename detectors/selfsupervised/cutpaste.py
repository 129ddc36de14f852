"""CutPaste: networks that tell good images from ones with a piece pasted elsewhere; a Gaussian on what they learned.

Li, Sohn, Yoon, Pfister: "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021,
arXiv 2104.04015.

Two networks are trained alike, as in the paper: one on whole images, whose pooled embedding gives the image score, and
one on patches, whose embeddings all over the image give the map. Both lie in one graph.

What differs, and why:

- The paper's patch network is a ResNet-18, which pads each patch with zeros and has to be run on 2401 of them, at 711
  GFLOPs an image of 256 px. Here it has no padding (``PatchNetwork``): one pass over the image gives the embeddings of
  all patches, exactly. Its layers are our choice.
- The paper does not say how deep the projection is, how far images are shifted and what enters there, how aspect ratios
  are drawn, or what the covariance of fewer images than dimensions is: parameters and ``cutpaste_draws`` name these
  guesses. Embeddings are brought to unit length before the Gaussian, as a public reimplementation does.
- A patch's score is half the squared Mahalanobis distance, its negative log-density; public reimplementations take the
  distance itself. Patches come in the same order, but spreading adds their scores, so that the map is another one.
- Scores of patches are spread over pixels as in FCDD's code, which public reimplementations took over.
- One training each; the paper's best figures are those of five models together.
- Batch statistics belong to the weights of the evaluated epoch (see ``calibration``).

There is no frozen network: every parameter of both networks counts as the method's own, also those that began with
pretrained weights. Projections and classifiers serve the training only and are not kept.

Scores are negative logarithms of densities up to a constant: half a squared Mahalanobis distance. fp16: the patch
network, and the image network's stages after stride 4; the densities stay in fp32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ...core.errors import UsageError
from ...core.size import Size, size_text
from ..backbones.features import cache_features
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.blocks import fold
from ..nn.calibration import calibration_parts, recalibrate
from ..ranges import Count, CountOrZero, NotNegative, Positive, Range, ShareBelowOne
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import LossTask, Optimisation
from ..training.trainer import Trainer
from .cutpaste_density import Gaussian, ReceptiveFieldUpsample
from .cutpaste_draws import VARIANTS, DrawnViews, DrawRule, Labelled
from .cutpaste_networks import STRIDE, BackboneStem, OwnStem, PatchNetwork, Pretext, TrainedBackbone, pooled

_IMAGE_STRIDE = 32
_CALIBRATION, _HELD_OUT = 1, 2


@dataclass(frozen=True, kw_only=True)
class CutPasteConfig(TrainedConfig):
    """Parameters of CutPaste.

    Attributes:
        backbone: network in timm of the image network and of ``patch_stem`` "backbone": ResNet-18, the paper's; which
            weights its tag names is a guess.
        weights: weights that networks of timm begin with; the paper's main result is trained from scratch.
        variant: kinds of images told apart: ``"3way"`` (good, cut and pasted, scar), ``"cutpaste"`` or ``"scar"``
            (good and one of them).
        patch_px: side of a patch in pixels, a multiple of 16. Public reimplementations take 32.
        patch_stem: beginning of the patch network: ``"own"`` for two convolutions trained from scratch, ``"backbone"``
            for that of ``backbone`` up to stride 4, which may be pretrained. A guess.
        patch_width: an eighth of the channels of a patch's embedding. A guess.
        image_score: ``"image"`` for the density of the image's embedding; ``"patches"`` for the largest score of a
            patch, as a public reimplementation takes it: no image network is then trained.
        density: ``"one"`` for one Gaussian over all patches, ``"position"`` for one per position, for aligned objects.
        regularisation: value added to the diagonal of each covariance; 0 for the shrinkage of Ledoit and Wolf. A guess.
        evens_borders: divide each pixel of the map by the sum of its weights, so that borders are not darker.
        projection_depth: hidden layers of the projection, 512 channels each. A guess.
        jitter: strength of the colour jitter.
        translation: largest shift of an image as a share of its sides, mirrored at the border. A guess.
        steps_per_epoch: steps that count as one epoch.
        epochs: largest number of epochs, of the image network and again of the patch network.
        batch_size: good images per step; each is drawn in every kind.
        learning_rate: learning rate of SGD with momentum 0.9; it falls by a cosine to 0.
        weight_decay: weight decay of SGD.
    """

    backbone: str = "resnet18.tv_in1k"
    weights: str = "random"
    variant: Literal["3way", "cutpaste", "scar"] = "3way"
    patch_px: Annotated[int, Range(low=16)] = 64
    patch_stem: Literal["own", "backbone"] = "own"
    patch_width: Count = 64
    image_score: Literal["image", "patches"] = "image"
    density: Literal["one", "position"] = "one"
    regularisation: NotNegative = 0.0
    evens_borders: bool = False
    projection_depth: CountOrZero = 1
    jitter: Annotated[float, Range(low=0, high=0.5)] = 0.1
    translation: ShareBelowOne = 0.1
    steps_per_epoch: Count = 256
    epochs: Count = 256
    batch_size: Count = 32
    learning_rate: Positive = 0.03
    weight_decay: NotNegative = 3e-5


class CutPaste(AbstractDetector[CutPasteConfig]):
    """CutPaste in its training form."""

    config_class = CutPasteConfig

    def __init__(self, config: CutPasteConfig) -> None:
        super().__init__(config)
        _check(config)
        self.image_network: TrainedBackbone | None = None
        self.image_density: Gaussian | None = None
        if config.image_score == "image":
            self.image_network = TrainedBackbone(config.backbone, config.weights, stride=_IMAGE_STRIDE)
            self.image_density = Gaussian(self.image_network.channels[0])
        self.patch_network = PatchNetwork(_stem(config), config.patch_width)
        self.patch_density = Gaussian(self.patch_network.dim)
        self.upsample = ReceptiveFieldUpsample(
            config.crop_px, config.patch_px, stride=STRIDE, is_even=config.evens_borders
        )
        # The image's embedding is a mean over everything: rounding in the first stages would move it as a whole.
        late = self.image_network.late_stages() if self.image_network else ()
        self.half_scopes = (*(f"backbone.image.{path}" for path in late), "backbone.stem", "head.patches")

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of ``backbone``, whether or not a part of it is used."""
        from timm.models import get_pretrained_cfg

        known: Any = get_pretrained_cfg(self.config.backbone)
        return tuple(known.mean), tuple(known.std)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Patches alone, their network begun with a pretrained stem; one Gaussian over all of them.

        All epochs run and the last is kept: the rate has fallen to 0 there, and the loss of the task on eight held-out
        images does not say which embeddings tell defects best.
        """
        size = {"resize_px": 192, "crop_px": 192, "patch_px": 48}
        patches = {"patch_stem": "backbone", "patch_width": 32, "image_score": "patches"}
        density = {"density": "one", "regularisation": 1e-3}
        fast = {"steps_per_epoch": 20, "epochs": 60, "batch_size": 16, "keep": "last", "patience": 0}
        return {**super().quick_settings(), **size, **patches, **density, **fast}

    def backbone_parameters(self) -> list[nn.Parameter]:
        """None: every parameter is trained."""
        return []

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Train the networks, each for its share of the time limit, then fit the densities of their embeddings."""
        trained: list[tuple[str, nn.Module, int, Size]] = [
            ("patch network", self.patch_network, self.patch_network.dim, (self.config.patch_px,) * 2)
        ]
        if self.image_network:
            trained.append(("image network", self.image_network, self.image_network.channels[0], self.config.crop_px))
        self.to(context.device).to(memory_format=torch.channels_last)
        share = context.share_of(len(trained))
        report: dict[str, Any] = {
            name: self._train(network, dim, images=(images, holdout), view_px=view_px, name=name, context=share)
            for name, network, dim, view_px in trained
        }
        patches, *embedded = cache_features(
            self._embed, images, device=context.device, progress=context.progress, stage="embeddings"
        )
        self.cpu().to(memory_format=torch.contiguous_format)
        groups = patches.flatten(0, 1)[None] if self.config.density == "one" else patches.transpose(0, 1)
        learned = [(self.patch_density, groups)]
        if self.image_density:
            learned.append((self.image_density, embedded[0][None]))
        for density, vectors in learned:
            density.learn(vectors, regularisation=self.config.regularisation, progress=context.progress)
        return {**report, "num_patches": patches.shape[1]}

    def _embed(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images → embeddings of the patches (N, P, D), and of the images (N, D') where there is a network for them."""
        patches = self.patch_network(images).flatten(2).transpose(1, 2)
        return (patches, pooled(self.image_network(images))) if self.image_network else (patches,)

    def _train(
        self,
        network: nn.Module,
        dim: int,
        *,
        images: tuple[ImageSet, ImageSet],
        view_px: Size,
        name: str,
        context: FitContext,
    ) -> dict[str, Any]:
        """Train a network to tell the kinds of views apart."""
        config, device = self.config, context.device
        rule = DrawRule(
            variant=config.variant,
            view_px=view_px,
            jitter=config.jitter,
            translation=config.translation,
            mean=self.normalisation[0],
            std=self.normalisation[1],
        )
        pretext = Pretext(network, dim=dim, num_kinds=len(VARIANTS[config.variant]), depth=config.projection_depth)
        pretext.to(device).to(memory_format=torch.channels_last)

        def loss(batch: Labelled) -> Tensor:
            patches, kinds = moved(batch, device)
            return F.cross_entropy(pretext(patches), kinds)

        optimiser = torch.optim.SGD(
            pretext.parameters(), config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
        scheduler = CosineAnnealingLR(optimiser, config.epochs * config.steps_per_epoch)
        task = LossTask(
            pretext,
            Optimisation(optimiser=optimiser, scheduler=scheduler),
            source=DrawnViews(rule, images[0], config.steps_per_epoch * config.batch_size),
            loss=loss,
            holdout_loss=_holdout_loss(pretext, loss, rule=rule, images=images, batch_size=config.batch_size),
            name=name,
        )
        schedule = Schedule(
            epochs=config.epochs,
            batch_size=config.batch_size,
            patience=config.patience,
            keeps=config.keep,
        )
        return Trainer(task, schedule=schedule, context=context).run()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        scores = self.patch_density(self.patch_network(images))
        anomaly_map = self.upsample(scores)
        if self.image_network and self.image_density:
            embeddings = pooled(self.image_network(images))[:, :, None, None]
            return self.image_density(embeddings).flatten(), anomaly_map
        return scores.amax((1, 2)), anomaly_map

    def lower(self) -> Deployed:
        """Normalisations folded; the patch network runs on the whole image."""
        return Deployed(_Networks(self), _Head(self), _Post(self))


def _holdout_loss(
    pretext: Pretext,
    loss: Callable[[Labelled], Tensor],
    *,
    rule: DrawRule,
    images: tuple[ImageSet, ImageSet],
    batch_size: int,
) -> Callable[[], float]:
    """Return a function that sets the batch statistics, then gives the loss over the same held-out views each time."""
    fitted, held_out = images

    def drawn(source: ImageSet, part: Tensor, stream: int) -> Labelled:
        generator = torch.Generator().manual_seed((stream << 32) + int(part[0]))
        return rule.draw(source.batch(part.tolist()), generator)

    def holdout_loss() -> float:
        parts = calibration_parts(len(fitted), batch_size)
        recalibrate(pretext, loss, batches=(drawn(fitted, part, _CALIBRATION) for part in parts))
        parts = torch.arange(len(held_out)).split(batch_size)
        return sum(float(loss(drawn(held_out, part, _HELD_OUT))) * len(part) for part in parts) / len(held_out)

    return holdout_loss


def _check(config: CutPasteConfig) -> None:
    crop, patch = size_text(config.crop_px), config.patch_px
    if patch % 16:
        raise UsageError(f"cutpaste: patch_px is {patch}; expected a multiple of 16, such as 32 or 64.")
    if any(side < patch or side % STRIDE for side in config.crop_px):
        raise UsageError(
            f"cutpaste: crop_px is {crop}; expected sides of at least patch_px ({patch}), multiples of {STRIDE}, so "
            "that patches reach every border."
        )


def _stem(config: CutPasteConfig) -> OwnStem | BackboneStem:
    if config.patch_stem == "own":
        return OwnStem(config.patch_width, config.patch_px)
    return BackboneStem(config.backbone, config.weights, config.patch_px)


class _Networks(nn.Module):
    """Images → the image network's map, where there is one, and that of the patch network's stem."""

    def __init__(self, detector: CutPaste) -> None:
        super().__init__()
        self.image = fold(detector.image_network) if detector.image_network else None
        self.stem = fold(detector.patch_network.stem)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.image(images) if self.image else ()
        return (*maps, self.stem(images))


class _Head(nn.Module):
    """Maps → score (N,) and the patches' scores (N, h, w)."""

    def __init__(self, detector: CutPaste) -> None:
        super().__init__()
        self.patches = fold(detector.patch_network.body)
        self.image_density = detector.image_density
        self.patch_density = detector.patch_density

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        scores = self.patch_density(self.patches(maps[-1]))
        if self.image_density is None:
            return scores.amax((1, 2)), scores
        return self.image_density(pooled(maps[0])[:, :, None, None]).flatten(), scores


class _Post(nn.Module):
    """Score as it is; scores of patches → map."""

    def __init__(self, detector: CutPaste) -> None:
        super().__init__()
        self.upsample = detector.upsample

    def forward(self, scores: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return scores[0], self.upsample(scores[1])
