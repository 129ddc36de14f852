"""The variation model: mean and covariance of every pixel or cell, and the Mahalanobis distance from them.

Bergmann, Jin, Sattlegger and Steger, "The MVTec 3D-AD Dataset", VISAPP 2022, arXiv 2112.09045, judge by the distance of
each pixel or voxel from mean and standard deviation over good samples, as HALCON's variation model does (Steger, Ulrich
and Wiedemann, "Machine Vision Algorithms and Applications", 2018). With several channels they leave open what a
deviation is: here it is the full covariance, or by parameter each channel's own.

Places are numbered along one axis; a covariance is kept as the lower triangle of a whitening factor W with
WᵀW = Σ⁻¹, so that a graph has multiplications and additions alone: the same value, never negative.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

_FEWEST = 2


@final
class Moments:
    """Sums over samples, in float64: how many values there are, their sums and products, place by place.

    The first channel may lack values at places (a depth that was not measured); it counts there with those that it has.
    One pass, whatever the number of samples: sums in float64 of values of the order of ten keep twelve digits of a
    variance.

    Args:
        num_channels: number C of channels.
        num_places: number P of pixels or cells.
    """

    def __init__(self, num_channels: int, num_places: int) -> None:
        self.num_samples = 0
        self._num_channels = num_channels
        # Of (1, whether the first value is known, the values): all else is linear in these; the lower triangle alone.
        self._products = torch.zeros(num_channels + 2, num_channels + 2, num_places, dtype=torch.float64)

    def add(self, values: Tensor, known: Tensor | None = None) -> None:
        """Add samples.

        Args:
            values: float32 (n, C, P).
            known: float32 (n, 1, P), 1 where the first channel's value is known and 0 elsewhere; None where all are.
        """
        given = torch.ones_like(values[:, :1]) if known is None else known
        for value, is_known in zip(values.double(), given.double(), strict=True):
            row = torch.cat([torch.ones_like(is_known), is_known, value[:1] * is_known, value[1:]])
            for number, factor in enumerate(row):
                self._products[number, : number + 1] += factor * row[: number + 1]
        self.num_samples += len(values)

    def mean(self) -> Tensor:
        """Mean of each channel over its known values: float64 (C, P); 0 where none is known."""
        sums = torch.stack([self._sum(2 + i, self._known(i)) for i in range(self._num_channels)])
        return sums / self.num_known().clamp(min=1.0)

    def num_known(self) -> Tensor:
        """How many values of each channel are known: float64 (C, P)."""
        return torch.stack([self._sum(self._known(i), self._known(i)) for i in range(self._num_channels)])

    def covariance(self) -> Tensor:
        """Unbiased covariance: float64 (P, C, C). An unknown value counts as its channel's mean.

        The variance of a channel that lacks values is that of the known ones; fewer than two give 0.
        """
        num, mean = self._num_channels, self.mean()
        covariance = torch.zeros(num, num, mean.shape[1], dtype=torch.float64)
        for i in range(num):
            for j in range(i + 1):
                # Σ kᵢkⱼ (vᵢ − µᵢ)(vⱼ − µⱼ), where k is 1 for a known value and 0 for another.
                a, b = self._known(i), self._known(j)
                total = self._sum(2 + i, 2 + j) - self._sum(2 + i, b) * mean[j] - mean[i] * self._sum(a, 2 + j)
                covariance[i, j] = covariance[j, i] = total + self._sum(a, b) * mean[i] * mean[j]
        scale = (self.num_known().clamp(min=float(_FEWEST)) - 1.0).rsqrt()
        return (covariance * scale[:, None] * scale[None]).permute(2, 0, 1)

    def factors(self, smallest: Tensor, *, is_full: bool) -> Tensor:
        """Whitening factors of every place, see ``whitening``: float32 (C (C + 1) / 2, P).

        Where the first channel was never known nothing is known of it: it whitens to nothing.
        """
        factors = whitening(self.covariance(), smallest, is_full=is_full)
        factors[torch.tril_indices(self._num_channels, self._num_channels)[1] == 0] *= self.num_known()[0] > 0
        return factors.float()

    def _known(self, channel: int) -> int:
        """Index of what says whether a channel's value is known."""
        return 1 if channel == 0 else 0

    def _sum(self, first: int, second: int) -> Tensor:
        """Sum over all samples of a product: float64 (P,)."""
        return self._products[max(first, second), min(first, second)]


def whitening(covariance: Tensor, smallest: Tensor, *, is_full: bool) -> Tensor:
    """Return the whitening factor of each covariance, packed.

    Args:
        covariance: float64 (P, C, C).
        smallest: float64 (C,), smallest deviation that a channel is taken to have. Of one channel alone, and without
            ``is_full``, a smaller deviation becomes it; else its square is added to the variance, which keeps the
            covariance definite.
        is_full: whether channels are taken to vary together; else each by itself.

    Returns:
        float64 (C (C + 1) / 2, P): rows of the lower triangle of W, one after another.
    """
    num = covariance.shape[1]
    if is_full and num > 1:
        triangle = torch.linalg.cholesky(covariance + torch.diag(smallest.square()))
        identity = torch.eye(num, dtype=torch.float64).expand_as(covariance)
        factor = torch.linalg.solve_triangular(triangle, identity, upper=False)
    else:
        deviations = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=0.0).sqrt()
        factor = torch.diag_embed(1.0 / torch.maximum(deviations, smallest))
    rows, columns = torch.tril_indices(num, num)
    packed: Tensor = factor[:, rows, columns].T.contiguous()
    return packed


@final
class Centre(nn.Module):
    """Values minus their means; float32, since a depth's deviation is lost beside the depth in fp16.

    Attributes:
        mean: float32 (C, *places).
    """

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, values: Tensor) -> Tensor:
        """float32 (N, C, *places) → likewise."""
        return values - self.mean


@final
class Whiten(nn.Module):
    """Centred values times the lower triangle of W, by multiplications and additions of whole maps.

    Attributes:
        factor0, factor1, …: float32 (i + 1, *places), row i of each W.
    """

    def __init__(self, factors: Tensor, num_channels: int) -> None:
        super().__init__()
        self._num_channels = num_channels
        first = 0
        for row in range(num_channels):
            self.register_buffer(f"factor{row}", factors[first : first + row + 1].contiguous())
            first += row + 1

    def forward(self, centred: Tensor) -> Tensor:
        """float32 (N, C, *places) → likewise, of unit covariance for good samples."""
        rows = []
        for row in range(self._num_channels):
            factor = self.get_buffer(f"factor{row}")
            total = centred[:, :1] * factor[:1]
            for column in range(1, row + 1):
                total = total + centred[:, column : column + 1] * factor[column : column + 1]
            rows.append(total)
        return torch.cat(rows, 1) if len(rows) > 1 else rows[0]


def whitened(factors: Tensor, centred: Tensor) -> Tensor:
    """The training form of ``Whiten``: factors (C (C + 1) / 2, *places) and values (N, C, *places) → likewise."""
    result = torch.zeros_like(centred)
    rows, columns = torch.tril_indices(centred.shape[1], centred.shape[1])
    for factor, row, column in zip(factors, rows.tolist(), columns.tolist(), strict=True):
        result[:, row] += factor * centred[:, column]
    return result


def lengths(whitened: Tensor) -> Tensor:
    """Lengths along the channels: float32 (N, C, *places) → (N, *places)."""
    distances: Tensor = whitened.square().sum(1).sqrt()
    return distances
