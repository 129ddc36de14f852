"""Frames for measurements: the bundle's golden frames, repeated to the size of the batch."""

from __future__ import annotations

import numpy as np

from ..bundle.store import Bundle
from ..core.errors import UsageError
from ..runtime.engine import Frames


def check_batch_size(bundle: Bundle, batch: int) -> None:
    """Raise UsageError unless the bundle takes ``batch`` frames at once."""
    if not 1 <= batch <= bundle.manifest.max_batch:
        raise UsageError(
            f"batch (--batch) is {batch}; this bundle takes 1 to {bundle.manifest.max_batch} frames at once. "
            "Give batches in that range, or export again with a larger --batch."
        )


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
