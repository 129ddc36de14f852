"""Proof of precision: what a TensorRT network or plan computes in, counted layer by layer."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from ...core.errors import ExportError
from ...host.tensorrt import tensorrt_logger

_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "INT4": "int4",
    "BOOL": "bool",
}
#: Words of the engine inspector ("Half", "Row major linear FP16 format", …), the longer before the shorter.
_INSPECTOR_WORDS = (
    ("bfloat16", "bfloat16"),
    ("bf16", "bfloat16"),
    ("fp16", "float16"),
    ("half", "float16"),
    ("fp32", "float32"),
    ("float", "float32"),
    ("fp8", "float8"),
    ("uint8", "uint8"),
    ("int8", "int8"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("int4", "int4"),
    ("bool", "bool"),
)
_LOW_DTYPES = {"fp16": "float16", "int8": "int8"}


def layers_per_dtype(network: Any) -> dict[str, int]:
    """Count the layers of a parsed network by the dtype of their first output; constants are left out."""
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name != "CONSTANT" and layer.num_outputs:
            dtype = layer.get_output(0).dtype.name
            counts[_NAMES.get(dtype, dtype.lower())] += 1
    return dict(sorted(counts.items()))


def plan_layers_per_dtype(trt: Any, content: bytes) -> dict[str, int]:
    """Count the layers of a built plan by output dtype with the engine inspector; empty where no GPU can open it.

    Args:
        trt: the module, ``tensorrt`` or ``tensorrt_rtx``.
        content: the serialised plan.
    """
    logger, errors = tensorrt_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(content) if runtime is not None else None
    if engine is None:
        errors.take()
        return {}
    inspector = engine.create_engine_inspector()
    return count_inspected(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def count_inspected(text: str) -> dict[str, int]:
    """Count the layers in the engine inspector's JSON by the dtype of their first output.

    A plan without detailed layer information lists names only; those are not counted.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (json.JSONDecodeError, AttributeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        if outputs:
            words = str(outputs[0].get("Format/Datatype", "")).lower()
            counts[next((name for word, name in _INSPECTOR_WORDS if word in words), words or "unknown")] += 1
    return dict(sorted(counts.items()))


def prove_precision(counts: dict[str, int], precision: str, *, where: str) -> None:
    """Refuse a network that has no layer in the requested precision.

    Args:
        counts: number of layers by dtype.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        where: name of the network or plan in the error message.

    Raises:
        ExportError: fp16 or int8 was requested and no layer has it.
    """
    dtype = _LOW_DTYPES.get(precision)
    if dtype and not counts.get(dtype):
        seen = ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items())) or "no layer"
        raise ExportError(
            f"{precision} was asked for, and {where} has {seen} and no {dtype}: it would run in another precision. "
            f"The graph carries the precision: export it again with --precision {precision}."
        )
