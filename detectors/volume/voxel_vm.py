"""Voxel VM: mean and deviation of every cell's occupancy, or with RGB of its colours; score by their distance.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: the variation model on voxels, rows "Voxel VM" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: 64³ cells around the box of all training points, −1 where
empty, else 1 or the mean colour in [0, 1]; training scans are turned 20 times by up to 5° about the normal of the
background; the score of a cell is its Mahalanobis distance, and cells are projected to pixels by the calibrated camera;
the score of an image is the largest of its pixels. Our guesses: cells are cubes; deviations are bounded below, so that
a cell that was never occupied counts and is not infinite (``smallest``); with colours the covariance is a full one
(``covariance``); and how cells are seen from pixels, also from those without a measurement (see ``projection``).

fp16: factors and products; the rest stays in fp32.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..base import Deployed, FitContext
from ..presets import Preset
from ..ranges import CountOrZero, Degrees, NotNegative, Positive
from ..training.scans import Scans, ScanSet
from .base import AbstractVoxelDetector, VoxelConfig
from .copies import Copies
from .projection import CellsToPixels
from .variation import Centre, Moments, Whiten, lengths, whitened


@dataclass(frozen=True, kw_only=True)
class VoxelVmConfig(VoxelConfig):
    """Parameters of Voxel VM.

    Attributes:
        copies: turned copies of each training scan, besides itself; the paper's 20.
        rotation_deg: largest angle of the copies, in degrees; the paper's 5.
        shift_cells: how far copies are also moved along each axis, at most, in cells; the paper moves none. Half a cell
            spares good parts the surprise of a surface that lies just beyond a cell's edge. Ours.
        covariance: ``full`` or ``diagonal``, with colours. Our guess.
        smallest: smallest deviation of a cell's value, of a range of 2. Our guess.
    """

    copies: CountOrZero = 20
    rotation_deg: Degrees = 5.0
    shift_cells: NotNegative = 0.0
    covariance: Literal["full", "diagonal"] = "full"
    smallest: Positive = 0.1


class VoxelVm(AbstractVoxelDetector[VoxelVmConfig]):
    """Voxel VM in its training form.

    Attributes:
        mean: float32 (C, G, G, G).
        factors: float32 (C (C + 1) / 2, G, G, G), see ``whitening``.
    """

    config_class = VoxelVmConfig
    half_scopes = ("head",)
    paper = Preset(source="Section 4 of the paper; its appendix was not at hand, what it leaves to us says so.")

    mean: Tensor
    factors: Tensor

    def __init__(self, config: VoxelVmConfig) -> None:
        super().__init__(config)
        channels = 3 if config.rgb else 1
        self.register_buffer("mean", torch.empty(channels, 0, 0, 0))
        self.register_buffer("factors", torch.empty(channels * (channels + 1) // 2, 0, 0, 0))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours; fewer copies, moved by half a cell, and a smaller bound: a colour deviates less than a cell."""
        return {**super().quick_settings(), "copies": 6, "shift_cells": 0.5, "smallest": 0.04, "ray_stride_px": 2}

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Count every scan and its copies, in one pass; then follow the rays through the grid."""
        config, spec = self.config, self.grid_of(scans.rule)
        grid = (config.num_cells,) * 3
        moments = Moments(len(self.mean), config.num_cells**3)
        shift_m = config.shift_cells * spec.edge_m / spec.num_cells
        copies = Copies(num=config.copies, largest_deg=config.rotation_deg, largest_shift_m=shift_m)
        for values, _ in copies.every(scans, seed=context.seed, progress=context.progress):
            moments.add(values.flatten(2))
        mean = moments.mean()
        smallest = torch.full((len(self.mean),), config.smallest, dtype=torch.float64)
        factors = moments.factors(smallest, is_full=config.covariance == "full")
        self.mean, self.factors = mean.float().unflatten(1, grid), factors.unflatten(1, grid)
        self.follow_rays(scans.rule)
        return {
            "num_samples": moments.num_samples,
            "num_cells": config.num_cells**3,
            "empty_share": round(float((mean == -1.0).all(0).double().mean()), 4),
            "cells_per_ray": self.table.shape[1],
            "is_calibrated": scans.rule.is_calibrated,
        }

    def judge(self, scans: Scans) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        values, cells = scans
        centred = values - self.mean
        score, anomaly_map = self.to_pixels()(whitened(self.factors, centred).square().sum(1).sqrt(), cells)
        return score, anomaly_map

    def lower(self) -> Deployed:
        """Row by row of the whitening factors, as whole grids."""
        centred, whiten = _Beside(Centre(self.mean)), _Beside(Whiten(self.factors, len(self.mean)))
        return Deployed(centred, whiten, _Seen(self.to_pixels()))


class _Beside(nn.Module):
    """A module on the grids, while each pixel's cell is handed on beside them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.grid = inner

    def forward(self, scans: Scans) -> Scans:
        return self.grid(scans[0]), scans[1]


class _Seen(nn.Module):
    """Whitened grids and each pixel's cell → score and map."""

    def __init__(self, to_pixels: CellsToPixels) -> None:
        super().__init__()
        self.to_pixels = to_pixels

    def forward(self, scans: Scans) -> tuple[Tensor, Tensor]:
        score, anomaly_map = self.to_pixels(lengths(scans[0]), scans[1])
        return score, anomaly_map
