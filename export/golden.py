"""Golden frames: a few real frames that travel with the bundle, so that a target can verify without data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import BadInputError
from ..core.spec import Preprocessing
from ..data.decode import decode_image

NUM_GOOD = 6
NUM_MARKED = 2


def frame_of(path: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    """Decode an image as a frame of the camera: uint8 (H, W, C); one of another size is resampled to fit."""
    image = decode_image(path, channels=spec.frame_channels)
    size = (spec.frame_width_px, spec.frame_height_px)
    if image.shape[:2] == size[::-1]:
        return image
    plane = Image.fromarray(image.squeeze(2) if spec.frame_channels == 1 else image)
    # A copy, since Pillow's own memory is read-only and torch.from_numpy warns of that.
    resampled = np.array(plane.resize(size, Image.Resampling.BILINEAR))
    return resampled.reshape(spec.frame_height_px, spec.frame_width_px, spec.frame_channels)


def golden_frames(paths: Sequence[Path], spec: Preprocessing) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Held-out good frames, and copies of the first ones with a drawn mark, so that scores span a range.

    Returns:
        frames uint8 (N, H, W, C) and their names.

    Raises:
        BadInputError: none of the files is left.
    """
    present = [path for path in paths if path.is_file()]
    if not present:
        raise BadInputError(
            f"None of the {len(paths)} held-out images of this run is where it was ({paths[0] if paths else '-'}). "
            "Put the data back, or train again: golden frames are taken from them."
        )
    chosen = present[:: max(1, len(present) // NUM_GOOD)][:NUM_GOOD]
    frames = [frame_of(path, spec) for path in chosen]
    names = [f"{path.parent.name}/{path.name}" for path in chosen]
    marked = [_marked(frame, seed) for seed, frame in enumerate(frames[:NUM_MARKED])]
    return np.stack([*frames, *marked]), np.array([*names, *(f"{name}+mark" for name in names[:NUM_MARKED])])


def _marked(frame: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The frame with a patch of itself pasted elsewhere, inverted: no defect of the product, but clearly abnormal."""
    height, width = frame.shape[0] // 6, frame.shape[1] // 6
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, frame.shape[0] - height, 2), rng.integers(0, frame.shape[1] - width, 2)
    copy = frame.copy()
    patch = frame[rows[0] : rows[0] + height, columns[0] : columns[0] + width]
    copy[rows[1] : rows[1] + height, columns[1] : columns[1] + width] = 255 - patch
    return copy
