"""Glance: a patch is compared with what its surroundings promise.

Wang, Wu, Cui, Shen: "Glancing at the Patch: Anomaly Localization with Global and Local Feature Comparison", CVPR 2021,
doi 10.1109/CVPR46437.2021.00032.

Local-Net embeds a patch. It is distilled from a pretrained network, whose embedding a linear decoder must find again in
its own. Global-Net predicts that embedding from the image in which the patch is hidden, by partial convolutions. The
inconsistency (IAD) of the two is their squared difference; the distortion head (DAD) is a classifier that learned to
tell patches from stained ones. The score of a patch is a weighted mean of both.

No code was published and the paper leaves open much. The layers follow an unofficial implementation that names the
supplementary material. Parameters that are guesses say so in ``GlanceConfig``; guesses without a parameter:

- The stains (``glance_batches.stain``): an ellipse of one colour with an irregular edge, four waves of up to a fifth of
  its radius each; half axes of 5 to 35 % of the patch's sides, the middle in the inner 80 %; half of the stains are
  opaque, the others cover by 30 to 100 %.
- With ``anneals`` the rates rise from a tenth over the first 8 % of the steps, then fall by a cosine to a thousandth
  (``WarmCosine``).
- Weights begin by He's initialisation for leaky ReLUs, biases at 0.

What differs, and why:

- Patches lie ``step_px`` apart, a multiple of 4, in the middle of the image: 19×19 at 256 px instead of 20×20. So
  Local-Net, which halves its maps twice, runs once over the image (see ``glance_dense``).
- The distortion head has one logit instead of two and a softmax, which is the same function with fewer weights.
- Distillation needs images of all kinds, in the paper ImageNet's. Give a folder as ``distillation_source``; without one
  Local-Net learns from the teacher on the training images alone.
- Rectangles are refused: Global-Net is laid out for squares.
- The paper has no image score; it is the maximum of the map.
- The teacher's embeddings are standardised per channel, so that the weights of the losses do not hang on the teacher.

The teacher serves the fit only: every parameter of the deployed model is the method's own, 2.1 M.

fp16: both networks. The squared difference and the distortion head stay in fp32.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...bundle.manifest import WeightsRecord
from ...core.errors import UsageError
from ...core.spec import IMAGENET_MEAN, IMAGENET_STD
from ..backbones.features import Backbone, cache_features
from ..backbones.weights import weights_record
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..ranges import Count, NotNegative, Positive, Share
from ..training.devices import moved
from ..training.features import train_on_features
from ..training.images import ImageSet, image_files
from ..training.schedules import Schedule, WarmCosine
from ..training.task import BatchSource, Draw, LossTask, Optimisation
from ..training.trainer import Trainer
from .glance_batches import HiddenPatches, draw_positions, stain
from .glance_dense import DenseGlobalNet, DenseLocalNet
from .glance_map import make_interpolation
from .glance_networks import LOCAL_STRIDE, DistortionHead, GlobalNet, LocalNet, PatchGrid, cut, seen_around

_SMALLEST_PX = 64
_TEACHER_STRIDE = 32
_SMALLEST_SPREAD = 1e-6
#: Steps whose draws training never makes: the held-out patches are the same in every epoch.
_HELD_OUT_SEED = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class GlanceConfig(TrainedConfig):
    """Parameters of Glance. Those marked as guesses are stated neither by the paper nor by code of its authors.

    Attributes:
        backbone: the teacher, whose last map at stride 32, averaged, Local-Net is distilled from; its weights are a
            guess, the network is the paper's.
        weights: the teacher's weights.
        teacher_px: side that a patch is enlarged to for the teacher; a guess.
        local_width: channels of Local-Net's first layer; the next have twice as many. A guess: the unofficial
            implementation's, as are the next three.
        global_width: channels of Global-Net's first layer; a guess.
        embedding_size: number of channels of an embedding; a guess.
        leaky_slope: slope of the leaky ReLUs below zero; a guess.
        step_px: distance of neighbouring patches in pixels, a multiple of 4, by which Local-Net reduces; a guess.
        distillation_source: folder with images of all kinds, searched with its sub-folders, that Local-Net is first
            distilled on; "" for none.
        distillation_epochs: passes over them; a guess.
        distillation_stains: share of the training images' patches that Local-Net sees with a stain, for want of images
            of all kinds; a guess.
        local_epochs: passes over the training images for Local-Net; a guess.
        local_patches: patches that Local-Net learns from, drawn once from each image; a guess.
        local_batch_size: patches per step of Local-Net; a guess.
        local_learning_rate: Adam's learning rate for Local-Net; a guess.
        distillation_weight: weight λ_k of the difference from the teacher's embedding; a guess.
        compactness_weight: weight λ_c of the correlations between channels of the embedding; a guess.
        epochs: passes over the training images for Global-Net and the distortion head; a guess.
        learning_rate: Adam's learning rate for them; a guess.
        distortion_weight: weight λ_t of the distortion head's loss; a guess.
        batch_size: images per step of Global-Net; a guess.
        patches_per_image: patches of each image in such a step; a guess.
        anneals: let the learning rates warm up and fall by a cosine; a guess.
        inconsistency_share: weight λ_s of the inconsistency in the score, the rest is the distortion's. A guess: the
            unofficial implementation's, as are the next two.
        interpolation: ``"inverse_distance"`` of the patches' centres to a pixel gives the map, or ``"bilinear"``; a
            guess.
        distance_power: power of the inverse distance; a guess.
    """

    backbone: str = "resnet18.tv_in1k"
    teacher_px: Count = 64
    local_width: Count = 128
    global_width: Count = 16
    embedding_size: Count = 128
    leaky_slope: Share = 0.005
    step_px: Count = 12
    distillation_source: str = ""
    distillation_epochs: Count = 20
    distillation_stains: Share = 0.0
    local_epochs: Count = 200
    local_patches: Count = 64
    local_batch_size: Count = 64
    local_learning_rate: Positive = 1e-4
    distillation_weight: NotNegative = 1.0
    compactness_weight: NotNegative = 1e-2
    epochs: Count = 200
    learning_rate: Positive = 1e-3
    distortion_weight: NotNegative = 1.0
    batch_size: Count = 2
    patches_per_image: Count = 8
    anneals: bool = True
    inconsistency_share: Share = 0.8
    interpolation: Literal["inverse_distance", "bilinear"] = "inverse_distance"
    distance_power: Positive = 5.0


class Teacher(nn.Module):
    """Embeds patches by a pretrained network: the mean of its last map.

    Args:
        config: parameters of Glance.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, config: GlanceConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone, config.weights, strides=(_TEACHER_STRIDE,))
        self.size_px = config.teacher_px
        own_mean, own_std, mean, std = (
            torch.tensor(item)[:, None, None]
            for item in (IMAGENET_MEAN, IMAGENET_STD, self.backbone.mean, self.backbone.std)
        )
        self.register_buffer("scale", own_std / std)
        self.register_buffer("offset", (own_mean - mean) / std)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches float32 (B, 3, h, w) as Local-Net takes them → float32 (B, C)."""
        size = (self.size_px, self.size_px)
        grown = F.interpolate(patches * self.scale + self.offset, size, mode="bilinear", align_corners=False)
        embeddings: Tensor = self.backbone(grown)[0].mean((2, 3))
        return embeddings


class Glance(AbstractDetector[GlanceConfig]):
    """Glance in its training form."""

    config_class = GlanceConfig
    takes_rectangles = False
    why_squares = "predicts each patch by a network that is laid out for a square around it"

    def __init__(self, config: GlanceConfig) -> None:
        super().__init__(config)
        _check(config)
        side, size, slope = config.crop_px[0], config.embedding_size, config.leaky_slope
        self.grid = PatchGrid(side, config.step_px)
        self.local = LocalNet(config.local_width, size, slope=slope, step_px=config.step_px)
        self.surroundings = GlobalNet(config.global_width, size, slope=slope, image_px=side)
        self.distortion = DistortionHead(size, slope=slope)
        self.interpolate = make_interpolation(self.grid, config.interpolation, power=config.distance_power)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """128 px, a quarter of Local-Net's width, half of Local-Net's patches and of the score for stains.

        At 128 px a patch covers four times the share of the part that it does at 256 px, and a step costs a quarter.
        Without images of all kinds Local-Net knows what the training images show, so that it must see stains to
        embed them apart. All epochs run and the last is kept, since both learning rates fall to the end.
        """
        size = {"resize_px": 128, "crop_px": 128, "local_width": 32, "distillation_stains": 0.5}
        local = {"local_patches": 96, "local_epochs": 20, "local_learning_rate": 1e-3}
        fast = {"epochs": 40, "batch_size": 1, "learning_rate": 3e-3, "inconsistency_share": 0.5}
        return {**super().quick_settings(), **size, **local, **fast, "keep": "last", "patience": 0}

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """ImageNet's mean and standard deviation, whatever the teacher takes."""
        return IMAGENET_MEAN, IMAGENET_STD

    def pretrained(self) -> WeightsRecord | None:
        """Which weights the teacher was given, which serves the fit only; None where they are random."""
        return weights_record(self.config.backbone, self.config.weights)

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Distil Local-Net, then teach Global-Net and the distortion head; they share the time limit."""
        config = self.config
        self.to(context.device)
        context = context.share_of(3 if config.distillation_source else 2)
        distillation = _Distillation(self, context)
        report: dict[str, Any] = {}
        if config.distillation_source:
            mean, std = self.normalisation
            files = image_files(
                Path(config.distillation_source),
                parameter="distillation_source",
                without="to distil on the training images alone",
            )
            general = ImageSet(files, config.crop_px, crop_px=config.crop_px, mean=mean, std=std)
            epochs = config.distillation_epochs
            report["distillation"] = distillation.run(general, holdout, epochs=epochs, name="distillation")
        report["local"] = distillation.run(
            images, holdout, epochs=config.local_epochs, name="local network", stains=config.distillation_stains
        )
        report |= self._fit_surroundings(images, holdout, context)
        self.cpu()
        return report

    def _fit_surroundings(self, images: ImageSet, holdout: ImageSet, context: FitContext) -> dict[str, Any]:
        config, device = self.config, context.device
        black, white = _black_and_white(self.normalisation)

        def source(item: ImageSet) -> HiddenPatches:
            side, count = config.crop_px[0], config.patches_per_image
            return HiddenPatches(item, count, image_px=side, black=black, white=white)

        def loss(batch: tuple[Tensor, ...]) -> Tensor:
            return self.loss(*moved(batch, device))

        trained = nn.ModuleList([self.surroundings, self.distortion])
        steps = -(-len(images) // config.batch_size)
        task = LossTask(
            trained,
            _optimisation(trained, config.learning_rate, config.epochs * steps if config.anneals else 0),
            source=source(images),
            loss=loss,
            holdout_loss=lambda: _mean_loss(loss, source(holdout), config.batch_size, seed=context.seed),
        )
        return Trainer(task, schedule=_schedule(config, config.epochs, config.batch_size), context=context).run()

    def loss(self, images: Tensor, positions: Tensor, patches: Tensor, stained: Tensor) -> Tensor:
        """Inconsistency plus weighted distortion loss of a batch of ``HiddenPatches``: a scalar.

        The distortion head must find patches good and stained ones bad, each beside the same prediction.
        """
        with torch.no_grad():
            good, bad = self.local(torch.cat([patches, stained])).chunk(2)
        predicted = self.surroundings(images, seen_around(positions, images.shape[-1]))
        inconsistency = F.mse_loss(predicted, good)
        logits = self.distortion(torch.cat([good, bad]), torch.cat([predicted, predicted]))
        stains = torch.cat([torch.zeros_like(logits[: len(good)]), torch.ones_like(logits[len(good) :])])
        distortion = F.binary_cross_entropy_with_logits(logits, stains)
        return inconsistency + self.config.distortion_weight * distortion

    def embeddings(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (N, 3, S, S) → Local-Net's and Global-Net's embedding of each patch, float32 (N, D, n, n)."""
        num, positions = self.grid.num, torch.tensor(list(self.grid.positions()), device=images.device)
        seen = seen_around(positions, images.shape[-1]).split(num)
        rows = []
        # Row by row: all patches' masked images together would fill the memory.
        for row in seen:
            masked = images.repeat_interleave(num, 0), row.repeat(len(images), 1, 1, 1)
            rows.append(self.surroundings(*masked).reshape(len(images), num, -1))
        return self.local(self.grid.covered(images)), torch.stack(rows, 1).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        scores = patch_scores(*self.embeddings(images), self.distortion, share=self.config.inconsistency_share)
        anomaly_map = self.interpolate(scores)
        return anomaly_map.amax((1, 2)), anomaly_map

    def lower(self) -> Deployed:
        """Masks as constants in windows around the patches, all patches in the batch axis."""
        return Deployed(_Networks(self), _Head(self), _Post(self))


def patch_scores(local: Tensor, surroundings: Tensor, distortion: nn.Module, *, share: float) -> Tensor:
    """Weighted mean of inconsistency and probability of a stain: float32 (N, n, n).

    Args:
        local: Local-Net's embeddings, float32 (N, D, n, n).
        surroundings: Global-Net's predictions of them.
        distortion: the distortion head.
        share: weight of the inconsistency.
    """
    inconsistency = (local - surroundings).square().mean(1)
    return share * inconsistency + (1.0 - share) * torch.sigmoid(distortion(local, surroundings))


def compactness(embeddings: Tensor) -> Tensor:
    """Sum of the correlations between different channels of float32 (B, D), over the batch: a scalar."""
    centred = embeddings - embeddings.mean(0)
    unit = centred / centred.square().sum(0).sqrt().clamp(min=1e-6)
    # Of all pairs: |Σ unit|². A channel correlates with itself by 1.
    total: Tensor = unit.sum(1).square().sum() - unit.square().sum()
    return total


class _Distillation:
    """Teaches Local-Net, on the device of the teacher, what the teacher sees in patches."""

    def __init__(self, detector: Glance, context: FitContext) -> None:
        self.config, self.context = detector.config, context
        self.teacher = Teacher(detector.config).to(context.device)
        decoder = nn.Linear(detector.config.embedding_size, self.teacher.backbone.channels[0])
        self.student = nn.Sequential(detector.local, nn.Flatten(), decoder).to(context.device)
        self.black, self.white = _black_and_white(detector.normalisation)

    def patches(self, images: ImageSet, *, stage: str, share: float = 0.0) -> list[Tensor]:
        """Cut patches at random positions: float32 (B, 3, 33, 33), with the teacher's embeddings of them (B, C).

        Args:
            images: images to cut from.
            stage: name of the work for progress.
            share: share of the patches that get a stain.
        """
        count, device = self.config.local_patches, self.context.device
        generator = torch.Generator().manual_seed(self.context.seed)

        def compute(batch: Tensor) -> tuple[Tensor, ...]:
            positions = draw_positions(len(batch) * count, batch.shape[-1], generator=generator)
            cut_out = cut(batch.cpu().repeat_interleave(count, 0), positions)
            if share:
                stained = stain(cut_out, black=self.black, white=self.white, generator=generator)
                is_stained = torch.rand((len(cut_out), 1, 1, 1), generator=generator) < share
                cut_out = torch.where(is_stained, stained, cut_out)
            cut_out = cut_out.to(device)
            return tuple(item.unflatten(0, (-1, count)) for item in (cut_out, self.teacher(cut_out)))

        progress = self.context.progress
        stored = cache_features(compute, images, device=device, progress=progress, stage=stage, batch_size=4)
        return [item.flatten(0, 1) for item in stored]

    def loss(self, pair: tuple[Tensor, ...]) -> Tensor:
        """Squared distance of the decoded embedding from the teacher's, plus weighted correlations: a scalar."""
        patches, wanted = pair
        embeddings = self.student[0](patches).flatten(1)
        distance: Tensor = (self.student[2](embeddings) - wanted).square().sum(1).mean()
        return self.config.distillation_weight * distance + self.config.compactness_weight * compactness(embeddings)

    def run(
        self, images: ImageSet, holdout: ImageSet, *, epochs: int, name: str, stains: float = 0.0
    ) -> dict[str, Any]:
        """Train for some epochs on patches of the images, a share of them with stains; see ``Trainer.run``."""
        config = self.config
        (patches, wanted), (held_out, held_out_wanted) = (
            self.patches(item, stage=f"{name}: {stage}", share=stains)
            for item, stage in ((images, "patches"), (holdout, "held-out"))
        )
        mean, spread = wanted.mean(0), wanted.std(0).clamp(min=_SMALLEST_SPREAD)
        steps = -(-len(patches) // config.local_batch_size)
        return train_on_features(
            self.student,
            _optimisation(self.student, config.local_learning_rate, epochs * steps if config.anneals else 0),
            loss=self.loss,
            fit_features=(patches, (wanted - mean) / spread),
            holdout_features=(held_out, (held_out_wanted - mean) / spread),
            schedule=_schedule(config, epochs, config.local_batch_size),
            context=self.context,
            name=name,
        )


def _mean_loss(loss: Any, source: BatchSource[Any], batch_size: int, *, seed: int) -> float:
    """Mean loss over a source's images, the same draws each time."""
    total = 0.0
    for step, part in enumerate(torch.arange(len(source)).split(batch_size)):
        draw = Draw(indices=part, epoch=0, step=_HELD_OUT_SEED - step, seed=seed)
        total += float(loss(source[draw])) * len(part)
    return total / len(source)


def _optimisation(module: nn.Module, rate: float, annealed_steps: int) -> Optimisation:
    optimiser = torch.optim.Adam(module.parameters(), rate)
    scheduler = WarmCosine(optimiser, num_steps=annealed_steps) if annealed_steps else None
    return Optimisation(optimiser=optimiser, scheduler=scheduler)


def _schedule(config: GlanceConfig, epochs: int, batch_size: int) -> Schedule:
    return Schedule(epochs=epochs, batch_size=batch_size, patience=config.patience, keeps=config.keep)


def _black_and_white(normalisation: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[Tensor, Tensor]:
    """Normalised values of a black and of a white pixel, float32 (3, 1, 1) each."""
    mean, std = (torch.tensor(item)[:, None, None] for item in normalisation)
    return -mean / std, (1.0 - mean) / std


def _check(config: GlanceConfig) -> None:
    side = config.crop_px[0]
    if side < _SMALLEST_PX:
        raise UsageError(f"glance: crop_px is {side}; expected {_SMALLEST_PX} or more, to see around a patch.")
    if config.step_px % LOCAL_STRIDE:
        raise UsageError(f"glance: step_px is {config.step_px}; expected a multiple of {LOCAL_STRIDE}, such as 12.")


class _Networks(nn.Module):
    """Images → embeddings of the patches and their predictions, float32 (N, D, n, n)."""

    def __init__(self, detector: Glance) -> None:
        super().__init__()
        self.local = DenseLocalNet(detector.local, detector.grid)
        self.surroundings = DenseGlobalNet(detector.surroundings, detector.grid)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.local(images), self.surroundings(images)


class _Head(nn.Module):
    """Embeddings → scores of the patches, float32 (N, n, n)."""

    def __init__(self, detector: Glance) -> None:
        super().__init__()
        self.distortion = detector.distortion
        self.share = detector.config.inconsistency_share

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return patch_scores(*pair, self.distortion, share=self.share)


class _Post(nn.Module):
    """Scores of the patches → anomaly map; its maximum → score."""

    def __init__(self, detector: Glance) -> None:
        super().__init__()
        self.interpolate = detector.interpolate

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        anomaly_map: Tensor = self.interpolate(scores)
        return anomaly_map.amax((1, 2)), anomaly_map
