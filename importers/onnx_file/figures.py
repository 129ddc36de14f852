"""Figures of an imported graph: what is in it, and how much it computes, as far as the graph shows."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

from ...bundle.manifest import Figures
from ...core.errors import ExportError
from ...export.figures import count_flops, nodes_per_dtype
from .graph import STAGE, infer

_STAGES = ("preprocess", STAGE, "post")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def count(graph: ir.Model) -> Figures:
    """Count what the graph shows; a model does not tell trained values from constants, so all count as parameters."""
    own, ours = 0, 0
    for name, value in graph.graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype in _FLOATS:
            if name.startswith(f"{STAGE}/"):
                own += value.const_value.size
            else:
                ours += value.const_value.nbytes
    return Figures(
        backbone="",
        backbone_parameters=0,
        extra_parameters=own,
        constants_bytes=ours,
        flops=_flops(graph),
        nodes_per_dtype=nodes_per_dtype(graph),
    )


def _flops(graph: ir.Model) -> dict[str, int]:
    """Operations per frame by stage; empty where a shape that they are counted by is not known.

    For one frame the arithmetic on shapes that older exporters write is constant, and folded.
    """
    single = graph.clone()
    for node in single.graph:
        for value in node.outputs:
            value.shape = None
    frames = single.graph.inputs[0]
    assert frames.shape is not None  # noqa: S101 (it was traced with one)
    frames.shape = ir.Shape([1, *frames.shape[1:]])
    optimizer.fold_constants(single)
    try:
        return count_flops(infer(single), stages=_STAGES)
    except ExportError:
        return {}
