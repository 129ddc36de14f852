"""Which pixels of a ground truth mask are anomalous, also where it is drawn in alpha or in palette indices.

A mask is drawn in its colours, in its alpha, or in the indices of a palette. What varies over the image is what was
drawn; where two of them vary and mark different pixels, which one was meant cannot be known, and the mask is refused.
The table stands in :mod:`.decode`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError
from .stored import StoredImage


def marked(samples: StoredImage, path: Path) -> NDArray[np.bool_]:
    """Anomalous pixels of one mask.

    Args:
        samples: stored samples of the mask, with alpha and every stored bit.
        path: file of the mask, for messages.

    Returns:
        bool (H, W), not yet upright.

    Raises:
        BadInputError: which pixels are meant cannot be known.
    """
    values = samples.values
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise _unclear(path, "it holds values that are no number (NaN)")
    coloured: NDArray[np.bool_] = (values != 0).any(axis=2)
    has_one_colour = bool((values == values[0, 0]).all())
    drawn = coloured
    if has_one_colour and samples.indices is not None and samples.palette is not None:
        drawn = _by_index(samples.indices, samples.palette, coloured, path)
    if samples.alpha is None:
        return drawn
    opaque: NDArray[np.bool_] = samples.alpha > 0
    if opaque.all() or not opaque.any():
        if not drawn.any() and samples.alpha.min() != samples.alpha.max():
            raise _unclear(path, "every colour is black and alpha varies, but is zero nowhere")
        return drawn
    if not _varies(drawn) and has_one_colour:
        return opaque
    if not np.array_equal(opaque, drawn):
        raise _unclear(path, "its colours mark other pixels than its alpha")
    return opaque


def _varies(drawn: NDArray[np.bool_]) -> bool:
    return bool(drawn.any()) and not drawn.all()


def _by_index(
    indices: NDArray[np.uint8], palette: NDArray[np.uint8], coloured: NDArray[np.bool_], path: Path
) -> NDArray[np.bool_]:
    """Of a palette of which one colour alone is in use."""
    used = np.unique(indices)
    if len(used) > 1 and used[0] == 0:
        return indices > 0
    has_one_colour = len(palette) > 1 and bool((palette == palette[0]).all())
    if len(used) > 1 or (used[0] > 0 and has_one_colour):
        raise _unclear(path, f"its palette indices {used.tolist()[:8]} have one colour, and index 0 is not among them")
    return coloured


def _unclear(path: Path, what: str) -> BadInputError:
    return BadInputError(
        f"{path}: which pixels of this mask are anomalous cannot be known: {what}. Export it as 8-bit grey PNG, black "
        "where the part is good."
    )
