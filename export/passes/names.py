"""Readable names: nodes and their outputs are named after the module that they come from."""

import ast
import re
from collections import Counter

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPER = "detector."
#: The part of the whole graph that stands after an imported detector, which has no stage of its own.
_AFTER = "scale"


def name_nodes(model: ir.Model, *, first: str = "preprocess") -> None:
    """Rename every node to ``stage/module/path/Op`` (with a number where it repeats) and drop trace metadata.

    Inputs, outputs and initialisers keep their names, save that the wrapper's prefix goes.

    Args:
        model: a model as the exporter made it.
        first: path of nodes that come before any with a path of its own.
    """
    public_names = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    seen: Counter[str] = Counter()
    path = first
    for node in model.graph:
        # A node that the exporter made without a scope belongs to the one before it.
        path = module_path(node) or path
        name = f"{path}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        for number, output in enumerate(node.outputs):
            if output.name not in public_names:
                output.name = f"{node.name}:{number}"
        node.metadata_props.clear()
    for value in list(model.graph.initializers.values()):
        if value.name and value.name.startswith(_WRAPPER):
            value.name = value.name[len(_WRAPPER) :]
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    model.metadata_props.clear()


def module_path(node: ir.Node) -> str:
    """Return the path of the module that a traced node stands in, with slashes: ``backbone/network/layer1/0/conv1``."""
    scopes = node.metadata_props.get(_SCOPES)
    if not scopes:
        return ""
    modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope not in ("", "detector")]
    # The exporter's stand-in where it lost the module: the node then belongs to the one before it.
    modules = [scope for scope in modules if not scope.startswith("_empty_nn_module_stack")]
    path = modules[-1] if modules else ""
    if path == _AFTER:
        return f"post/{_AFTER}"
    return re.sub(r"^detector\.", "", path).replace(".", "/")


def stage_of(name: str) -> str:
    """Return the first part of a node's name: preprocess, backbone, head or post."""
    return name.split("/", 1)[0]
