"""One Gaussian per position over concatenated features, and the Mahalanobis distance from it.

Defard, Setkov, Loesch, Audigier: "PaDiM", arXiv 2011.08785, equations 1 and 2. The precision matrix is kept as its
Cholesky factor, ``M² = |W (x − μ)|²`` with ``WᵀW = Σ⁻¹``: the same value, never negative, and far more tolerant of
rounding than Σ⁻¹ itself. All in float32, fitted in float64.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.linear import Border
from ...core.progress import Progress
from ...core.size import Size
from .graph import SmoothUpsample

_SIGMA = 4.0
#: At most so many bytes of one float64 matrix per position are at hand at once, and at most so many positions.
_MATRICES_BYTES = 128 << 20
_POSITIONS_AT_ONCE = 256
_MANY_CHANNELS = 1024

#: Feature maps of several levels, float32 (N, C, h, w) each, finest first.
Maps = tuple[Tensor, ...]


@final
class PositionGaussians(nn.Module):
    """The Gaussians in their training form.

    Args:
        channels: number of channels of each level.
        num_features: channels drawn at random from all levels; 0 for PaDiM's choice (550 where the levels have at
            least 1024 channels together, as in wide_resnet50_2; 100 otherwise, as in resnet18).
        regularisation: value that is added to the diagonal of each covariance.
        backbone: name of the network, for the error.

    Attributes:
        dim: number d of channels drawn.
        channels: the channels drawn, counted over all levels, int64 (d,) in ascending order.
        mean: means, float32 (h·w, d).
        factor: whitening factors W, float32 (h·w, d, d).

    Raises:
        UsageError: there are fewer channels than are to be drawn.
    """

    channels: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, channels: tuple[int, ...], *, num_features: int, regularisation: float, backbone: str) -> None:
        super().__init__()
        total = sum(channels)
        self.dim = num_features or (550 if total >= _MANY_CHANNELS else min(100, total))
        if not 1 <= self.dim <= total:
            raise UsageError(f"num_features is {self.dim}; {backbone} has {total} channels.")
        self.level_channels = channels
        self.regularisation = regularisation
        self.register_buffer("channels", torch.arange(self.dim))
        self.register_buffer("mean", torch.empty(0, self.dim))
        self.register_buffer("factor", torch.empty(0, self.dim, self.dim))

    def draw(self, seed: int) -> None:
        """Draw the channels; the same seed draws the same."""
        drawn = torch.randperm(sum(self.level_channels), generator=torch.Generator().manual_seed(seed))
        self.channels = drawn[: self.dim].sort().values.to(self.channels.device)

    def learn(self, vectors: Tensor, *, device: torch.device, progress: Progress) -> None:
        """Fit a mean and an unbiased covariance per position over all images; afterwards they are on the CPU.

        Args:
            vectors: float32 (num_images, h·w, d), on the CPU.
            device: device that covariances are inverted on, part by part.
            progress: called after every part of the positions.
        """
        num_positions = vectors.shape[1]
        # With 550 channels the factors alone take 3.8 GB, which a GPU need not hold.
        self.register_buffer("mean", torch.empty(num_positions, self.dim))
        self.register_buffer("factor", torch.empty(num_positions, self.dim, self.dim))
        for part in parts_of(num_positions, self.dim):
            here = vectors[:, part].to(device)
            self.mean[part], self.factor[part] = fit_gaussians(here, regularisation=self.regularisation)
            progress("covariance", part.stop, num_positions)

    def embed(self, maps: Maps) -> Tensor:
        """Concatenate at the finest grid (nearest), then select: float32 (N, d, h·w)."""
        size = maps[0].shape[-2:]
        grown = [F.interpolate(item, size, mode="nearest") for item in maps]
        return torch.cat(grown, 1)[:, self.channels].flatten(2)

    def forward(self, maps: Maps) -> Tensor:
        """Maps → Mahalanobis distances, float32 (N, h·w)."""
        centred = self.embed(maps).permute(2, 1, 0) - self.mean[:, :, None]
        distances: Tensor = (self.factor @ centred).square().sum(1).sqrt().T
        return distances


def parts_of(num_positions: int, dim: int) -> list[slice]:
    """Return the positions in parts, so small that a float64 matrix (dim, dim) of each fits in memory many times."""
    size = max(1, min(_POSITIONS_AT_ONCE, _MATRICES_BYTES // (8 * dim * dim)))
    return [slice(start, min(start + size, num_positions)) for start in range(0, num_positions, size)]


def fit_gaussians(vectors: Tensor, *, regularisation: float) -> tuple[Tensor, Tensor]:
    """Fit one Gaussian per position.

    Args:
        vectors: float32 (num_images, P, d), of at least two images.
        regularisation: value that is added to the diagonal of each covariance.

    Returns:
        Means (P, d) and whitening factors W (P, d, d), computed in float64 and returned in float32.
    """
    values = vectors.transpose(0, 1).double()
    mean = values.mean(1, keepdim=True)
    centred = values - mean
    identity = torch.eye(values.shape[2], dtype=torch.float64, device=values.device)
    covariance = centred.transpose(1, 2) @ centred / (values.shape[1] - 1)
    covariance += regularisation * identity
    triangle = torch.linalg.cholesky(covariance)
    factor = torch.linalg.solve_triangular(triangle, identity.expand_as(triangle), upper=False)
    return mean[:, 0].float(), factor.float()


@final
class LoweredGaussians(nn.Module):
    """The Gaussians for export: channels selected first, means folded into a bias, one batched MatMul."""

    factor: Tensor
    bias: Tensor

    def __init__(self, gaussians: PositionGaussians) -> None:
        super().__init__()
        first = 0
        for level, count in enumerate(gaussians.level_channels):
            inside = (gaussians.channels >= first) & (gaussians.channels < first + count)
            self.register_buffer(f"channels{level}", gaussians.channels[inside] - first)
            first += count
        bias = [
            gaussians.factor[part].double() @ gaussians.mean[part].double()[:, :, None]
            for part in parts_of(len(gaussians.factor), gaussians.dim)
        ]
        # (1, d) x (d, d) per position: a row vector times a matrix, the form engines multiply fastest.
        self.register_buffer("factor", gaussians.factor.transpose(1, 2).contiguous())
        self.register_buffer("bias", torch.cat(bias).transpose(1, 2).float().contiguous())

    def select(self, maps: Maps) -> Maps:
        """Return the maps with those channels alone that were drawn."""
        return tuple(item.index_select(1, self.get_buffer(f"channels{level}")) for level, item in enumerate(maps))

    def forward(self, selected: Maps) -> Tensor:
        """Maps with selected channels → Mahalanobis distances, float32 (N, h·w)."""
        size = selected[0].shape[-2:]
        grown = [selected[0], *(F.interpolate(item, size, mode="nearest") for item in selected[1:])]
        vectors = torch.cat(grown, 1).flatten(2).permute(2, 0, 1)
        distances: Tensor = (vectors @ self.factor - self.bias).square().sum(2).sqrt().transpose(0, 1)
        return distances


@final
class DistanceMap(nn.Module):
    """Distances → anomaly map, upsampled and smoothed (sigma 4); its maximum → score.

    Args:
        size_in: height and width of the grid of positions.
        size_out: height and width of the anomaly map.
        border: how the smoothing continues the map beyond its border, see ``core.linear``.
    """

    def __init__(self, size_in: Size, size_out: Size, *, border: Border = "symmetric") -> None:
        super().__init__()
        self.upsample = SmoothUpsample(size_in, size_out, sigma=_SIGMA, align_corners=False, border=border)
        self._size = size_in

    def forward(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, h·w) → score float32 (N,), anomaly_map float32 (N, H, W)."""
        anomaly_map = self.upsample(distances.unflatten(1, self._size))
        return anomaly_map.amax((1, 2)), anomaly_map
