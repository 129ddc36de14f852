"""The density of CutPaste's embeddings, and its way from patches to pixels."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.progress import Progress
from ...core.size import Size

#: Side of a patch in pixels from which on the Gaussian has one and the same deviation.
_LARGE_PX = 32
_LARGE_SIGMA = 10.0
_SMALLEST_NORM = 1e-12


@final
class Gaussian(nn.Module):
    """One Gaussian over embeddings of unit length, or one per position: half the squared Mahalanobis distance.

    That is the negative logarithm of the density up to a constant. The precision matrix is kept as W with
    ``WᵀW = Σ⁻¹``: the value is then never negative and tolerates rounding far better.

    Args:
        dim: channels D of an embedding.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0, dim))
        self.register_buffer("factor", torch.empty(0, dim, dim))

    def learn(self, embeddings: Tensor, *, regularisation: float, progress: Progress) -> None:
        """Fit mean and covariance of each group of embeddings, in float64.

        Args:
            embeddings: float32 (G, M, D), M embeddings in each of G groups; they are brought to unit length.
            regularisation: value added to the diagonal of the covariance; 0 for the shrinkage of Ledoit and Wolf.
            progress: called after every group.
        """
        num_groups, _, dim = embeddings.shape
        self.register_buffer("mean", torch.empty(num_groups, dim))
        self.register_buffer("factor", torch.empty(num_groups, dim, dim))
        for group, vectors in enumerate(embeddings):
            self.mean[group], self.factor[group] = _gaussian(unit(vectors, 1), regularisation)
            progress("covariance", group + 1, num_groups)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings float32 (N, D, h, w) → float32 (N, h, w), at least 0."""
        vectors = unit(embeddings, 1).flatten(2)
        if len(self.mean) == 1:
            whitened = self.factor @ (vectors - self.mean[:, :, None])
        else:
            centred = vectors.permute(2, 1, 0) - self.mean[:, :, None]
            whitened = (self.factor @ centred).permute(2, 1, 0)
        squares: Tensor = whitened.square().sum(1).unflatten(1, embeddings.shape[2:])
        return 0.5 * squares


def unit(vectors: Tensor, axis: int) -> Tensor:
    """Return vectors scaled to length 1 along an axis."""
    return vectors / vectors.square().sum(axis, keepdim=True).sqrt().clamp(min=_SMALLEST_NORM)


def _gaussian(vectors: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """float32 (M, D) → mean float32 (D,) and whitening factor W float32 (D, D)."""
    from sklearn.covariance import ledoit_wolf

    values = vectors.double()
    mean = values.mean(0)
    if regularisation == 0.0:
        covariance = torch.from_numpy(ledoit_wolf(values.numpy())[0])
    else:
        centred = values - mean
        covariance = centred.T @ centred / (len(values) - 1)
        covariance += regularisation * torch.eye(len(mean), dtype=torch.float64)
    identity = torch.eye(len(mean), dtype=torch.float64)
    factor = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
    return mean.float(), factor.float()


def patch_kernel(patch_px: int) -> NDArray[np.float64]:
    """The Gaussian that a patch's score is spread with, along one axis.

    Liznerski et al., "Explainable Deep One-Class Classification", ICLR 2021, arXiv 2007.01760, section 3.2 and its
    code: as long as the patch, deviation 10 px, smaller below 32 px. Of an even length it has two middle taps, and
    all are halved.

    Args:
        patch_px: side P of a patch in pixels.

    Returns:
        float64 (P,).
    """
    sigma = math.log10(0.45 * patch_px + 1.0) + 0.25 if patch_px < _LARGE_PX else _LARGE_SIGMA
    half = np.exp(-0.5 * (np.arange((patch_px + 1) // 2) / sigma) ** 2)
    if patch_px % 2:
        return np.concatenate([half[:0:-1], half])
    return np.concatenate([half[::-1], half]) / 2.0


def spread_matrix(size_px: int, patch_px: int, *, stride: int, is_even: bool) -> NDArray[np.float64]:
    """Scores of the patches along one axis → scores of its pixels.

    Args:
        size_px: pixels S of the axis.
        patch_px: side P of a patch in pixels.
        stride: pixels from one patch to the next.
        is_even: whether each pixel's weights are divided by their sum, so that the borders are not darker.

    Returns:
        float64 (S, n), n = (S − P) / stride + 1 rounded down.
    """
    kernel = patch_kernel(patch_px)
    matrix = np.zeros((size_px, (size_px - patch_px) // stride + 1))
    for patch in range(matrix.shape[1]):
        matrix[patch * stride : patch * stride + patch_px, patch] = kernel
    return np.asarray(matrix / matrix.sum(1, keepdims=True)) if is_even else matrix


@final
class ReceptiveFieldUpsample(nn.Module):
    """Spread each patch's score over the pixels that it sees, as two constant matrices: ``G_h S G_wᵀ``, in float32.

    Args:
        size_px: height and width of the image, and of the map.
        patch_px: side of a patch in pixels.
        stride: pixels from one patch to the next.
        is_even: see ``spread_matrix``.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, size_px: Size, patch_px: int, *, stride: int, is_even: bool) -> None:
        super().__init__()
        rows, columns = (spread_matrix(size, patch_px, stride=stride, is_even=is_even) for size in size_px)
        self.register_buffer("rows", torch.from_numpy(rows).float())
        self.register_buffer("columns", torch.from_numpy(columns.T.copy()).float())

    def forward(self, scores: Tensor) -> Tensor:
        """float32 (N, n_h, n_w) → float32 (N, H, W)."""
        return self.rows @ scores @ self.columns
