"""Voxel AE: an autoencoder of grids of voxels, with RGB or without; score by what it does not restore.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: rows "Voxel AE" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: 64³ cells around the box of all training points, −1 where
empty, else 1 or the mean colour in [0, 1]; training scans are turned 20 times by up to 5°; since few cells are
occupied, the loss weighs them by the share of empty cells in the training set; cells are projected to pixels by the
calibrated camera, and the score of an image is the largest of its pixels. Our guesses: layers and widths (see
``networks``); occupied cells weigh empty / (1 − empty) times as much as empty ones, so that both kinds weigh as much
in all; the squared error; and how cells are seen from pixels (see ``projection``). A surface on the other side of a
cell's edge differs by more than most faults: ``restores=deviations`` is our answer, see ``deviations``.

fp16: encoder and decoder; what was not restored is computed in fp32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base import FitContext
from ..presets import Preset
from ..ranges import Count, NotNegative, Positive
from ..training.scans import ScanSet
from ..training.schedules import WarmCosine
from ..training.task import Optimisation
from .autoencoder import Autoencoder, AutoencoderConfig
from .base import AbstractVoxelDetector, VoxelConfig
from .deviations import Deviations
from .networks import NEARLY_EMPTY, Generator, Shape, encoder
from .restoring import Carried, VoxelScore, differences

_EMPTY = -1.0


@dataclass(frozen=True, kw_only=True)
class VoxelAeConfig(AutoencoderConfig, VoxelConfig):
    """Parameters of Voxel AE.

    Attributes:
        num_cells: cells along each edge of the grid, a power of two; the paper's 64.
        width: channels after the first convolution; each of the others doubles it. A guess.
        balance: share b of the balance between occupied and empty cells: occupied ones weigh
            ``(empty / (1 - empty))^b``. 1 lets both kinds weigh as much in all: a guess; the paper says it balances.
            Of values; deviations weigh alike.
        learning_rate: Adam's learning rate, which warms up and falls by a cosine. A guess.
        shift_cells: how far copies are also moved along each axis, at most, in cells; the paper moves none. Ours.
        smallest: smallest deviation of a cell's value, of a range of 2, where deviations are restored. Our guess.
    """

    width: Count = 32
    balance: NotNegative = 1.0
    shift_cells: NotNegative = 0.0
    smallest: Positive = 0.1


class VoxelAe(Autoencoder, AbstractVoxelDetector[VoxelAeConfig]):
    """Voxel AE in its training form."""

    config_class = VoxelAeConfig
    paper = Preset(source="Section 4 of the paper; its appendix was not at hand, what it leaves to us says so.")

    def __init__(self, config: VoxelAeConfig) -> None:
        super().__init__(config)
        shape = Shape(
            dims=3,
            channels=3 if config.rgb else 1,
            side=config.num_cells,
            width=config.width,
            residual=False,
            detector="voxel_ae",
        )
        self.encoder = encoder(shape, config.latent)
        if config.restores == "deviations":
            self.decoder = Generator(shape, config.latent, is_bounded=False)
            self.deviations = Deviations(shape.channels, is_masked=False)
        else:
            self.decoder = Generator(shape, config.latent, start=NEARLY_EMPTY)
            self.deviations = None

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """Beside the usual ones: ``small``."""
        small = {"width": 16, "latent": 128, "copies": 5}
        source = "Ours: half the width and latent vector, a quarter of the copies."
        return {**super().presets(), "small": Preset(source=source, settings=small)}

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours; narrow, copies are moved by half a cell, and deviations are restored, not values."""
        small = {"width": 8, "latent": 16, "copies": 2, "shift_cells": 0.5, "ray_stride_px": 2}
        of_deviations = {"restores": "deviations", "smallest": 0.04}
        steps = {"epochs": 10, "batch_size": 8, "learning_rate": 2e-3}
        return {**super().quick_settings(), **small, **of_deviations, **steps}

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:
        """Train encoder and decoder to restore good scans, then follow the rays through the grid."""
        config, spec = self.config, self.grid_of(scans.rule)
        source = config.drawn(scans, context.seed, largest_shift_m=config.shift_cells * spec.edge_m / spec.num_cells)
        empty = empty_share(scans)

        def loss(carried: Carried) -> Tensor:
            grids, _, restored = carried
            if self.deviations is not None:
                return differences(grids, restored, "squared").mean()
            return weighted_loss(grids, restored, (empty / (1.0 - empty)) ** config.balance)

        def optimisation(network: nn.Module) -> Optimisation:
            optimiser = torch.optim.Adam(network.parameters(), config.learning_rate)
            num_steps = config.epochs * -(-len(source) // config.batch_size)
            return Optimisation(optimiser=optimiser, scheduler=WarmCosine(optimiser, num_steps=num_steps))

        report = self.learn(
            source,
            holdout,
            config=config,
            smallest=[config.smallest] * (3 if config.rgb else 1),
            loss=loss,
            optimisation=optimisation,
            context=context,
        )
        self.follow_rays(scans.rule)
        return {**report, "empty_share": round(empty, 5), "is_calibrated": scans.rule.is_calibrated}

    def score(self) -> VoxelScore:
        """See ``Restoring``."""
        return VoxelScore(self.config.error, self.to_pixels(), self.weights)


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
