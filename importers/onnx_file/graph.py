"""One graph of three: pre-processing, the model's own nodes, and the shaping of its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from ...core.errors import BadInputError
from ...export.to_onnx import OPSET

#: The first part of the names of the model's own nodes.
STAGE = "model"
#: Operators that compute in 8 bits, or turn values into such.
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


def load_model(path: Path) -> ir.Model:
    """Read the file of a model that an engine opened already, in a form that can be joined: opset 18 or above.

    Raises:
        BadInputError: it is quantised, or cannot be brought to opset 18.
    """
    model = ir.load(path)
    quantised = sorted({node.op_type for node in model.graph.all_nodes()} & set(_QUANTISED))
    if quantised:
        raise BadInputError(
            f"{path} is quantised ({', '.join(quantised)}); expected a model in floating point. Give the file from "
            "before its quantisation."
        )
    if opset_of(model) < OPSET:
        model = _converted(model, path)
    passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    passes.LiftConstantsToInitializersPass()(model)
    return model


def opset_of(model: ir.Model) -> int:
    """Opset of a model's ordinary operators."""
    return model.graph.opset_imports.get("", OPSET)


def _converted(model: ir.Model, path: Path) -> ir.Model:
    seen = opset_of(model)
    try:
        ir.external_data.load_to_model(model)
        converted = onnx.version_converter.convert_version(ir.to_proto(model), OPSET)
    except (RuntimeError, ValueError, OSError) as error:
        raise BadInputError(
            f"{path} has opset {seen}, and onnx cannot bring it to {OPSET} ({' '.join(str(error).split())[:300]}). "
            f"Export it again with opset {OPSET} or above."
        ) from None
    return ir.from_proto(converted)


def join(front: ir.Model, model: ir.Model, back: ir.Model, *, names: Sequence[str]) -> ir.Model:
    """Join the three parts into one model; they are taken apart.

    Args:
        front: from frames to what the model takes; nodes are named.
        model: the model, see ``load_model``.
        back: from the model's outputs to score and anomaly_map; nodes are named.
        names: names of the model's outputs that ``back`` takes, in the order of its inputs.

    Returns:
        The whole, with the opset of ``model``; dtypes and shapes are inferred where they can be.
    """
    _prefix_names(model)
    _prefix_constants(front, "preprocess")
    _prefix_constants(back, "post")
    outputs = {value.name: value for value in model.graph.outputs}
    chosen = [outputs[f"{STAGE}/{name}"] for name in names]
    given = [value for value in model.graph.inputs if value.uses()]
    whole = front.graph
    ir.convenience.replace_all_uses_with(given, list(whole.outputs)[: len(given)])
    ir.convenience.replace_all_uses_with(list(back.graph.inputs), chosen)
    ends = list(back.graph.outputs)
    for part in (model, back):
        _move(part.graph, whole)
    whole.outputs.clear()
    whole.outputs.extend(ends)
    whole.opset_imports.update({**back.graph.opset_imports, **model.graph.opset_imports})
    joined = ir.Model(whole, ir_version=max(front.ir_version, model.ir_version))
    passes.RemoveUnusedNodesPass()(joined)
    passes.NameFixPass()(joined)
    passes.RemoveUnusedOpsetsPass()(joined)
    return infer(joined)


def _prefix_names(model: ir.Model) -> None:
    """Give all values and nodes of a model names that begin with its stage, and forget its shapes of other batches."""
    seen: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        name = f"{STAGE}/{(node.name or node.op_type).strip('/')}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.metadata_props.clear()
        node.doc_string = None
    for value in _values(model):
        value.name = f"{STAGE}/{value.name}"
        value.metadata_props.clear()
        if value.const_value is None:
            value.shape = None


def _prefix_constants(model: ir.Model, stage: str) -> None:
    """Give the exporter's own constants, which it counts from zero, names that no other part has."""
    for value in list(model.graph.initializers.values()):
        if value.name and not value.name.startswith(stage):
            value.name = f"{stage}/{value.name}"


def external_files(model: ir.Model) -> tuple[str, ...]:
    """Paths of the files with a model's weights, relative to its own, each once."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return tuple(sorted({str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}))


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value that a model defines, in its subgraphs too, once."""
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from graph.inputs
        yield from list(graph.initializers.values())
        for node in graph:
            yield from node.outputs


def _move(part: ir.Graph, whole: ir.Graph) -> None:
    """Move nodes and initialisers of a graph to the end of another one."""
    part.outputs.clear()
    part.inputs.clear()
    for name, value in list(part.initializers.items()):
        part.initializers.pop(name)
        whole.register_initializer(value)
    nodes = list(part)
    part.remove(nodes)
    whole.extend(nodes)


def infer(model: ir.Model) -> ir.Model:
    """Infer dtypes and shapes of all values, as far as onnx can."""
    return passes.ShapeInferencePass(strict_mode=False)(model).model
