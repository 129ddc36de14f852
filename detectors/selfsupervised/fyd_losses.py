"""Losses of FYD: images agree pixel by pixel, features position by position, in all pairs of a batch."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import conv_norm


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
