"""Depth AE: an autoencoder of depth images, with RGB or without; score by what it does not restore.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: rows "Depth AE" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: images of 256 px of the distance to the camera, 0 where
nothing was measured, colours appended; training scans are turned 20 times by up to 5°; the score of an image is the
largest of its pixels. Our guesses: the network is the autoencoder of images of the same authors (see ``networks``),
its weights drawn after He et al. (2015), trained with the squared error by Adam; depths are scaled to −1 … 1 over the
training set. The authors report false alarms around pixels without a measurement: ``invalid=masked`` leaves the depth
of those out of loss and score. The edges of a good part, a pixel to one side, differ by more than most faults:
``restores=deviations`` is our answer, see ``deviations``.

fp16: encoder and decoder; what was not restored is computed in fp32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size, size_text
from ..base import FitContext
from ..presets import Preset
from ..ranges import Count, NotNegative, Positive
from ..training.scans import ScanSet
from ..training.task import Optimisation
from .autoencoder import Autoencoder, AutoencoderConfig
from .base import AbstractDepthDetector, DepthConfig, smallest_deviations
from .deviations import Deviations, without_lost_depths
from .networks import IMAGE_REDUCTION, image_decoder, image_encoder
from .restoring import Carried, DepthScore, differences


@dataclass(frozen=True, kw_only=True)
class DepthAeConfig(AutoencoderConfig, DepthConfig):
    """Parameters of Depth AE.

    Attributes:
        resize_px: height and width in pixels of the depth images, multiples of 32; the paper's 256.
        crop_px: equal to ``resize_px``: scans are not cropped.
        latent: length of the vector between encoder and decoder. A guess: the paper's appendix compares several.
        batch_size: scans per step. A guess.
        weight_decay: weight of Adam's L2 term. A guess.
        smallest_depth_m: smallest deviation of a depth, in metres, where deviations are restored. Our guess.
        smallest_colour: smallest deviation of a colour, of a range of 1, likewise. Our guess.
    """

    resize_px: Size = (256, 256)
    crop_px: Size = (256, 256)
    latent: Count = 128
    batch_size: Count = 16
    weight_decay: NotNegative = 1e-5
    smallest_depth_m: Positive = 5e-4
    smallest_colour: Positive = 0.02


class DepthAe(Autoencoder, AbstractDepthDetector[DepthAeConfig]):
    """Depth AE in its training form."""

    config_class = DepthAeConfig
    paper = Preset(source="Section 4 of the paper; its appendix was not at hand, what it leaves to us says so.")

    def __init__(self, config: DepthAeConfig) -> None:
        super().__init__(config)
        if any(side % IMAGE_REDUCTION for side in config.resize_px):
            raise UsageError(
                f"resize_px is {size_text(config.resize_px)}; expected multiples of {IMAGE_REDUCTION} pixels, by which "
                "the autoencoder reduces an image. Give --image-size 256, or another such size."
            )
        channels = 4 if config.rgb else 1
        self.encoder = image_encoder(channels, config.latent, config.resize_px)
        self.decoder = image_decoder(channels, config.latent, config.resize_px)
        is_restoring_deviations = config.restores == "deviations"
        self.deviations = Deviations(channels, is_masked=self._is_masked) if is_restoring_deviations else None

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """Beside the usual ones: ``small``."""
        small = {"resize_px": 128, "crop_px": 128, "copies": 5}
        return {
            **super().presets(),
            "small": Preset(source="Ours: half the size, a quarter of the copies.", settings=small),
        }

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours, at 64 px; lost pixels are unknown, and deviations are restored, not values."""
        size = {"resize_px": 64, "crop_px": 64, "invalid": "masked", "restores": "deviations"}
        steps = {"copies": 2, "latent": 32, "epochs": 25, "batch_size": 8, "learning_rate": 1e-3}
        return {**super().quick_settings(), **size, **steps}

    @property
    def _is_masked(self) -> bool:
        return self.config.invalid == "masked"

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:
        """Train encoder and decoder to restore good scans."""
        config = self.config

        def loss(carried: Carried) -> Tensor:
            images, measured, restored = carried
            apart = differences(images, restored, "squared")
            return (without_lost_depths(apart, measured) if self._is_masked else apart).mean()

        def optimisation(network: nn.Module) -> Optimisation:
            return Optimisation(
                optimiser=torch.optim.Adam(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
            )

        return self.learn(
            config.drawn(scans, context.seed),
            holdout,
            config=config,
            smallest=smallest_deviations(scans.rule, config.smallest_depth_m, config.smallest_colour),
            loss=loss,
            optimisation=optimisation,
            context=context,
        )

    def score(self) -> DepthScore:
        """See ``Restoring``."""
        return DepthScore(self.config.error, is_masked=self._is_masked, weights=self.weights)
