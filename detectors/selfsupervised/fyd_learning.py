"""Learning of FYD: in all pairs of a batch, images agree pixel by pixel and features position by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import conv_norm
from .fyd_transformers import AlignedStages


def coarse_loss(images: Tensor) -> Tensor:
    """Return the mean, over pairs of images and over pixels, of the distance between two pixels' colours: a scalar.

    Args:
        images: aligned images, float32 (B, 3, H, W), B ≥ 2.
    """
    count = len(images)
    pixels = images.flatten(2).permute(2, 0, 1)
    # Not by products, whose rounding makes small distances wrong; at equal pixels the gradient is 0.
    distances = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum() / (count * (count - 1) * len(pixels))


def fine_loss(predicted: Tensor, projected: Tensor) -> Tensor:
    """Return one minus the mean cosine of two images' features at the same position, over ordered pairs: a scalar.

    The projections are targets, without a gradient (SimSiam: Chen, He, CVPR 2021, arXiv 2011.10566). With vectors of
    length 1 the sum over pairs is that of all products of sums less each image's own: linear in B.

    Args:
        predicted: float32 (B, D, h, w), B ≥ 2.
        projected: float32 (B, D, h, w).
    """
    count, _, height, width = predicted.shape
    first, second = F.normalize(predicted, dim=1), F.normalize(projected.detach(), dim=1)
    cosines = (first.sum(0) * second.sum(0)).sum() - (first * second).sum()
    return 1.0 - cosines / (count * (count - 1) * height * width)


@final
class SimilarityHead(nn.Module):
    """Projector and predictor of one level; of the training only.

    Args:
        channels: number of channels of the level's maps.
        width: number of channels of the projections.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            conv_norm(channels, width, 1), conv_norm(width, width, 1), nn.Conv2d(width, width, 1)
        )
        self.predictor = nn.Sequential(conv_norm(width, width, 1), nn.Conv2d(width, width, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Aligned maps float32 (B, C, h, w) → the fine loss, a scalar."""
        projected = self.projector(maps)
        return fine_loss(self.predictor(projected), projected)


@final
class Learner(nn.Module):
    """What is trained: aligned stages, and the heads that the training alone needs.

    Args:
        aligned: aligned stages of the detector.
        levels: levels that have a fine loss.
        head_width: number of channels of the projections.
        coarse_weight: weight of the coarse loss beside the fine one's 1.
    """

    def __init__(self, aligned: AlignedStages, *, levels: Sequence[int], head_width: int, coarse_weight: float) -> None:
        super().__init__()
        self.aligned = aligned
        channels = aligned.backbone.channels
        self.heads = nn.ModuleList(SimilarityHead(channels[level], head_width) for level in levels)
        self._levels = levels
        self._coarse_weight = coarse_weight

    def new_parts(self) -> nn.Module:
        """Return what is not pretrained: all modules whose batch statistics are learned."""
        return nn.ModuleList([self.aligned.transformers, self.heads])

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float32 (B, 3, H, W), B ≥ 2 → the loss, a scalar."""
        aligned_images, maps, _ = self.aligned(images)
        fine = torch.stack([head(maps[level]) for head, level in zip(self.heads, self._levels, strict=True)]).mean()
        if not self._coarse_weight:
            return fine
        return fine + self._coarse_weight * coarse_loss(aligned_images)
