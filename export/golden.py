"""Golden frames: a few real frames that travel with the bundle, so that a target can verify without data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError
from ..core.inputs import InputSpec
from ..core.spec import Frames
from ..data.decoding.conversions import Conversions
from ..data.inputs.table import input_of

NUM_GOOD = 6
NUM_MARKED = 2


def golden_frames(
    paths: Sequence[Path], spec: InputSpec, *, conversions: Conversions | None = None
) -> tuple[Frames, NDArray[np.str_]]:
    """Held-out good frames, and copies of the first ones with a drawn mark, so that scores span a range.

    Args:
        paths: held-out good images.
        spec: how they become frames.
        conversions: is told what was done to their values.

    Returns:
        frames, as the graph takes them (``spec.frames``), and their names.

    Raises:
        BadInputError: none of the files is left, or one cannot become a frame.
    """
    present = [path for path in paths if path.is_file()]
    if not present:
        raise BadInputError(
            f"None of the {len(paths)} held-out images of this run is where it was ({paths[0] if paths else '-'}). "
            "Put the data back, or train again: golden frames are taken from them."
        )
    chosen = present[:: max(1, len(present) // NUM_GOOD)][:NUM_GOOD]
    given = input_of(spec)
    frames = [given.read(path, conversions=conversions) for path in chosen]
    names = [f"{path.parent.name}/{path.name}" for path in chosen]
    marked = [given.marked(frame, seed=seed) for seed, frame in enumerate(frames[:NUM_MARKED])]
    names += [f"{name}+mark" for name in names[:NUM_MARKED]]
    return given.prepare(np.stack([*frames, *marked])), np.array(names)


def apart_from(
    paths: Sequence[Path], scores: Sequence[float], *, threshold: float, distance: float
) -> tuple[Path, ...]:
    """Those held-out images on which the reference decides: their scores lie apart from the threshold.

    A frame nearer than an engine may be off proves nothing about its verdicts, and a threshold that stands just above
    the highest good score has such frames by its nature. Where fewer than two lie apart, all are taken: then it is
    the detector that decides nothing.

    Args:
        paths: held-out good images.
        scores: the reference's score of each.
        threshold: in units of the score.
        distance: a score must be farther from the threshold than this, likewise.
    """
    apart = tuple(path for path, score in zip(paths, scores, strict=True) if abs(score - threshold) > distance)
    return apart if len(apart) > 1 else tuple(paths)
