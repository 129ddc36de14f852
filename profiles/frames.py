"""Frames for measurements: the bundle's golden frames, repeated to the size of the batch."""

from __future__ import annotations

import numpy as np

from ..bundle.store import Bundle
from ..runtime.engine import Frames, check_batch_size


def tiled_frames(bundle: Bundle, batch: int) -> Frames:
    """Golden frames, repeated in their order until the batch is full.

    Args:
        bundle: bundle whose golden frames are used.
        batch: number of frames, at least 1.

    Returns:
        (batch, H, W, C), contiguous, of the dtype that the bundle takes (uint8 for images).

    Raises:
        UsageError: the bundle does not take that many frames at once.
    """
    check_batch_size(bundle, batch)
    golden = bundle.golden().frames
    return np.ascontiguousarray(golden[np.arange(batch) % len(golden)])
