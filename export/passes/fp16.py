"""fp16 as a graph rewrite: casts and half initialisers exactly where a detector's rule allows them.

requires  a float32 graph whose nodes are named after their module path
call      ``to_half(model, scopes)``
ensures   nodes inside the scopes whose operator is safe compute in float16; every other node computes in float32
          from float32 constants; inputs and outputs keep their types
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.errors import ExportError

#: Operators that lose little in fp16. Exp, Log, Softmax, reductions, powers, roots and ArgMax are not among them.
SAFE_OPERATORS = frozenset(
    (
        "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu", "Expand",
        "Flatten", "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
        "MatMul", "MaxPool", "Mul", "Neg", "Pad", "PRelu", "Relu", "Reshape", "Resize", "Sigmoid", "Slice",
        "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
    )
)  # fmt: skip
#: Inputs that keep float32 by the operator's definition: Resize takes its region and scales so.
_FLOAT_INPUTS = {"Resize": (1, 2)}
_LARGEST_HALF = 65504.0


def to_half(model: ir.Model, scopes: tuple[str, ...]) -> None:
    """Rewrite ``model`` in place, so that the scopes compute in fp16.

    Args:
        model: float32 model whose nodes are named ``stage/module/path/Op``.
        scopes: module paths with dots; ``*`` stands for one name.

    Raises:
        ExportError: no node lies in the scopes, or a constant does not fit fp16.
    """
    patterns = [re.compile(re.escape(scope).replace(r"\.", "/").replace(r"\*", "[^/]+") + "/") for scope in scopes]
    nodes = list(model.graph)
    halved = [node for node in nodes if node.op_type in SAFE_OPERATORS and _in_scope(node, patterns)]
    if not halved:
        raise ExportError(
            f"fp16 was asked for, but no node lies in the detector's half scopes {', '.join(scopes)}. "
            "The detector's half_scopes do not fit its lowered form."
        )
    rewriter = _Rewriter(model)
    inside = set(halved)
    for node in nodes:
        rewriter.rewrite(node, is_half=node in inside)
    rewriter.restore_outputs()


def _in_scope(node: ir.Node, patterns: list[re.Pattern[str]]) -> bool:
    return any(pattern.match(node.name or "") for pattern in patterns)


class _Rewriter:
    """Knows for each value its float16 and its float32 twin."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._half: dict[ir.Value, ir.Value] = {}
        self._full: dict[ir.Value, ir.Value] = {}

    def rewrite(self, node: ir.Node, *, is_half: bool) -> None:
        """Give a node inputs of the type it computes in."""
        exempt = _FLOAT_INPUTS.get(node.op_type, ())
        for number, value in enumerate(node.inputs):
            if value is None or number in exempt:
                continue
            if is_half and value.dtype == ir.DataType.FLOAT:
                node.replace_input_with(number, self._as_half(value, node))
            elif not is_half and value.dtype == ir.DataType.FLOAT16:
                node.replace_input_with(number, self._as_full(value, node))
        if is_half:
            for output in node.outputs:
                if output.dtype == ir.DataType.FLOAT:
                    output.dtype = ir.DataType.FLOAT16

    def _as_half(self, value: ir.Value, before: ir.Node) -> ir.Value:
        if value not in self._half:
            if value.const_value is not None:
                self._half[value] = self._half_constant(value, value.const_value.numpy())
            else:
                self._half[value] = self._cast(value, ir.DataType.FLOAT16, before)
        return self._half[value]

    def _as_full(self, value: ir.Value, before: ir.Node) -> ir.Value:
        if value not in self._full:
            self._full[value] = self._cast(value, ir.DataType.FLOAT, before)
        return self._full[value]

    def _half_constant(self, value: ir.Value, array: NDArray[Any]) -> ir.Value:
        if array.size and not np.abs(array).max() <= _LARGEST_HALF:
            raise ExportError(
                f"Constant {value.name} reaches {np.abs(array).max():g}, beyond fp16's 65504. "
                "Export with --precision fp32, or remove its module from the detector's half_scopes."
            )
        name = f"{value.name}.fp16"
        twin = ir.Value(
            name=name,
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(array.astype(np.float16), name=name),
        )
        self._graph.register_initializer(twin)
        return twin

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        kind = "half" if dtype == ir.DataType.FLOAT16 else "float"
        output = ir.Value(name=f"{value.name}.{kind}", shape=value.shape, type=ir.TensorType(dtype))
        scope = (before.name or "").rpartition("/")[0]
        node = ir.node("Cast", [value], {"to": int(dtype)}, outputs=[output], name=f"{scope}/Cast_{kind}:{value.name}")
        self._graph.insert_before(before, node)
        return output

    def restore_outputs(self) -> None:
        """Outputs of the graph stay float32 under their names; initialisers without a user go."""
        for number, value in enumerate(self._graph.outputs):
            if value.dtype == ir.DataType.FLOAT16:
                name = value.name
                value.name = f"{name}.half"
                output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
                node = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, outputs=[output], name=f"post/{name}")
                self._graph.append(node)
                self._graph.outputs[number] = output
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self._graph.initializers[name]
