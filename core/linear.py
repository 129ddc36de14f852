"""Resize, crop, upsampling and Gaussian smoothing as constant matrices.

Each of these is linear and separable, so an image operator is two small matrices, rows and columns:
``out = R_h @ image @ R_w.T``. That form is the same in every engine, to float32 rounding.
All matrices are built in float64.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
#: How a smoothing continues the image beyond its border: ``d c b a | a b c d | d c b a`` (half-sample symmetric, as
#: ``scipy.ndimage`` and most authors do), or ``d c b | a b c d | c b a`` (the outermost pixel is not repeated).
Border = Literal["symmetric", "reflect"]
#: How a map grows: bilinearly, or by repeating its values.
Growth = Literal["bilinear", "nearest"]


def antialias_matrix(size_in: int, size_out: int) -> Matrix:
    """Antialiased bilinear resize of one axis, as torchvision and Pillow define it.

    A triangle filter of half-width ``max(size_in / size_out, 1)`` around each output centre, cut at the
    border and normalised to sum 1.

    Args:
        size_in: pixels before the resize.
        size_out: pixels after it.

    Returns:
        float64 (size_out, size_in), rows sum to 1.
    """
    scale = size_in / size_out
    support = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale
    positions = np.arange(size_in) + 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(positions[None, :] - centres[:, None]) / support)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def bilinear_matrix(size_in: int, size_out: int, *, align_corners: bool) -> Matrix:
    """Bilinear interpolation of one axis without antialiasing (``torch.nn.functional.interpolate``).

    Args:
        size_in: pixels before the interpolation.
        size_out: pixels after it.
        align_corners: whether the centres of the outermost pixels coincide, rather than their outer edges.

    Returns:
        float64 (size_out, size_in), rows sum to 1.
    """
    if align_corners:
        step = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
        source = np.arange(size_out) * step
    else:
        source = np.maximum((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0.0)
    low = np.minimum(np.floor(source).astype(int), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    fraction = source - low
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1.0 - fraction)
    np.add.at(matrix, (rows, high), fraction)
    return matrix


def nearest_matrix(size_in: int, size_out: int) -> Matrix:
    """Repetition of the values of one axis (``torch.nn.functional.interpolate``, mode "nearest").

    Args:
        size_in: pixels before.
        size_out: pixels after.

    Returns:
        float64 (size_out, size_in), one 1 in each row.
    """
    matrix = np.zeros((size_out, size_in))
    matrix[np.arange(size_out), np.arange(size_out) * size_in // size_out] = 1.0
    return matrix


def gaussian_matrix(size: int, sigma: float, *, border: Border = "symmetric") -> Matrix:
    """Gaussian smoothing of one axis.

    The kernel is truncated at 4 sigma, radius ``int(4 sigma + 0.5)``.

    Args:
        size: pixels of the axis.
        sigma: standard deviation of the kernel in pixels, above 0.
        border: how the axis continues beyond its ends, as often as the kernel needs.

    Returns:
        float64 (size, size), rows sum to 1.
    """
    radius = int(4.0 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, tap in zip(range(-radius, radius + 1), taps, strict=True):
        period = 2 * size if border == "symmetric" else max(2 * size - 2, 1)
        folded = (rows + offset) % period
        last = period - 1 if border == "symmetric" else period
        np.add.at(matrix, (rows, np.minimum(folded, last - folded)), tap)
    return matrix


def smooth_upsample_matrix(
    size_in: int,
    size_out: int,
    sigma: float,
    *,
    align_corners: bool,
    border: Border = "symmetric",
    growth: Growth = "bilinear",
) -> Matrix:
    """Upsampling followed by Gaussian smoothing, as one matrix U = G R.

    Args:
        size_in: pixels of the map before.
        size_out: pixels of the map after.
        sigma: standard deviation of the smoothing in pixels after upsampling; 0 leaves out G.
        align_corners: see ``bilinear_matrix``; it means nothing to growth by repetition.
        border: see ``gaussian_matrix``.
        growth: how the map grows before it is smoothed.

    Returns:
        float64 (size_out, size_in), rows sum to 1.
    """
    if growth == "nearest":
        upsample = nearest_matrix(size_in, size_out)
    else:
        upsample = bilinear_matrix(size_in, size_out, align_corners=align_corners)
    return gaussian_matrix(size_out, sigma, border=border) @ upsample if sigma > 0 else upsample
