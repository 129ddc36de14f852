"""Depth VM: mean and deviation of the depth, and with RGB of the colours, at every pixel; score by their distance.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization",
VISAPP 2022, arXiv 2112.09045: the variation model on depth images, rows "Depth VM" of its tables, 3D only and 3D + RGB.

The paper's appendix was not at hand. Given in the paper: the depth is the distance to the camera, 0 where nothing was
measured; colours are appended; training scans are turned 20 times by up to 5° about the normal of the background; the
score of a pixel is its Mahalanobis distance, that of an image the largest of its pixels. Our guesses, each a parameter:
deviations are bounded below, by the sensor's noise; with colours the covariance is a full one; the frame's own size.
The authors' 0 for a lost pixel makes each one an anomaly, as they report themselves: ``invalid=masked`` takes its depth
as unknown instead.

fp16: factors and products; depths minus their means, squares and the root stay in fp32.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..base import Deployed, FitContext
from ..presets import Preset
from ..ranges import CountOrZero, Degrees, Positive
from ..training.scans import Scans, ScanSet
from .base import AbstractDepthDetector, DepthConfig, smallest_deviations
from .copies import Copies
from .variation import Centre, Moments, Whiten, lengths, whitened


@dataclass(frozen=True, kw_only=True)
class DepthVmConfig(DepthConfig):
    """Parameters of Depth VM.

    Attributes:
        copies: turned copies of each training scan, besides itself; the paper's 20.
        rotation_deg: largest angle of the copies, in degrees; the paper's 5.
        covariance: ``full`` or ``diagonal``, with colours. Our guess.
        smallest_depth_m: smallest deviation of a depth, in metres: the sensor's noise. Our guess.
        smallest_colour: smallest deviation of a colour, of a range of 1. Our guess.
    """

    copies: CountOrZero = 20
    rotation_deg: Degrees = 5.0
    covariance: Literal["full", "diagonal"] = "full"
    smallest_depth_m: Positive = 5e-4
    smallest_colour: Positive = 0.02


class DepthVm(AbstractDepthDetector[DepthVmConfig]):
    """Depth VM in its training form.

    Attributes:
        mean: float32 (C, h, w), of scaled depth and colours; see ``DepthPart``.
        factors: float32 (C (C + 1) / 2, h, w), see ``whitening``.
    """

    config_class = DepthVmConfig
    half_scopes = ("head",)
    paper = Preset(source="Section 4 of the paper; its appendix was not at hand, what it leaves to us says so.")

    mean: Tensor
    factors: Tensor

    def __init__(self, config: DepthVmConfig) -> None:
        super().__init__(config)
        channels = 4 if config.rgb else 1
        self.register_buffer("mean", torch.empty(channels, 0, 0))
        self.register_buffer("factors", torch.empty(channels * (channels + 1) // 2, 0, 0))

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours; fewer copies, and pixels that were lost are unknown."""
        return {**super().quick_settings(), "invalid": "masked", "copies": 6}

    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Count every scan and its copies, in one pass."""
        config, size = self.config, self.config.resize_px
        smallest = smallest_deviations(scans.rule, config.smallest_depth_m, config.smallest_colour)
        moments = Moments(len(self.mean), size[0] * size[1])
        copies = Copies(num=config.copies, largest_deg=config.rotation_deg)
        for images, measured in copies.every(scans, seed=context.seed, progress=context.progress):
            moments.add(images.flatten(2), measured.flatten(2) if self._is_masked else None)
        self.mean = moments.mean().float().unflatten(1, size)
        # Of a pixel that was never measured nothing is known: its depth is no anomaly.
        self.factors = moments.factors(
            torch.tensor(smallest, dtype=torch.float64), is_full=config.covariance == "full"
        ).unflatten(1, size)
        return {
            "num_samples": moments.num_samples,
            "num_pixels": size[0] * size[1],
            "never_measured": int((moments.num_known()[0] == 0).sum()),
        }

    @property
    def _is_masked(self) -> bool:
        return self.config.invalid == "masked"

    def judge(self, scans: Scans) -> tuple[Tensor, Tensor]:
        """Return score and anomaly_map; see ``AbstractDetector.forward``."""
        images, measured = scans
        centred = images - self.mean
        if self._is_masked:
            centred = torch.cat([centred[:, :1] * measured, centred[:, 1:]], 1)
        anomaly_map = whitened(self.factors, centred).square().sum(1).sqrt()
        return anomaly_map.amax((1, 2)), anomaly_map

    def lower(self) -> Deployed:
        """Row by row of the whitening factors, as whole maps."""
        return Deployed(_Centred(self), Whiten(self.factors, len(self.mean)), _Distance())


class _Centred(nn.Module):
    """Depth images minus their means; where nothing was measured the depth is at its mean, if it is masked."""

    def __init__(self, detector: DepthVm) -> None:
        super().__init__()
        self.centre = Centre(detector.mean)
        self._is_masked = detector.config.invalid == "masked"

    def forward(self, scans: Scans) -> Tensor:
        images, measured = scans
        centred: Tensor = self.centre(images)
        if self._is_masked:
            depth = centred[:, :1] * measured
            centred = torch.cat([depth, centred[:, 1:]], 1) if centred.shape[1] > 1 else depth
        return centred


class _Distance(nn.Module):
    """Whitened images → distances, and their maximum."""

    def forward(self, whitened: Tensor) -> tuple[Tensor, Tensor]:
        anomaly_map = lengths(whitened)
        return anomaly_map.amax((1, 2)), anomaly_map
