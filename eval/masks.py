"""Ground truth masks in the coordinates of the anomaly map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError
from ..core.linear import centre_crop_offset
from ..core.spec import Preprocessing
from ..data.masks import read_mask
from ..data.records import Sample


def mask_for(sample: Sample, preprocessing: Preprocessing, *, map_shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The mask of a picture at the map's size.

    Returns:
        bool (h, w), True where anomalous; all False for a good picture; None for a defective one without a mask,
        whose pixels are unknown.

    Raises:
        BadInputError: the mask cannot be read, or is not of the frame's size.
    """
    if sample.label == 0:
        return np.zeros(map_shape, dtype=np.bool_)
    frame_shape = (preprocessing.frame_height_px, preprocessing.frame_width_px)
    mask = read_mask(sample, expected_shape=frame_shape)
    return None if mask is None else align_mask(mask, preprocessing, map_shape=map_shape)


def align_mask(
    mask: NDArray[np.bool_], preprocessing: Preprocessing, *, map_shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Resize and crop a mask as the graph does with the frame: each pixel of the map takes the mask at its centre.

    Nearest, so that the mask stays a mask. What the crop cuts away counts nowhere.

    Args:
        mask: bool (H, W) at the frame's size.
        preprocessing: of the bundle.
        map_shape: (h, w) of the map, which covers the crop.

    Raises:
        BadInputError: the mask is not of the frame's size.
    """
    seen = (preprocessing.frame_height_px, preprocessing.frame_width_px)
    if mask.shape != seen:
        raise BadInputError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} pixels, the frames {seen[1]}x{seen[0]}; they must be equal. "
            "Export the mask at the picture's size."
        )
    rows = _source_index(
        map_shape[0], preprocessing.crop_height_px, preprocessing.resize_height_px, preprocessing.frame_height_px
    )
    columns = _source_index(
        map_shape[1], preprocessing.crop_width_px, preprocessing.resize_width_px, preprocessing.frame_width_px
    )
    return np.asarray(mask[rows[:, None], columns[None, :]])


def _source_index(num_map: int, crop: int, resized: int, frame: int) -> NDArray[Any]:
    in_crop = (np.arange(num_map) + 0.5) * crop / num_map
    in_frame = (in_crop + centre_crop_offset(resized, crop)) * frame / resized
    return np.clip(np.floor(in_frame).astype(np.int64), 0, frame - 1)
