"""The whole graph of an imported model: both ends are traced for it, then joined with its own nodes."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch

from ...core.errors import BadInputError, ExportError
from ...core.imported_model import ImportedModel
from ...core.size import Size, size_text
from ...core.spec import Frames, TensorSpec
from ...export.passes.names import name_nodes
from ...export.to_onnx import trace
from ...runtime.original import OriginalModel, map_of, map_px
from ...runtime.original_tiles import cut
from .ends import Back, Front
from .graph import join, load_model, opset_of


def build_graph(file: OriginalModel, model: ImportedModel, frame: Frames, *, max_batch: int) -> ir.Model:
    """Return the one graph from frames to score and anomaly_map.

    Args:
        file: the model's own file, opened.
        model: what it takes and gives.
        frame: one frame, uint8 (1, H, W, C), on which the shapes of its outputs are seen.
        max_batch: how many frames it takes; for a model of batch 1 the graph's batch is fixed.

    Raises:
        BadInputError: the file cannot be read, or brought to opset 18.
        ExportError: the parts do not make a graph.
    """
    batch, num = "N" if max_batch > 1 else 1, model.num_tiles
    outputs, taken = file.run(cut(frame, model.tiles)[:1]), model.preprocessing.frames
    seen = None if model.anomaly_map is None else map_of(outputs[model.anomaly_map], name="", num=1).shape[1:]
    _check_rule(model, seen)
    size = model.input_px if seen is None else map_px(seen, model)
    own = load_model(file.path)
    ports = [
        TensorSpec(
            f"output_{number}", outputs[name].dtype.name, _batched(outputs[name].shape, num if batch == 1 else batch)
        )
        for number, name in enumerate(file.names)
    ]
    frames = TensorSpec(taken.name, taken.dtype, (batch, *taken.shape[1:]))
    opset, dtype = opset_of(own), getattr(torch, file.dtype)
    try:
        front = trace(Front(model, dtype).eval(), (frames,), outputs=["images"], max_batch=max_batch, opset=opset)
        back = trace(
            Back(model, map_px=seen, size=size).eval(),
            ports,
            outputs=["score", "anomaly_map"],
            max_batch=max_batch,
            opset=opset,
            num_each=num,
        )
    except ExportError as error:
        raise ExportError(f"The pre-processing or the outputs' shaping {error}") from error
    name_nodes(front)
    name_nodes(back, first="post")
    whole = join(front, own, back, names=file.names)
    for value in whole.graph.outputs:
        assert value.shape is not None  # noqa: S101 (it was traced with one)
        value.shape = ir.Shape([batch, *value.shape[1:]])
    return whole


def _check_rule(model: ImportedModel, map_px: Size | None) -> None:
    """Raise BadInputError where a score shall be made of more values than the model's map has."""
    rule = model.score_from_map
    if isinstance(rule, int) and map_px is not None and rule > math.prod(map_px):
        raise BadInputError(
            f"score_from_map is {rule}; expected at most {math.prod(map_px)}, the number of values of the model's own "
            f"map ({size_text(map_px)})."
        )


def _batched(shape: tuple[int, ...], batch: int | str) -> tuple[int | str, ...]:
    return shape if batch == 1 else (batch, *shape[1:])
