"""DRAEM: one network restores an image with a synthetic anomaly, another detects where it was restored.

Zavrtanik, Kristan, Skočaj: "DRAEM – A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
Detection", ICCV 2021, arXiv 2108.07610.

What differs, and why:

- The anomalies' textures are the Describable Textures in the paper. Give a folder of images as ``texture_source``;
  without one, textures are drawn from noise (see ``synthetic``), so that nothing has to be downloaded.
- Channels stay in the order RGB. The authors' code reads BGR, which makes no difference to networks trained from
  scratch. Pixels are in [0, 1], not normalised further, as in the paper.
- The learning rate falls by 0.2 at 80 % and 90 % of the epochs, as in the paper, and the last epoch is kept, as in the
  authors' code. The held-out loss is that of good images with synthetic anomalies that never change.
- Rectangles are rotated within their frame, as squares are; anomalies are not stretched with them (``synthetic``).
- Batch statistics belong to the weights of the evaluated epoch (see ``calibration``).
- Convolutions before a batch normalisation have no bias, which it would cancel.

There is no pretrained backbone: ``backbone`` must be "none", every parameter counts as the method's own. In the lowered
form the reconstructive network stands as the backbone stage, the discriminative one as the head.

Map: probability of an anomaly. Image score: maximum of its mean over windows of 21×21 pixels, zero outside.
fp16: both networks but for their first convolutions. These see pixels, whose mean is large beside their contrast: with
its weights rounded a channel is shifted everywhere alike, and what is the same everywhere does not average out. Batch
normalisations are folded in float64 before anything is rounded. The probability and the window means stay in fp32.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ...bundle.manifest import Tolerance
from ...core.errors import UsageError
from ...core.size import size_text
from ..base import AbstractDetector, Deployed, FitContext, TrainedConfig
from ..nn.blocks import fold, plain_conv
from ..nn.calibration import calibration_parts, recalibrate
from ..presets import Preset
from ..ranges import Count, Positive, Share
from ..training.devices import moved
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import LossTask, Optimisation
from ..training.trainer import Trainer
from .draem_networks import (
    DiscriminativeNetwork,
    ReconstructiveNetwork,
    focal_loss,
    initialise,
    structural_similarity,
)
from .pairs import CALIBRATION, HELD_OUT, DrawnPairs, PairMaker


@dataclass(frozen=True, kw_only=True)
class DraemConfig(TrainedConfig):
    """Parameters of DRAEM.

    Attributes:
        backbone: "none"; there is no pretrained network.
        weights: "none".
        reconstructive_width: channels of the first stage of the reconstructive network.
        discriminative_width: channels of the first stage of the discriminative network.
        window_px: side in pixels of the windows whose mean gives the image score; odd.
        texture_source: folder with images of textures, searched with its sub-folders; "" draws textures from noise.
        rotation_share: share of training images that are rotated by up to 90°.
        clean_share: share of training images that stay without an anomaly.
        draws_per_image: anomalies drawn for every image in an epoch. More make epochs longer, and so the statistics
            and the held-out loss, taken once per epoch, cheaper.
        epochs: number of epochs; the learning rate falls after 80 % and 90 % of them.
        batch_size: images per step.
        learning_rate: Adam's learning rate.
    """

    backbone: str = "none"
    weights: str = "none"
    reconstructive_width: Count = 128
    discriminative_width: Count = 64
    window_px: Count = 21
    texture_source: str = ""
    rotation_share: Share = 0.3
    clean_share: Share = 0.5
    draws_per_image: Count = 1
    epochs: Count = 700
    batch_size: Count = 8
    learning_rate: Positive = 1e-4


class Draem(AbstractDetector[DraemConfig]):
    """DRAEM in its training form."""

    config_class = DraemConfig
    paper = Preset(
        source="Zavrtanik et al. (2021) and their code, but textures from noise unless texture_source names a folder."
    )
    half_scopes = (
        *("backbone.network.encoder.0.1", *(f"backbone.network.encoder.{number}" for number in range(1, 9))),
        *("backbone.network.decoder", "backbone.network.last"),
        *("head.network.encoder.0.1", *(f"head.network.encoder.{number}" for number in range(1, 6))),
        *(f"head.network.{part}" for part in ("pool", "grow", "join", "decoder", "last")),
    )

    def __init__(self, config: DraemConfig) -> None:
        super().__init__(config)
        _check(config)
        self.reconstructive = ReconstructiveNetwork(config.reconstructive_width)
        self.discriminative = DiscriminativeNetwork(config.discriminative_width)
        self.apply(initialise)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """A sixteenth of the paper's width, an eighth for the second network, at 128 px; most images with an anomaly.

        Hundreds of steps find strong defects only, thin ones in the plain maximum of the map alone.
        """
        small = {"resize_px": 128, "crop_px": 128, "reconstructive_width": 8, "discriminative_width": 8, "window_px": 1}
        fast = {
            "clean_share": 0.2,
            "draws_per_image": 4,
            "epochs": 20,
            "keep": "best",
            "batch_size": 4,
            "learning_rate": 3e-3,
        }
        return small | fast

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean 0 and standard deviation 1: pixels stay in [0, 1]."""
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Train both networks on good images with synthetic anomalies."""
        config = self.config
        self.to(context.device).to(memory_format=torch.channels_last)
        maker = PairMaker(
            config.crop_px,
            texture_source=config.texture_source,
            rotation_share=config.rotation_share,
            clean_share=config.clean_share,
            seed=context.seed,
        )
        optimiser = torch.optim.Adam(self.parameters(), config.learning_rate)
        scheduler = LambdaLR(optimiser, lambda epoch: rate_left(config, epoch))

        def calibrate() -> None:
            parts = calibration_parts(len(images), config.batch_size)
            batches = (moved(maker.pairs(images, part, stream=CALIBRATION), context.device) for part in parts)
            recalibrate(self, lambda pairs: self.logits(pairs[0]), batches=batches)

        def holdout_loss() -> float:
            calibrate()
            total = 0.0
            for part in torch.arange(len(holdout)).split(config.batch_size):
                pairs = maker.pairs(holdout, part, stream=HELD_OUT)
                total += float(self.loss(*moved(pairs, context.device))) * len(part)
            return total / len(holdout)

        task = LossTask(
            self,
            Optimisation(optimiser=optimiser, scheduler=scheduler, scheduler_unit="epoch"),
            source=DrawnPairs(maker, images, config.draws_per_image),
            loss=lambda pairs: self.loss(*moved(pairs, context.device)),
            holdout_loss=holdout_loss,
        )
        schedule = Schedule(
            epochs=config.epochs, batch_size=config.batch_size, patience=config.patience, keeps=config.keep
        )
        report = Trainer(task, schedule=schedule, context=context).run()
        self.cpu().to(memory_format=torch.contiguous_format)
        return {**report, "textures": maker.source}

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (N, 3, H, W) → restored (N, 3, H, W), logits of good and anomalous (N, 2, H, W)."""
        restored = self.reconstructive(images)
        return restored, self.discriminative(restored, images)

    def loss(self, images: Tensor, originals: Tensor, masks: Tensor) -> Tensor:
        """Return squared error and dissimilarity of the restored images plus focal loss of the logits: a scalar."""
        restored, logits = self.logits(images)
        dissimilarity = 1.0 - structural_similarity(restored, originals)
        return F.mse_loss(restored, originals) + dissimilarity + focal_loss(logits, masks)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        anomaly_map = self.logits(images)[1].softmax(1)[:, 1]
        window = self.config.window_px
        means = F.avg_pool2d(anomaly_map[:, None], window, stride=1, padding=window // 2)
        return means.amax((1, 2, 3)), anomaly_map

    def tolerance(self, precision: str) -> Tolerance:
        """Return wider tolerances: some forty convolutions in a row magnify rounding about fiftyfold."""
        # After a short fit the fp32 reference itself was off its float64 value by 1e-4 of the map's range.
        usual = super().tolerance(precision)
        maps = {"fp32": 5e-4, "fp16": 1e-1}.get(precision, usual.anomaly_map)
        return dataclasses.replace(usual, anomaly_map=maps)

    def lower(self) -> Deployed:
        """Normalisations folded, one logit instead of two, window means as matrices."""
        return Deployed(_Restore(self), _Head(self), _Post(self))


def _check(config: DraemConfig) -> None:
    if config.backbone != "none" or config.weights not in ("none", "random"):
        raise UsageError(
            f"draem: backbone is {config.backbone!r} and weights {config.weights!r}, but it is trained from scratch. "
            "Leave both at 'none'."
        )
    crop = size_text(config.crop_px)
    if any(side % 32 for side in config.crop_px):
        raise UsageError(f"draem: crop_px is {crop}; it is halved five times. Give multiples of 32, such as 128x384.")
    if config.window_px % 2 == 0 or not 1 <= config.window_px <= min(config.crop_px):
        raise UsageError(
            f"draem: window_px is {config.window_px}; expected an odd number of at most a side of crop_px {crop}."
        )


def rate_left(config: DraemConfig, epoch: int) -> float:
    """Return the share of the learning rate in an epoch from 0: 1, 0.2 after 80 % of the epochs, 0.04 after 90 %."""
    return float(0.2 ** sum(epoch >= share * config.epochs for share in (0.8, 0.9)))


class _Restore(nn.Module):
    """Images → restored images, and the images themselves."""

    def __init__(self, detector: Draem) -> None:
        super().__init__()
        self.network = fold(detector.reconstructive)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images), images


class _Head(nn.Module):
    """Restored and seen → logit of an anomaly (N, 1, H, W): the difference of the two, in one channel."""

    def __init__(self, detector: Draem) -> None:
        super().__init__()
        network: Any = fold(detector.discriminative)
        last = network.last
        bias = (last.bias[1:].double() - last.bias[:1].double()).float()
        network.last = plain_conv((last.weight[1:].double() - last.weight[:1].double()).float(), bias, conv=last)
        self.network = network

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        logit: Tensor = self.network(*pair)
        return logit


class _Post(nn.Module):
    """Logit → probability; highest window mean, rows and columns as constant band matrices → score."""

    rows: Tensor
    columns: Tensor

    def __init__(self, detector: Draem) -> None:
        super().__init__()
        means = {size: _window_means(size, detector.config.window_px) for size in detector.config.crop_px}
        self.register_buffer("rows", means[detector.config.crop_px[0]])
        self.register_buffer("columns", means[detector.config.crop_px[1]])

    def forward(self, logit: Tensor) -> tuple[Tensor, Tensor]:
        probability = torch.sigmoid(logit).squeeze(1)
        return (self.rows @ probability @ self.columns).amax((1, 2)), probability


def _window_means(size: int, window: int) -> Tensor:
    """Means over windows of one axis, zero outside: a symmetric band matrix, float32 (size, size)."""
    offsets = torch.arange(size)[:, None] - torch.arange(size)[None, :]
    return (offsets.abs() <= window // 2).float() / window
