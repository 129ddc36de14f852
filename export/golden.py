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
#: What a detector was fitted to may score nothing at all: fewer plain frames, and more that it has not seen so.
_NUM_EACH_OF_FITTED = 4


def golden_frames(
    paths: Sequence[Path], spec: InputSpec, *, conversions: Conversions | None = None, are_fitted: bool = False
) -> tuple[Frames, NDArray[np.str_]]:
    """Make golden frames of held-out good images, and copies of the first ones with a drawn mark, to spread the scores.

    Args:
        paths: files of held-out good images.
        spec: specification by which images become frames.
        conversions: record that is extended by what was done to the images.
        are_fitted: whether the detector was fitted to these images at last; more of the frames are marked then.

    Returns:
        Frames as the graph takes them (``spec.frames``), and their names.

    Raises:
        BadInputError: none of the files is left, or an image cannot become a frame.
    """
    present = [path for path in paths if path.is_file()]
    if not present:
        raise BadInputError(
            f"None of the {len(paths)} held-out images of this run is where it was ({paths[0] if paths else '-'}). "
            "Put the data back, or train again: golden frames are made of them."
        )
    num_good, num_marked = (_NUM_EACH_OF_FITTED,) * 2 if are_fitted else (NUM_GOOD, NUM_MARKED)
    chosen = present[:: max(1, len(present) // num_good)][:num_good]
    reader = input_of(spec)
    frames = [reader.read(path, conversions=conversions) for path in chosen]
    names = [f"{path.parent.name}/{path.name}" for path in chosen]
    marked = [reader.marked(frame, seed=seed) for seed, frame in enumerate(frames[:num_marked])]
    names += [f"{name}+mark" for name in names[:num_marked]]
    return reader.prepare(np.stack([*frames, *marked])), np.array(names)


def apart_from(
    paths: Sequence[Path], scores: Sequence[float], *, threshold: float, distance: float
) -> tuple[Path, ...]:
    """Return the held-out images whose scores lie farther from the threshold than an engine may be off.

    A frame nearer than that proves nothing about an engine's verdicts, and a threshold just above the highest good
    score always has such frames. Where fewer than two images lie far enough, all are returned.

    Args:
        paths: files of held-out good images.
        scores: the reference's score of each.
        threshold: threshold in units of the score.
        distance: smallest distance from the threshold, in units of the score; exclusive.
    """
    apart = tuple(path for path, score in zip(paths, scores, strict=True) if abs(score - threshold) > distance)
    return apart if len(apart) > 1 else tuple(paths)
