"""NSA: a network finds patches of other good images that were cloned seamlessly into an image.

Schlüter, Tan, Hou, Kainz: "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization",
ECCV 2022, arXiv 2109.15222. Labels are the logistic ones, with which the paper's best figures were reached.

What differs, and why:

- A fit does not know its category. Each of the paper's settings by category is a parameter, and the preset ``paper``
  takes them from ``BY_CATEGORY`` (``nsa_categories``). The defaults are those of an aligned object whose background is
  not told apart; size, shift, flips and blending of textures are in ``TEXTURE``. For categories that MVTec AD lacks
  they are a guess.
- Objects are inspected in the middle 224 of 256 pixels, as in the paper. The map covers these and nothing else, so that
  it needs no border of zeros; pixels outside count nowhere. The score is the mean over these 224×224 pixels. The
  authors' is the mean over 256×256 with zeros, which is (224/256)² times as much: the order is the same.
- Rotated training images are interpolated bilinearly (the authors take the nearest pixel), and mirrored beyond
  their border, of which the paper's sizes show nothing.
- The authors take patches from the image that was drawn before; here it is any other one, drawn with the image's own
  seed, so that a batch does not depend on another. On rectangles patches are measured by the shorter side.
- Cloned patches of odd width stay where they were drawn; the authors' are moved by a pixel.
- Batch statistics belong to the weights of the evaluated epoch (see ``calibration``).

There is no pretrained backbone: ``backbone`` must be "none", every parameter counts as the method's own, 11.50 M at the
paper's width. In the lowered form the encoder stands as the backbone stage, the decoder as the head.

Map: the network's probability. Image score: its mean. fp16: all but the encoder's first stages; probability and mean
stay in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ...core.errors import EnvironmentMissingError, UsageError
from ...core.size import size_text
from ...core.spec import IMAGENET_MEAN, IMAGENET_STD
from ...host.extras import install
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.blocks import fold
from ..nn.calibration import recalibrate
from ..nn.graph import SmoothUpsample
from ..presets import Preset
from ..ranges import Count, CountOrZero, Degrees, HalfShare, NotNegative, Positive, Range, Share
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import LossTask, Optimisation
from ..training.trainer import Trainer
from .natural_rules import SMALLEST_AREA_PX, SMALLEST_SIDE_PX, PatchRule, shows
from .nsa_categories import BY_CATEGORY
from .nsa_network import Decoder, encoder

if TYPE_CHECKING:
    from .natural_batches import AnomalyMaker

_LAST_RATE = 1e-6
_REDUCTION = 32
_LARGEST_PX = 4096


@dataclass(frozen=True, kw_only=True)
class NsaConfig(TrainedConfig):
    """Parameters of NSA; ``nsa_categories.BY_CATEGORY`` holds what the authors set for each category of MVTec AD.

    Attributes:
        backbone: "none"; there is no pretrained network.
        weights: "none".
        width: channels of the encoder's first stage, a multiple of 4; 64 is ResNet-18.
        num_patches: largest number of patches in an image; each after the first is pasted with probability 1/2.
        smallest_half: least half height and half width of a patch, as a share of the image's shorter side.
        largest_height: largest half height of a patch, as a share of the shorter side; after its resize the limit of
            its whole height, as in the authors' code.
        largest_width: likewise for the width.
        scale_low: least factor by which a patch is resized; factors are drawn from N(1, 0.5) and clipped.
        scale_high: largest factor.
        blending: "normal" keeps the patch's gradients, "mixed" the stronger ones of patch and image (textures).
        background_level: mean level, of 255, of the background before which the object stands; −1 where
            it is not told apart, so that patches lie anywhere.
        background_threshold: difference from that level, of 255, from which a pixel belongs to the object.
        object_share: share of a patch that must belong to the object. Only with a background.
        overlap_share: share of the patch's object that must come to lie on the image's object. Only with a
            background.
        label_steepness: k of the label 1 / (1 + exp(−k (I − x₀))), where I is the change in levels of 255.
        label_middle: x₀: the change that counts as anomalous by one half.
        shift_px: training images are cut at random out of the middle that is larger by this many pixels.
        rotation_degrees: largest rotation of a training image, either way.
        flips_vertically: whether every other training image is turned upside down.
        draws_per_image: anomalies drawn for every image in an epoch.
        epochs: number of epochs; the learning rate falls to 1e-6 over them by a cosine.
        batch_size: images per step.
        learning_rate: Adam's first learning rate.
    """

    backbone: str = "none"
    weights: str = "none"
    resize_px: tuple[int, int] = (256, 256)
    crop_px: tuple[int, int] = (224, 224)
    width: Annotated[int, Range(low=4)] = 64
    num_patches: Annotated[int, Range(low=1, high=1000)] = 3
    smallest_half: HalfShare = 0.03
    largest_height: HalfShare = 0.4
    largest_width: HalfShare = 0.4
    scale_low: Positive = 0.7
    scale_high: Positive = 1.3
    blending: Literal["normal", "mixed"] = "normal"
    background_level: Annotated[int, Range(low=-1, high=255)] = -1
    background_threshold: Annotated[int, Range(low=0, high=255)] = 20
    object_share: Share = 0.7
    overlap_share: Share = 0.25
    label_steepness: Positive = 1 / 6
    label_middle: NotNegative = 15.0
    shift_px: CountOrZero = 6
    rotation_degrees: Degrees = 0.0
    flips_vertically: bool = False
    draws_per_image: Count = 1
    epochs: Count = 320
    batch_size: Count = 64
    learning_rate: Positive = 1e-3


@final
class Nsa(AbstractDetector[NsaConfig]):
    """NSA in its training form."""

    config_class = NsaConfig
    paper = Preset(
        source="The authors' code, of which the paper's table of parameters is a part; its values for each category of "
        "MVTec AD.",
        by_category=BY_CATEGORY,
    )
    half_scopes = ("backbone.stage2", "backbone.stage3", "backbone.stage4", "head.squeeze", "head.grow", "head.last")

    def __init__(self, config: NsaConfig) -> None:
        super().__init__(config)
        _check_network(config)
        _check_patches(config)
        _check_size(config)
        self.encoder = encoder(config.width)
        self.decoder = Decoder(config.width)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """A quarter of the paper's width; the middle 192 of 224 px, the share that the paper inspects of objects.

        Patches are more and smaller, labels count small changes, and images are turned and shifted farther, as a few
        dozen images allow no other variety. All epochs run and the last is kept, as in the paper: the rate has fallen
        to 1e-6 there, and the loss on cloned patches is no judge of real defects.
        """
        small = {"resize_px": 224, "crop_px": 192, "width": 16}
        patches = {"num_patches": 8, "largest_height": 0.2, "largest_width": 0.2}
        labels = {"label_steepness": 0.5, "label_middle": 4.0}
        views = {"shift_px": 16, "rotation_degrees": 5.0, "flips_vertically": True}
        fast = {"draws_per_image": 8, "epochs": 40, "batch_size": 8, "learning_rate": 3e-3}
        return small | patches | labels | views | fast | {"keep": "last", "patience": 0}

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of ImageNet, as in the authors' code."""
        return IMAGENET_MEAN, IMAGENET_STD

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Train the network on good images with patches of other good images.

        Raises:
            EnvironmentMissingError: OpenCV, which clones the patches, is not installed.
            UsageError: no image that was tried got an anomaly; the message says why.
        """
        config = self.config
        # Not channels_last: torch 2.14 writes past its memory in the backward pass of such transposed convolutions.
        self.to(context.device)
        maker = _maker(config, self.normalisation, seed=context.seed)
        calibration = maker.calibration(images, config.batch_size)
        held_out = maker.held_out(holdout, config.batch_size)
        share = float(torch.cat([labels.amax((1, 2)) > 0.0 for _, labels in calibration]).float().mean())
        if share == 0.0:
            raise UsageError(_nothing_drawn(config, maker.missing_step(images, config.batch_size)))

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            drawn, labels = moved(batch, context.device)
            return F.binary_cross_entropy_with_logits(self.logits(drawn), labels)

        def holdout_loss() -> float:
            recalibrate(self, lambda batch: self.logits(moved(batch[0], context.device)), batches=calibration)
            return sum(float(loss(batch)) * len(batch[0]) for batch in held_out) / len(holdout)

        optimiser = torch.optim.Adam(self.parameters(), config.learning_rate)
        scheduler = CosineAnnealingLR(optimiser, config.epochs, eta_min=_LAST_RATE)
        task = LossTask(
            self,
            Optimisation(optimiser=optimiser, scheduler=scheduler, scheduler_unit="epoch"),
            source=maker.source(images, draws_per_image=config.draws_per_image),
            loss=loss,
            holdout_loss=holdout_loss,
        )
        schedule = Schedule(
            epochs=config.epochs,
            batch_size=config.batch_size,
            patience=config.patience,
            keeps=config.keep,
        )
        report = Trainer(task, schedule=schedule, context=context).run()
        self.cpu()
        return {**report, "share_with_anomaly": share}

    def logits(self, images: Tensor) -> Tensor:
        """Images float32 (N, 3, H, W) → logits of the probability that each pixel is anomalous, (N, H, W)."""
        logits: Tensor = self.decoder(self.encoder(images))
        return logits.squeeze(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        anomaly_map = torch.sigmoid(self.logits(images))
        return anomaly_map.mean((1, 2)), anomaly_map

    def lower(self) -> Deployed:
        """Normalisations folded into the convolutions, transposed ones too; upsampling as matrices."""
        decoder: Any = fold(self.decoder)
        height, width = self.config.crop_px
        before, after = (height // 4, width // 4), (height // 2, width // 2)
        decoder.upsample = SmoothUpsample(before, after, sigma=0.0, align_corners=True)
        return Deployed(fold(self.encoder), decoder, _Post())


def _check_network(config: NsaConfig) -> None:
    """Raise UsageError where the network cannot have this form or this input."""
    if config.backbone != "none" or config.weights not in ("none", "random"):
        raise UsageError(
            f"nsa: backbone is {config.backbone!r} and weights {config.weights!r}, but it is trained from scratch. "
            "Leave both at 'none'."
        )
    if any(side % 32 for side in config.crop_px):
        crop = size_text(config.crop_px)
        raise UsageError(f"nsa: crop_px is {crop}; it is halved five times. Give multiples of 32, such as 128x384.")
    if config.width % 4:
        raise UsageError(f"nsa: width is {config.width}; expected a multiple of 4.")


def _check_patches(config: NsaConfig) -> None:
    """Raise UsageError where patches or views cannot be drawn so, or no epoch is named."""
    for name, largest in (("largest_height", config.largest_height), ("largest_width", config.largest_width)):
        if config.smallest_half > largest:
            raise UsageError(
                f"nsa: smallest_half is {config.smallest_half:g} and {name} {largest:g}; expected no more."
            )
    if config.scale_low > config.scale_high:
        raise UsageError(
            f"nsa: scale_low is {config.scale_low:g} and scale_high {config.scale_high:g}; expected no more."
        )
    if config.shift_px > (largest := min(config.crop_px) // 2):
        raise UsageError(f"nsa: shift_px is {config.shift_px}; expected at most half a side of crop_px, {largest}.")


def _check_size(config: NsaConfig) -> None:
    """Raise UsageError where images are so small, or patches of them, that hardly one shows."""
    rule = _patch_rule(config)
    height, width = rule.usual_px(config.crop_px)
    if shows((height, width)):
        return
    sizes = range(_REDUCTION, _LARGEST_PX + 1, _REDUCTION)
    least = next((side for side in sizes if shows(rule.usual_px((side, side)))), 0)
    larger = f"sides of {least} px or more, or " if least > min(config.crop_px) else ""
    raise UsageError(
        f"nsa: crop_px is {size_text(config.crop_px)}, where the usual patch is {height}x{width} px: too small to "
        f"show; without its border it needs {SMALLEST_AREA_PX} px², {SMALLEST_SIDE_PX} px a side. Give {larger}larger "
        f"patches: largest_height is {config.largest_height:g}, largest_width {config.largest_width:g}, scale_high "
        f"{config.scale_high:g}."
    )


def _maker(
    config: NsaConfig, normalisation: tuple[tuple[float, float, float], tuple[float, float, float]], *, seed: int
) -> AnomalyMaker:
    """Return what draws the training images; only here is OpenCV needed."""
    try:
        from .natural import ViewRule
        from .natural_batches import AnomalyMaker
    except ImportError as error:
        raise EnvironmentMissingError(
            f"nsa clones patches with OpenCV, which cannot be imported ({error}). Install: {install('train')}."
        ) from error
    views = ViewRule(
        crop_px=config.crop_px,
        shift_px=config.shift_px,
        rotation_degrees=config.rotation_degrees,
        flips_vertically=config.flips_vertically,
    )
    return AnomalyMaker(_patch_rule(config), views, normalisation=normalisation, seed=seed)


def _patch_rule(config: NsaConfig) -> PatchRule:
    background = (config.background_level, config.background_threshold) if config.background_level >= 0 else None
    return PatchRule(
        num_patches=config.num_patches,
        smallest=config.smallest_half,
        largest=(config.largest_height, config.largest_width),
        scales=(config.scale_low, config.scale_high),
        mixes=config.blending == "mixed",
        background=background,
        object_share=config.object_share,
        overlap_share=config.overlap_share,
        steepness=config.label_steepness,
        middle=config.label_middle,
    )


def _nothing_drawn(config: NsaConfig, step: str) -> str:
    """Say why no image got an anomaly.

    Args:
        config: parameters of NSA.
        step: the one of ``natural.STEPS`` that no patch took.
    """
    anywhere = "background_level=-1 lets patches lie anywhere"
    why = {
        "object": f"no pixel differs from background_level {config.background_level} by more than background_threshold "
        f"{config.background_threshold}. Give the level of the background, of 255, or a smaller threshold; {anywhere}.",
        "patch": f"no patch was found of which more than object_share {config.object_share:g} is object. Lower it, or "
        f"make patches smaller (largest_height, largest_width); {anywhere}.",
        "place": f"no place was found where more than overlap_share {config.overlap_share:g} of a patch's object lies "
        f"on the image's. Lower it; {anywhere}.",
        "change": "patches of other images change no pixel that counts. The images are of one colour or all alike, or "
        f"label_middle {config.label_middle:g} is far above what a patch changes. Give images that show the surface.",
    }
    return f"nsa: no image got an anomaly, so that there is nothing to learn: {why[step]}"


class _Post(nn.Module):
    """Logits → probability, and its mean over the whole map."""

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        probability = torch.sigmoid(logits).squeeze(1)
        return probability.mean((1, 2)), probability
