"""Checks of the arguments of the metrics: anomaly maps, masks, scores, labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...core.errors import BadInputError, UsageError
from ...core.words import counted


def check_fraction(name: str, value: float) -> float:
    """Return ``value`` if it lies in (0, 1], else raise UsageError; ``name`` is the parameter's, for the message."""
    if not 0.0 < value <= 1.0:
        raise UsageError(f"{name} is {value}; expected a number in (0, 1], for example 0.3.")
    return float(value)


def check_maps(anomaly_map: ArrayLike) -> NDArray[np.float32]:
    """Return anomaly maps as float32 (N, H, W).

    Args:
        anomaly_map: float32 or float16, (H, W) or (N, H, W), without NaN; infinities are allowed.

    Raises:
        BadInputError: another dtype or rank, no pixel, or NaN.
    """
    maps = np.asarray(anomaly_map)
    if maps.dtype not in (np.float32, np.float16):
        raise BadInputError(
            f"The anomaly map is {maps.dtype}; expected float32 or float16. Rounding makes ties, so it is "
            "left to you: pass anomaly_map.astype(np.float32)."
        )
    if maps.ndim not in (2, 3) or not maps.size:
        raise BadInputError(
            f"The anomaly map has shape {maps.shape}; expected (H, W), or (N, H, W) for several, "
            "with at least one pixel."
        )
    if np.isnan(np.max(maps)):
        raise BadInputError(
            f"The anomaly map holds {np.count_nonzero(np.isnan(maps))} NaN of {maps.size} values; expected "
            "numbers. Look for the layer that makes them; in fp16 it is often an overflow."
        )
    return maps.astype(np.float32, copy=False).reshape(-1, *maps.shape[-2:])


def check_masks(mask: ArrayLike, anomaly_map: ArrayLike) -> NDArray[np.bool_]:
    """Return masks as bool (N, H, W), True where there is a defect.

    Args:
        mask: bool or integer, the shape of the map; any non-zero value is a defect.
        anomaly_map: the anomaly map or maps of the same images, (H, W) or (N, H, W).

    Raises:
        BadInputError: a floating mask, or one of another shape than the map.
    """
    masks = np.asarray(mask)
    shape = np.shape(anomaly_map)
    if masks.shape != shape:
        raise BadInputError(
            f"The mask has shape {masks.shape}, but the anomaly map has {shape}; expected the same. Resize the "
            "map to the mask (bilinear), or the mask to the map (nearest)."
        )
    if masks.dtype.kind not in "biu":
        raise BadInputError(
            f"The mask is {masks.dtype}; expected bool or integers, where any non-zero value is a defect. "
            "Decide what is a defect first, for example mask > 0.5."
        )
    return masks.astype(np.bool_, copy=False).reshape(-1, *shape[-2:])


def check_scores(score: ArrayLike) -> NDArray[np.float64]:
    """Return scores as float64 (N,).

    Raises:
        BadInputError: not numbers, more than one dimension, or NaN.
    """
    scores = np.asarray(score)
    if scores.dtype.kind not in "fiu" or scores.ndim > 1:
        raise BadInputError(
            f"The score is {scores.dtype} of shape {scores.shape}; expected one number, or several as (N,)."
        )
    scores = scores.astype(np.float64).reshape(-1)
    if np.isnan(scores).any():
        raise BadInputError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN; expected numbers.")
    return scores


def check_labels(label: ArrayLike, num_scores: int) -> NDArray[np.bool_]:
    """Return labels as bool (N,), True for an image with a defect.

    Raises:
        BadInputError: values other than 0 and 1 (or bool), or another number of labels than of scores.
    """
    labels: NDArray[Any] = np.asarray(label).reshape(-1)
    if len(labels) != num_scores:
        raise BadInputError(
            f"Given: {counted(len(labels), 'label')} for {counted(num_scores, 'score')}; expected one for each."
        )
    if labels.dtype.kind not in "biu" or not np.isin(labels, (0, 1)).all():
        raise BadInputError(
            f"The labels are {labels.dtype} {np.unique(labels)[:5]}; expected bool, or 0 (good) and 1 (defect)."
        )
    return labels.astype(np.bool_)
