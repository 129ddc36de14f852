"""The largest batch of an imported model: what its file declares, and whether it keeps that promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from ...core.errors import BadInputError, UsageError
from ...core.imported_model import ImportedModel
from ...core.prediction import Prediction
from ...core.spec import Frames
from ...core.words import clause
from ...runtime.original import OriginalModel, shaped

#: Largest batch where nobody asks for another and the file allows any.
USUAL_BATCH = 8
_NUM_TRIED = 3
#: Largest difference between a frame alone and in a batch, as a share of the largest value: rounding, by input type.
_ROUNDING = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-4}
_ADVICE = (
    'Export it again with a symbolic batch: torch.onnx.export(…, dynamo=True, dynamic_shapes=({0: "N"},)), or '
    'dynamic_axes={"INPUT": {0: "N"}, "OUTPUT": {0: "N"}} of the older exporter, which was given an example of batch 1.'
)


@final
@dataclass(frozen=True)
class BatchLimit:
    """How many frames a model takes at once.

    Attributes:
        max_batch: the largest batch.
        note: why it is 1, in sentences; "" where it was chosen.
    """

    max_batch: int
    note: str = ""


def find_limit(original: OriginalModel, model: ImportedModel, frames: Frames, *, asked: int | None) -> BatchLimit:
    """Find the largest batch; what the file declares is tried.

    Args:
        original: the model's own file.
        model: what it takes and gives.
        frames: some frames that differ, uint8 (N, H, W, C).
        asked: largest batch that was asked for; None for the usual one.

    Raises:
        BadInputError: the batch is frozen at another number than 1, or the file does not run on one frame.
        UsageError: a larger batch than 1 was asked for, and the file does not take it.
    """
    frozen = original.frozen_batch
    if frozen not in (None, 1):
        raise BadInputError(
            f"{original.path} is frozen at a batch of {frozen} (input {original.declared_input}); expected a symbolic "
            f"batch, or 1. {_ADVICE} Of a model of anomalib give the checkpoint: lineproof import anomalib."
        )
    try:
        original.run(frames[:1])
    except BadInputError as error:
        raise BadInputError(
            f"{error} Expected it to run on one frame. Its batch may be frozen inside its graph. {_ADVICE}"
        ) from None
    alone = original(frames[:_NUM_TRIED])
    wanted = USUAL_BATCH if asked is None else asked
    if frozen is None and wanted == 1:
        return BatchLimit(1)
    reason = (
        f"its batch is frozen at 1 (input {original.declared_input})"
        if frozen == 1
        else _broken_promise(original, model, frames[:_NUM_TRIED], alone)
    )
    if not reason:
        return BatchLimit(wanted)
    if asked is not None and asked > 1:
        raise UsageError(
            f"max_batch (--batch) is {asked}, and {original.path} takes one frame at once: {reason}. Give 1. {_ADVICE}"
        )
    return BatchLimit(1, f"The bundle takes one frame at once: {reason}. {_ADVICE}" if asked is None else "")


def _broken_promise(original: OriginalModel, model: ImportedModel, frames: Frames, alone: Prediction) -> str:
    """How several frames at once come out otherwise than one by one, in words; "" where they do not."""
    num = len(frames)
    try:
        together = shaped(original.run(frames), model, num=num)
    except BadInputError as error:
        return f"its batch is symbolic, but {num} at once do not run ({clause(error)})"
    for name, one, other in (
        ("score", alone.score, together.score),
        ("anomaly map", alone.anomaly_map, together.anomaly_map),
    ):
        largest = float(np.abs(one).max())
        difference = float(np.abs(one.astype(np.float64) - other).max())
        if not difference <= _ROUNDING[original.dtype] * largest:
            return (
                f"the {name} of a frame depends on the other frames of its batch (off by {difference:.3g}, values "
                f"reach {largest:.3g})"
            )
    return ""
