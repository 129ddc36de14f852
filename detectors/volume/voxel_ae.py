"""Voxel AE: an autoencoder of grids of voxels, with RGB or without; score by what it does not restore.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: rows "Voxel AE" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: 64³ cells around the box of all training points, −1 where
empty, else 1 or the mean colour in [0, 1]; training scans are turned 20 times by up to 5°; since few cells are
occupied, the loss weighs them by the share of empty cells in the training set; cells are projected to pixels by the
calibrated camera, and the score of an image is the largest of its pixels. Our guesses: layers and widths (see
``networks``); occupied cells weigh empty / (1 − empty) times as much as empty ones, so that both kinds weigh as much
in all; the squared error; and how cells are seen from pixels (see ``projection``).

fp16: encoder and decoder; what was not restored is computed in fp32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base import FitContext
from ..presets import Preset
from ..ranges import Count, NotNegative, Positive
from ..training.scans import Scans, ScanSet
from ..training.schedules import WarmCosine
from ..training.task import Optimisation
from .base import AbstractVoxelDetector, VoxelConfig
from .networks import NEARLY_EMPTY, Generator, Shape, encoder
from .restoring import Restoring, RestoringConfig, VoxelScore, differences, held_out_batches, restore, train_restoring

_EMPTY = -1.0


@dataclass(frozen=True, kw_only=True)
class VoxelAeConfig(RestoringConfig, VoxelConfig):
    """Parameters of Voxel AE.

    Attributes:
        num_cells: cells along each edge of the grid, a power of two; the paper's 64.
        width: channels after the first convolution; each of the others doubles it. A guess.
        balance: share b of the balance between occupied and empty cells: occupied ones weigh
            ``(empty / (1 - empty))^b``. 1 lets both kinds weigh as much in all: a guess; the paper says it balances.
        epochs: passes over the scans and their copies. A guess.
        learning_rate: Adam's learning rate, which warms up and falls by a cosine. A guess.
    """

    width: Count = 32
    balance: NotNegative = 1.0
    epochs: Count = 50
    learning_rate: Positive = 2e-4


class VoxelAe(Restoring, AbstractVoxelDetector[VoxelAeConfig]):
    """Voxel AE in its training form."""

    config_class = VoxelAeConfig
    paper = Preset(source="Section 4 of the paper; its appendix was not at hand, what it leaves to us says so.")

    def __init__(self, config: VoxelAeConfig) -> None:
        super().__init__(config)
        shape = Shape(
            dims=3, channels=3 if config.rgb else 1, side=config.num_cells, width=config.width, residual=False
        )
        self.encoder = encoder(shape, config.latent)
        self.decoder = Generator(shape, config.latent, start=NEARLY_EMPTY)

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """Beside the usual ones: ``small``."""
        small = {"width": 16, "latent": 128, "copies": 5}
        source = "Ours: half the width and latent vector, a quarter of the copies."
        return {**super().presets(), "small": Preset(source=source, settings=small)}

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours, on 32³ cells."""
        small = {"num_cells": 32, "width": 16, "latent": 64, "copies": 2, "ray_stride_px": 2}
        return {**super().quick_settings(), **small, "epochs": 40, "batch_size": 8, "learning_rate": 2e-3}

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:
        """Train encoder and decoder to restore good scans, then follow the rays through the grid."""
        config = self.config
        source = config.drawn(scans, context.seed)
        empty = empty_share(scans)
        self.to(context.device)
        network = nn.ModuleList([self.encoder, self.decoder])

        def loss(batch: Scans) -> Tensor:
            grids, _, restored = restore(self.encoder, self.decoder, batch)
            return weighted_loss(grids, restored, (empty / (1.0 - empty)) ** config.balance)

        optimiser = torch.optim.Adam(network.parameters(), config.learning_rate)
        num_steps = config.epochs * -(-len(source) // config.batch_size)
        report = train_restoring(
            network,
            Optimisation(optimiser=optimiser, scheduler=WarmCosine(optimiser, num_steps=num_steps)),
            loss=loss,
            epochs=config.epochs,
            config=config,
            source=source,
            held_out=held_out_batches(holdout, config.batch_size),
            context=context,
        )
        self.cpu()
        self.follow_rays(scans.rule)
        return {**report, "empty_share": round(empty, 5), "is_calibrated": scans.rule.is_calibrated}

    def score(self) -> VoxelScore:
        """See ``Restoring``."""
        return VoxelScore(self.config.error, self.to_pixels())


def empty_share(scans: ScanSet) -> float:
    """Mean share of cells of the scans, without copies, that hold no point."""
    shares = [float((scans.batch([index])[0] == _EMPTY).all(1).float().mean()) for index in range(len(scans))]
    return sum(shares) / len(shares)


def weighted_loss(grids: Tensor, restored: Tensor, occupied_weight: float) -> Tensor:
    """Mean squared error in which occupied cells weigh more than empty ones, which weigh 1: a scalar.

    Args:
        grids: float32 (B, C, G, G, G), −1 in all channels of an empty cell.
        restored: of the same shape.
        occupied_weight: weight of an occupied cell.
    """
    is_empty = (grids == _EMPTY).all(1, keepdim=True)
    weight = torch.where(is_empty, 1.0, occupied_weight)
    loss: Tensor = (weight * differences(grids, restored, "squared")).mean() / weight.mean()
    return loss
