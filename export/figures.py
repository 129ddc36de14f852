"""Figures that are counted once at export: FLOPs per stage, nodes per dtype, parameters and constants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from torch import nn

from ..bundle.manifest import Figures
from ..core.errors import ExportError
from ..detectors.base import AbstractDetector
from .passes.names import stage_of

STAGES = ("preprocess", "backbone", "head", "post")
_FLOATS = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}


def count_figures(detector: AbstractDetector[Any], model: ir.Model) -> Figures:
    """Count the parameters and constants of a detector, and the FLOPs and nodes of the graph exported from it."""
    return Figures(
        backbone=detector.config.backbone if detector.backbone_parameters() else "",
        backbone_parameters=sum(item.numel() for item in detector.backbone_parameters()),
        extra_parameters=detector.extra_parameters(),
        constants_bytes=constants_bytes(detector),
        flops=count_flops(model),
        nodes_per_dtype=nodes_per_dtype(model),
    )


def constants_bytes(detector: AbstractDetector[Any]) -> int:
    """Return the bytes of the lowered form's constants: bank, Gaussians, matrices, index tables; each counted once.

    Statistics of batch normalisations are part of a network and do not count.
    """
    seen: dict[int, int] = {}
    for module in detector.lower().modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for buffer in module.buffers(recurse=False):
                seen[buffer.data_ptr()] = buffer.numel() * buffer.element_size()
    return sum(seen.values())


def count_flops(model: ir.Model, *, stages: Sequence[str] = STAGES) -> dict[str, int]:
    """Count floating-point operations per frame and stage, two per multiply-accumulate.

    Conv, ConvTranspose, MatMul and Gemm are counted.

    Args:
        model: graph of which every shape is known.
        stages: first parts of the names of its nodes.

    Raises:
        ExportError: a tensor has no known shape, or a dimension is no multiple of the batch.
    """
    totals = dict.fromkeys(stages, 0)
    for node in model.graph:
        if flops := _node_flops(node):
            totals[stage_of(node.name or "")] += flops
    return totals


def _size(value: ir.Value | None, where: str) -> list[int]:
    if value is None or value.shape is None:
        raise ExportError(f"{where}: a tensor has no known shape, so its operations cannot be counted.")
    return [dim if isinstance(dim, int) else _per_frame(str(dim), where) for dim in value.shape]


def _per_frame(dimension: str, where: str) -> int:
    """Return a symbolic dimension for one frame: ``N`` is 1, ``64*N`` (views of a frame in its batch) is 64."""
    factors = dimension.replace(" ", "").strip("()").split("*")
    if factors.count("N") != 1 or not all(factor == "N" or factor.isdigit() for factor in factors):
        raise ExportError(f"{where}: the dimension {dimension} is no multiple of the batch N, so it cannot be counted.")
    return math.prod(int(factor) for factor in factors if factor != "N")


def _node_flops(node: ir.Node) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    where = node.name or node.op_type
    first, second, out = _size(node.inputs[0], where), _size(node.inputs[1], where), _size(node.outputs[0], where)
    if node.op_type == "Conv":
        return 2 * math.prod(out) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(first) * math.prod(second[1:])
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transA")
        return 2 * math.prod(out) * (first[0] if transposed is not None and transposed.as_int() else first[1])
    return 2 * math.prod(out) * first[-1]


def nodes_per_dtype(model: ir.Model) -> dict[str, int]:
    """Count computing nodes by the dtype of their first output; casts and integer nodes are left out."""
    counts: Counter[str] = Counter()
    for node in model.graph:
        dtype = node.outputs[0].dtype
        if node.op_type != "Cast" and dtype in _FLOATS:
            counts[_FLOATS[dtype]] += 1
    return dict(sorted(counts.items()))


def prove_precision(precision: str, counted: dict[str, int]) -> None:
    """Refuse a written graph that does not compute in the requested precision.

    Args:
        precision: ``"fp32"`` or ``"fp16"``.
        counted: nodes by dtype, as counted in the graph.

    Raises:
        ExportError: fp16 was requested and there is no such node, or fp32 and there is one.
    """
    half = counted.get("float16", 0)
    if (precision == "fp16") != (half > 0):
        raise ExportError(
            f"precision {precision} was asked for, but the written graph has {half} fp16 nodes and "
            f"{counted.get('float32', 0)} fp32 nodes. Nothing was kept."
        )
