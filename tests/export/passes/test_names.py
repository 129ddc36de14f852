"""Node names are module paths; initialisers lose the wrapper's prefix."""

import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
torch = pytest.importorskip("torch")

from lineproof.export.passes.names import _SCOPES, module_path, name_nodes, stage_of  # noqa: E402

GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
traced (float[N, 4] frames) => (float[N, 4] score)
{
    v1 = Relu (frames)
    v2 = Mul (v1, w)
    v3 = Relu (v2)
    score = Relu (v3)
}
"""


def traced(scopes):
    model = onnx.parser.parse_model(GRAPH)
    model.graph.initializer.append(onnx.helper.make_tensor("detector.head.w", 1, [4], [1.0] * 4))
    model.graph.node[1].input[1] = "detector.head.w"
    made = ir.serde.deserialize_model(model)
    for node, scope in zip(made.graph, scopes, strict=True):
        if scope is not None:
            node.metadata_props[_SCOPES] = repr(scope)
        node.metadata_props["pkg.torch.onnx.stack_trace"] = "File /somewhere"
    made.metadata_props["x"] = "y"
    return made


def test_nodes_take_their_module_path_and_are_numbered():
    model = traced(
        [
            ["", "preprocess", "relu"],
            ["", "detector", "detector.backbone", "detector.backbone.network.layer1.0", "mul"],
            None,
            ["", "detector", "detector.backbone", "detector.backbone.network.layer1.0", "relu_2"],
        ]
    )
    name_nodes(model)
    path = "backbone/network/layer1/0"
    assert [node.name for node in model.graph] == ["preprocess/Relu", f"{path}/Mul", f"{path}/Relu", f"{path}/Relu_2"]
    assert [node.outputs[0].name for node in model.graph] == [
        "preprocess/Relu:0", f"{path}/Mul:0", f"{path}/Relu:0", "score",
    ]  # fmt: skip
    assert list(model.graph.initializers) == ["head.w"]
    assert model.graph.inputs[0].name == "frames"
    assert not any(node.metadata_props for node in model.graph)
    assert not model.metadata_props
    onnx.checker.check_model(ir.serde.serialize_model(model))


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        (["", "preprocess", "permute"], "preprocess"),
        (["", "detector", "detector.head", "detector.head.flows.0", "conv2d"], "head/flows/0"),
        (["", "detector", "mul"], ""),
        (["", "add"], ""),
        (None, ""),
    ],
)
def test_path_of_a_node(scopes, path):
    node = ir.node("Relu", [])
    if scopes is not None:
        node.metadata_props[_SCOPES] = repr(scopes)
    assert module_path(node) == path


def test_stage_is_the_first_name():
    assert [stage_of(name) for name in ("backbone/network/Conv", "post", "head/Cast_half:x/y")] == [
        "backbone", "post", "head",
    ]  # fmt: skip
