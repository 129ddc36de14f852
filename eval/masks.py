"""Anomaly maps and ground truth masks brought together, pixel by pixel, at one of two resolutions.

``"image"`` is MVTec's own protocol: the map is enlarged bilinearly to the image, the mask stays as it was drawn. With
a centre crop those pixels of the image count whose centres lie in the cropped region. ``"map"`` shrinks the mask to
the map (nearest), which is cheaper, and may split a thin defect in two or lose a small one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError, UsageError
from ..core.geometry import enlarge_map, mask_on_map, seen_part
from ..core.inputs import InputSpec

Resolution = Literal["image", "map"]
#: What each resolution means, for tables and reports.
RESOLUTIONS: dict[Resolution, str] = {
    "image": "at the image's resolution (maps enlarged bilinearly, masks as drawn)",
    "map": "at the map's resolution (masks shrunk to the map)",
}


def check_resolution(name: str) -> Resolution:
    """Return the resolution of that name.

    Raises:
        UsageError: there is no such resolution.
    """
    for known in RESOLUTIONS:
        if name == known:
            return known
    raise UsageError(f"resolution (--resolution) is {name!r}; expected {' or '.join(RESOLUTIONS)}.")


def judged_pixels(
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_],
    preprocessing: InputSpec,
    *,
    resolution: Resolution,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Map and mask of one image, brought to one shape for the metrics.

    Args:
        anomaly_map: float32 (h, w), covering the crop.
        mask: bool (H, W) at the frame's size.
        preprocessing: the bundle's rule from image to frame.
        resolution: ``"image"`` enlarges the map to the part of the image that the detector sees, ``"map"`` shrinks
            the mask.

    Returns:
        Map, float32, and mask, bool, of the same shape.

    Raises:
        BadInputError: the mask is not of the frame's size.
    """
    check_mask_shape(mask, preprocessing)
    if resolution == "image":
        return judged_map(anomaly_map, preprocessing, resolution=resolution), mask[seen_part(preprocessing)]
    map_shape = (anomaly_map.shape[0], anomaly_map.shape[1])
    return anomaly_map, mask_on_map(mask, preprocessing, map_shape=map_shape)


def judged_map(
    anomaly_map: NDArray[np.float32], preprocessing: InputSpec, *, resolution: Resolution
) -> NDArray[np.float32]:
    """The map alone, float32, as ``judged_pixels`` returns it."""
    return enlarge_map(anomaly_map, preprocessing) if resolution == "image" else np.asarray(anomaly_map)


def check_mask_shape(mask: NDArray[np.bool_], preprocessing: InputSpec) -> None:
    """Raise BadInputError unless a mask has the size of the frames."""
    height, width = preprocessing.frame_height_px, preprocessing.frame_width_px
    if mask.shape != (height, width):
        raise BadInputError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} pixels, the frames {width}x{height}; they must be equal. "
            "Export the mask at the image's size."
        )


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask as bits: bool (…, W) → uint8 (…, ceil(W / 8)), the first pixel in the highest bit (``np.packbits``)."""
    return np.packbits(mask, axis=-1)


def unpack_mask(packed: NDArray[np.uint8], width_px: int) -> NDArray[np.bool_]:
    """Undo ``pack_mask``: bool (…, W)."""
    return np.unpackbits(np.asarray(packed), axis=-1, count=width_px).view(np.bool_)
