"""Depth GAN: f-AnoGAN over depth images, with RGB or without; score by what it does not restore.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: rows "Depth GAN" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: images of 256 px of the distance to the camera, 0 where
nothing was measured, colours appended; training scans are turned 20 times by up to 5°; the score of an image is the
largest of its pixels. Networks, losses and optimisers are those of f-AnoGAN's published code, with two halvings more
for images of 256 px, which is our guess. The authors report false alarms around pixels without a measurement:
``invalid=masked`` leaves the depth of those out of the score.

fp16: encoder and generator; what was not restored is computed in fp32.
"""

from dataclasses import dataclass
from typing import Any

from ...core.size import Size
from ..base import FitContext
from ..presets import Preset
from ..ranges import Count
from ..training.scans import ScanSet
from .base import AbstractDepthDetector, DepthConfig
from .fanogan import SMALL, GanConfig, fit_gan
from .networks import Generator, Shape, encoder
from .restoring import DepthScore, Restoring


@dataclass(frozen=True, kw_only=True)
class DepthGanConfig(GanConfig, DepthConfig):
    """Parameters of Depth GAN.

    Attributes:
        resize_px: height and width in pixels of the depth images, a power of two; the paper's 256.
        crop_px: equal to ``resize_px``: scans are not cropped.
        width: channels after the first convolution. A guess: half of f-AnoGAN's, at four times its image's sides.
        batch_size: scans per step of the critic. A guess: they take 64 smaller images.
    """

    resize_px: Size = (256, 256)
    crop_px: Size = (256, 256)
    width: Count = 32
    batch_size: Count = 16


class DepthGan(Restoring, AbstractDepthDetector[DepthGanConfig]):
    """Depth GAN in its training form."""

    config_class = DepthGanConfig
    takes_rectangles = False
    why_squares = "generates square images"
    paper = Preset(source="f-AnoGAN's published code, for larger images; the paper's appendix was not at hand.")

    def __init__(self, config: DepthGanConfig) -> None:
        super().__init__(config)
        self._shape = Shape(
            dims=2,
            channels=4 if config.rgb else 1,
            side=config.resize_px[0],
            width=config.width,
            residual=config.residual,
            detector="depth_gan",
        )
        self.encoder = encoder(self._shape, config.latent)
        self.decoder = Generator(self._shape, config.latent)

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """Beside the usual ones: ``small``."""
        return {**super().presets(), "small": SMALL}

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours, at 64 px, a few hundred steps: enough to go the whole way, not to be accurate."""
        small = {"resize_px": 64, "crop_px": 64, "width": 16, "residual": False, "latent": 64, "copies": 2}
        gan = {"generator_steps": 400, "critic_steps": 3, "learning_rate": 5e-4, "batch_size": 8}
        encoder_part = {"encoder_steps": 500, "encoder_optimiser": "adam", "encoder_learning_rate": 2e-3}
        return {**super().quick_settings(), "invalid": "masked", **small, **gan, **encoder_part}

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:
        """Train GAN and encoder."""
        return fit_gan(
            self.encoder, self.decoder, self._shape, config=self.config, sets=(scans, holdout), context=context
        )

    def score(self) -> DepthScore:
        """See ``Restoring``."""
        return DepthScore(self.config.error, is_masked=self.config.invalid == "masked")
