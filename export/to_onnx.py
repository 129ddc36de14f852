"""Export of a detector to ONNX: one graph from frames to score and anomaly_map, with a symbolic batch."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from ..bundle.imported import ImportRecord
from ..core.errors import ExportError
from ..core.inputs import InputSpec
from ..core.spec import TensorSpec
from ..detectors.base import AbstractDetector
from ..detectors.nn.graph import FrameGraph
from .passes.names import name_nodes

OPSET = 18
_EXAMPLE_BATCH = 2


def export_onnx(
    detector: AbstractDetector[Any],
    preprocessing: InputSpec,
    *,
    max_batch: int,
    imported: ImportRecord | None = None,
) -> ir.Model:
    """Lower a fitted detector and write it as a float32 ONNX model (opset 18).

    Args:
        detector: fitted detector.
        preprocessing: specification of the frames and of what is done to them.
        max_batch: largest batch N; the graph takes 1 to max_batch frames.
        imported: where an imported detector came from; None where lineproof trained it.

    Returns:
        A model from frames as in ``preprocessing.frames`` to score float32 (N,) and anomaly_map float32 (N, h, w).
        Batch normalisation is folded, and nodes are named after their module path.

    Raises:
        ExportError: the detector does not trace, or an output of the written graph has another dtype or shape.
    """
    graph = FrameGraph(preprocessing, detector.lower(), imported=imported).eval()
    outputs = output_specs(preprocessing)
    try:
        model = trace(graph, (preprocessing.frames,), outputs=[spec.name for spec in outputs], max_batch=max_batch)
    except ExportError as error:
        raise ExportError(
            f"{type(detector).__name__} {error} Its forward must be free of Python branches on tensor values."
        ) from error
    name_nodes(model)
    _check(model, outputs)
    return model


def trace(
    graph: nn.Module,
    inputs: Sequence[TensorSpec],
    *,
    outputs: Sequence[str],
    max_batch: int,
    opset: int = OPSET,
    num_each: int = 1,
) -> ir.Model:
    """Write a module as a float32 ONNX model.

    Args:
        graph: module in evaluation mode.
        inputs: specification of each of its inputs; the size ``"N"`` is symbolic, the same in all of them.
        outputs: name of each of its outputs.
        max_batch: largest N.
        opset: opset of the model, 18 or above.
        num_each: how many items of a symbolic axis belong to each of N, such as the tiles of a frame: it is a
            multiple of them.

    Returns:
        The model; its nodes have the exporter's names.

    Raises:
        ExportError: the module does not trace; the message begins after its name.
    """
    examples = tuple(_example(spec, num_each) for spec in inputs)
    # A multiple of a size that is called N is none: to SymPy that is a function.
    name, largest = "N" if num_each == 1 else "frames", max(max_batch, _EXAMPLE_BATCH)
    size = torch.export.Dim(name, min=1, max=largest)
    batch = size if num_each == 1 else num_each * size
    shapes = tuple({axis: batch for axis, side in enumerate(spec.shape) if side == "N"} for spec in inputs)
    with _quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                graph,
                examples,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                opset_version=opset,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ExportError(f"does not trace to ONNX: {_words(error)}.") from error
    model: ir.Model = program.model
    return model


def _words(error: Exception) -> str:
    """What the exporter says of the cause, on one line, without its colours and its general advice."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    summary = text.partition("## Exception summary")[2].partition("(Refer to")[0]
    return " ".join((summary or text).split())[:800].removesuffix(".")


def _example(spec: TensorSpec, num_each: int) -> torch.Tensor:
    shape = [side if isinstance(side, int) else num_each * _EXAMPLE_BATCH for side in spec.shape]
    return torch.from_numpy(np.zeros(shape, spec.dtype))


def output_specs(preprocessing: InputSpec) -> tuple[TensorSpec, TensorSpec]:
    """Return the specifications of score and anomaly_map."""
    height, width = (axis.crop_px for axis in preprocessing.axes)
    return TensorSpec("score", "float32", ("N",)), TensorSpec("anomaly_map", "float32", ("N", height, width))


def _check(model: ir.Model, expected: tuple[TensorSpec, ...]) -> None:
    for value, spec in zip(model.graph.outputs, expected, strict=True):
        shape = None if value.shape is None else tuple(d if isinstance(d, int) else "N" for d in value.shape)
        if shape != spec.shape or value.dtype != ir.DataType.FLOAT:
            raise ExportError(
                f"Output {spec.name} came out as {value.dtype} {shape}; expected float32 {spec.shape}. "
                "The detector's forward does not keep the batch symbolic, or gives another map size."
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own messages off stdout and stderr; its errors still arrive as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
