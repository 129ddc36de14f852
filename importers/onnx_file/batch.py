"""The largest batch of an imported model: what its file declares, and whether it keeps that promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from ...core.errors import BadInputError, UsageError
from ...core.imported_model import ImportedModel
from ...core.prediction import Prediction
from ...core.spec import Frames
from ...core.tiles import MAX_TILES
from ...core.words import clause
from ...runtime.original import OriginalModel, joined, shaped
from ...runtime.original_tiles import cut

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
        frames: some frames that differ, uint8 (N, H, W, C); where there are tiles, three from all over them are tried.
        asked: largest batch that was asked for; None for the usual one.

    Raises:
        BadInputError: the batch is frozen at another number than 1, the file does not run on one image, or it takes no
            batch where a frame is a batch of tiles.
        UsageError: a larger batch than 1 was asked for, and the file does not take it, or it has too many tiles.
    """
    wanted, num = _wanted(model, asked), model.num_tiles
    frozen = original.frozen_batch
    if frozen not in (None, 1):
        raise BadInputError(
            f"{original.path} is frozen at a batch of {frozen} (input {original.declared_input}); expected a symbolic "
            f"batch{', or 1' * (num == 1)}. {_ADVICE} Of a model of anomalib give the checkpoint: lineproof import "
            "anomalib."
        )
    images = cut(frames, model.tiles)
    images = images[np.linspace(0, len(images) - 1, min(_NUM_TRIED, len(images))).astype(np.int64)]
    try:
        original.run(images[:1])
    except BadInputError as error:
        raise BadInputError(
            f"{error} Expected it to run on one {_image(model)}. Its batch may be frozen inside its graph. {_ADVICE}"
        ) from None
    alone = joined([shaped(original.run(image[None]), model, num=1) for image in images])
    if frozen is None and wanted * num == 1:
        return BatchLimit(1)
    reason = (
        f"its batch is frozen at 1 (input {original.declared_input})"
        if frozen == 1
        else _broken_promise(original, model, images, alone)
    )
    if not reason:
        return BatchLimit(wanted)
    if num > 1:
        raise BadInputError(
            f"{original.path} takes one tile at once: {reason}; expected a symbolic batch: the {num} tiles of a frame "
            f"are computed at once. {_ADVICE}"
        )
    if asked is not None and asked > 1:
        raise UsageError(
            f"max_batch (--batch) is {asked}, and {original.path} takes one frame at once: {reason}. Give 1. {_ADVICE}"
        )
    return BatchLimit(1, f"The bundle takes one frame at once: {reason}. {_ADVICE}" if asked is None else "")


def _wanted(model: ImportedModel, asked: int | None) -> int:
    """The largest batch that is asked for, or as many frames as is usual and as their tiles allow."""
    num = model.num_tiles
    if asked is None:
        return min(USUAL_BATCH, MAX_TILES // num)
    if asked * num > MAX_TILES and model.tiles:
        raise UsageError(
            f"max_batch (--batch) is {asked}, and a frame has {num} tiles: {asked * num} at once, expected at most "
            f"{MAX_TILES}. Give --batch {MAX_TILES // num}."
        )
    return asked


def _image(model: ImportedModel) -> str:
    """What the model takes, in a word."""
    return "tile" if model.tiles else "frame"


def _broken_promise(original: OriginalModel, model: ImportedModel, images: Frames, alone: Prediction) -> str:
    """How several images at once come out otherwise than one by one, in words; "" where they do not."""
    num = len(images)
    try:
        together = shaped(original.run(images), model, num=num)
    except BadInputError as error:
        return f"its batch is symbolic, but {num} at once do not run ({clause(error)})"
    for name, one, other in (
        ("score", alone.score, together.score),
        ("anomaly map", alone.anomaly_map, together.anomaly_map),
    ):
        largest = float(np.abs(one).max())
        difference = float(np.abs(one.astype(np.float64) - other).max())
        if not difference <= _ROUNDING[original.dtype] * largest:
            image = _image(model)
            return (
                f"the {name} of a {image} depends on the other {image}s of its batch (off by {difference:.3g}, values "
                f"reach {largest:.3g})"
            )
    return ""
