"""Connected components of defect masks (8-connectivity), in NumPy alone.

The defect pixels are joined into runs (maximal horizontal stretches); runs of neighbouring rows that touch,
diagonals included, are edges of a graph, and a vectorised union-find joins them. Work grows with the number of
defect pixels, not with the size of the image.
"""

import numpy as np
from numpy.typing import NDArray


def component_sizes(pixels: NDArray[np.int64], height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the connected components of the defect pixels of a stack of masks.

    Args:
        pixels: int64 (P,), ascending flat indices of the defect pixels in a C-ordered stack (N, H, W).
        height: H of the stack.
        width: W of the stack.

    Returns:
        The component of every defect pixel, int64 (P,), numbered from 0, and the number of pixels of every
        component, int64 (K,). No component reaches from one mask into the next.
    """
    starts, lengths = _runs(pixels, height, width)
    labels = _join(len(starts), *_touching_runs(starts, starts + lengths, width + 1))
    sizes = np.bincount(labels, weights=lengths).astype(np.int64)
    return np.repeat(labels, lengths), sizes


def saturate(
    scores: NDArray[np.float32], components: NDArray[np.int64], areas: NDArray[np.int64], saturation: float
) -> NDArray[np.int64]:
    """Let only the highest scores of each component count, as many as saturate it; the others get area 0.

    Args:
        scores: float32 (P,), scores of the defect pixels.
        components: int64 (P,), component of each pixel.
        areas: int64 (P,), number of pixels of that component.
        saturation: share of a component, in (0, 1], that has to be detected for it to count as detected whole.

    Returns:
        int64 (P,): the number of pixels that saturate the pixel's component; 0 for a pixel that does not count.
    """
    # Rounded first: 0.07 * 100 is 7.000000000000001, which must not become 8.
    enough = np.ceil(np.round(saturation * areas, 6)).astype(np.int64)
    order = np.lexsort((-scores, components))
    first = np.concatenate([[True], np.diff(components[order]) > 0])
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    counts = np.empty(len(order), np.bool_)
    counts[order] = place < enough[order]
    return np.where(counts, enough, 0)


def _runs(pixels: NDArray[np.int64], height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first pixel and length of every run, in a raster with rows of ``width + 1``.

    One more column per row and one more row per mask, both empty, keep runs of different rows and masks apart.
    """
    raster = pixels + pixels // width
    if pixels[-1] >= height * width:
        raster += pixels // (height * width) * (width + 1)
    first = np.flatnonzero(np.concatenate([[True], np.diff(raster) > 1]))
    return raster[first], np.diff(first, append=len(raster))


def _touching_runs(
    starts: NDArray[np.int64], ends: NDArray[np.int64], stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs (run, run of the row above that it touches by a side or a corner)."""
    # Shifted up by one row, a run touches the stretch of runs that neither end before it nor start after it.
    first = np.searchsorted(ends, starts - stride, side="left")
    last = np.searchsorted(starts, ends - stride, side="right")
    counts = last - first
    lower = np.repeat(np.arange(len(starts)), counts)
    offset = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts, counts)
    return lower, np.repeat(first, counts) + offset


def _join(num_runs: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the components of the graph of runs 0, 1, ... and return the number of each run.

    Every round hooks each root onto its smallest neighbouring root and flattens the trees. The roots at
    least halve in two rounds, so the number of rounds is logarithmic.
    """
    parent = np.arange(num_runs)
    while len(left):
        left, right = parent[left], parent[right]
        open_edges = left != right
        left, right = left[open_edges], right[open_edges]
        np.minimum.at(parent, np.maximum(left, right), np.minimum(left, right))
        parent = _flatten(parent)
    roots = parent == np.arange(num_runs)
    return (np.cumsum(roots) - 1)[parent]


def _flatten(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Let every node point at the root of its tree."""
    while True:
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            return parent
        parent = grandparent
