"""Voxel GAN: f-AnoGAN over grids of voxels, with RGB or without; score by what it does not restore.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: rows "Voxel GAN" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: 64³ cells around the box of all training points, −1 where
empty, else 1 or the mean colour in [0, 1]; training scans are turned 20 times by up to 5°; cells are projected to
pixels by the calibrated camera, and the score of an image is the largest of its pixels. Networks, losses and
optimisers are those of f-AnoGAN's published code with a third dimension, which is our guess, as is how cells are seen
from pixels (see ``projection``). On a CPU the full networks are slow: 25.8 million parameters and about 320 GFLOP
each.

fp16: encoder and generator; what was not restored is computed in fp32.
"""

from dataclasses import dataclass
from typing import Any

from ..base import FitContext
from ..presets import Preset
from ..training.scans import ScanSet
from .base import AbstractVoxelDetector, VoxelConfig
from .fanogan import SMALL, GanConfig, fit_gan
from .networks import NEARLY_EMPTY, Generator, Shape, encoder
from .restoring import Restoring, VoxelScore


@dataclass(frozen=True, kw_only=True)
class VoxelGanConfig(GanConfig, VoxelConfig):
    """Parameters of Voxel GAN.

    Attributes:
        num_cells: cells along each edge of the grid, a power of two; the paper's 64.
    """


class VoxelGan(Restoring, AbstractVoxelDetector[VoxelGanConfig]):
    """Voxel GAN in its training form."""

    config_class = VoxelGanConfig
    paper = Preset(source="f-AnoGAN's published code, with a third dimension; the paper's appendix was not at hand.")

    def __init__(self, config: VoxelGanConfig) -> None:
        super().__init__(config)
        self._shape = Shape(
            dims=3,
            channels=3 if config.rgb else 1,
            side=config.num_cells,
            width=config.width,
            residual=config.residual,
            detector="voxel_gan",
        )
        self.encoder = encoder(self._shape, config.latent)
        self.decoder = Generator(self._shape, config.latent, start=NEARLY_EMPTY)

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """Beside the usual ones: ``small``."""
        return {**super().presets(), "small": SMALL}

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours, on 32³ cells, a few hundred steps: enough to go the whole way, not to be accurate."""
        small = {"num_cells": 32, "width": 8, "residual": False, "latent": 64, "copies": 2, "ray_stride_px": 2}
        gan = {"generator_steps": 300, "critic_steps": 3, "learning_rate": 5e-4}
        encoder_part = {"encoder_steps": 400, "encoder_optimiser": "adam", "encoder_learning_rate": 2e-3}
        return {**super().quick_settings(), **small, **gan, **encoder_part}

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:
        """Train GAN and encoder, then follow the rays through the grid."""
        report = fit_gan(
            self.encoder, self.decoder, self._shape, config=self.config, sets=(scans, holdout), context=context
        )
        self.follow_rays(scans.rule)
        return {**report, "is_calibrated": scans.rule.is_calibrated}

    def score(self) -> VoxelScore:
        """See ``Restoring``."""
        return VoxelScore(self.config.error, self.to_pixels())
