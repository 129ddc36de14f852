"""The fp16 rewrite on hand-made graphs: what becomes half, what keeps float32, and what is refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
ort = pytest.importorskip("onnxruntime")

from lineproof.core.errors import ExportError  # noqa: E402
from lineproof.export.passes.fp16 import SAFE_OPERATORS, to_half  # noqa: E402

HALF, FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT


def model_of(text, **constants):
    """A graph in ONNX's text form, with constants as initialisers, shapes and types inferred."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    names = iter(NAMES_OF[text])
    for node in model.graph.node:
        node.name = next(names)
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def check(model):
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def run(model, **inputs):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(check(model), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def dtypes(model):
    """Output dtype of each node, casts left out."""
    return {node.name: node.outputs[0].dtype for node in model.graph if node.op_type != "Cast"}


NAMES_OF = {}
CHAIN = """
chain (float[N, 4] x) => (float[N, 3] score, float[N] total)
{
    hidden = MatMul (x, weight)
    active = Relu (hidden)
    shifted = Add (active, bias)
    score = Mul (shifted, bias)
    total = ReduceSum <keepdims = 0> (shifted, axes)
}
"""
NAMES_OF[CHAIN] = ["backbone/MatMul", "backbone/Relu", "backbone/Add", "head/Mul", "post/ReduceSum"]
OUTPUT = """
output (float[N, 4] x) => (float[N, 4] score, float[N, 4] anomaly_map)
{
    score = Relu (x)
    anomaly_map = Neg (score)
}
"""
NAMES_OF[OUTPUT] = ["backbone/Relu", "backbone/Neg"]
SCOPES = """
scopes (float[N, 4] x) => (float[N, 4] y)
{
    a = Relu (x)
    b = Neg (a)
    c = Relu (b)
    d = Neg (c)
    e = Exp (d)
    y = Relu (e)
}
"""
NAMES_OF[SCOPES] = [
    "head/flows/0/couplings/1/first/Relu", "head/flows/1/couplings/Neg", "head/flows/1/energy/Relu",
    "head/flowsX/0/couplings/Neg", "head/flows/2/couplings/Exp", "head/couplings/Relu",
]  # fmt: skip
RESIZE = """
resize (float[N, 1, 4, 4] x) => (float[N, 1, 8, 8] y)
{
    y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , scales)
}
"""
NAMES_OF[RESIZE] = ["backbone/Resize"]


def chain(weight=None, bias=None):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3)).astype(np.float32) if weight is None else weight
    bias = np.array([1.0001, -0.3333, 0.7777], np.float32) if bias is None else bias
    return model_of(CHAIN, weight=weight, bias=bias, axes=np.array([1]))


def test_scope_is_half_and_the_rest_is_not():
    model = chain()
    to_half(model, ("backbone",))
    assert dtypes(model) == {
        "backbone/MatMul": HALF, "backbone/Relu": HALF, "backbone/Add": HALF, "head/Mul": FULL, "post/ReduceSum": FULL,
    }  # fmt: skip
    x = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
    for got, want in zip(run(model, x=x), run(chain(), x=x), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-3)
        assert np.abs(got - want).max() > 0


def test_a_constant_of_both_sides_keeps_its_float32():
    model = chain()
    to_half(model, ("backbone",))
    constants = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert constants == {"weight.fp16": HALF, "bias.fp16": HALF, "bias": FULL, "axes": ir.DataType.INT64}
    np.testing.assert_array_equal(
        model.graph.initializers["bias"].const_value.numpy(), np.array([1.0001, -0.3333, 0.7777], np.float32)
    )
    multiply = next(node for node in model.graph if node.name == "head/Mul")
    assert multiply.inputs[1].name == "bias"


def test_a_value_is_cast_once_for_all_its_users():
    model = chain()
    to_half(model, ("backbone",))
    casts = [node for node in model.graph if node.op_type == "Cast"]
    assert [(node.name, node.inputs[0].name) for node in casts] == [
        ("backbone/Cast_half:x", "x"), ("head/Cast_float:shifted", "shifted"),
    ]  # fmt: skip
    names = [node.name for node in model.graph]
    assert names.index("head/Cast_float:shifted") < min(names.index("head/Mul"), names.index("post/ReduceSum"))


def test_outputs_stay_float32_where_they_are_used_inside_as_well():
    model = model_of(OUTPUT)
    to_half(model, ("backbone",))
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [("score", FULL), ("anomaly_map", FULL)]
    assert dtypes(model) == {"backbone/Relu": HALF, "backbone/Neg": HALF}
    x = np.array([[-1.0, 0.5, 1.0, 2.0]], np.float32)
    score, anomaly_map = run(model, x=x)
    np.testing.assert_array_equal(score, np.maximum(x, 0))
    np.testing.assert_array_equal(anomaly_map, -np.maximum(x, 0))
    assert score.dtype == anomaly_map.dtype == np.float32


def test_an_output_inside_the_scope_feeds_a_full_node():
    model = model_of(OUTPUT)
    model.graph.node("backbone/Neg").name = "post/Neg"
    to_half(model, ("backbone",))
    assert dtypes(model) == {"backbone/Relu": HALF, "post/Neg": FULL}
    x = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    score, anomaly_map = run(model, x=x)
    np.testing.assert_array_equal(score, x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(anomaly_map, -score)


@pytest.mark.parametrize(
    ("scopes", "halved"),
    [
        (("head.flows.*.couplings",), {0, 1}),
        (("head.flows",), {0, 1, 2}),
        (("head.*.0",), {0, 3}),
        (("head",), {0, 1, 2, 3, 5}),
        (("head.couplings", "head.flowsX"), {3, 5}),
    ],
)
def test_a_star_stands_for_one_name(scopes, halved):
    model = model_of(SCOPES)
    to_half(model, scopes)
    names = NAMES_OF[SCOPES]
    assert {names.index(name) for name, dtype in dtypes(model).items() if dtype == HALF} == halved
    check(model)


@pytest.mark.parametrize("scopes", [("absent",), ("head.flow",), ("eads",), ()])
def test_a_scope_without_a_node_is_refused(scopes):
    with pytest.raises(ExportError, match=r"no node lies in the detector's half scopes .*half_scopes do not fit"):
        to_half(model_of(SCOPES), scopes)


def test_a_scope_of_unsafe_operators_alone_is_refused():
    model = model_of(SCOPES)
    with pytest.raises(ExportError, match="no node lies"):
        to_half(model, ("head.flows.2",))
    assert {"Exp", "Log", "Softmax", "ReduceSum", "ReduceMean", "Pow", "Sqrt", "ArgMax", "Erf"}.isdisjoint(
        SAFE_OPERATORS
    )


@pytest.mark.parametrize("value", [65520.0, -1e9, np.inf, np.nan])
def test_a_constant_beyond_fp16_is_refused(value):
    model = chain(bias=np.array([1.0, value, 2.0], np.float32))
    with pytest.raises(
        ExportError, match=r"Constant bias reaches .*, beyond fp16's 65504\. Export with --precision fp32"
    ):
        to_half(model, ("backbone",))


def test_a_large_constant_outside_the_scope_is_no_matter():
    model = chain(bias=np.array([1.0, 70000.0, 2.0], np.float32))
    model.graph.node("backbone/Add").name = "head/Add"
    to_half(model, ("backbone",))
    assert set(model.graph.initializers) == {"weight.fp16", "bias", "axes"}
    check(model)


def test_resize_keeps_its_float32_scales():
    model = model_of(RESIZE, scales=np.array([1, 1, 2, 2], np.float32))
    to_half(model, ("backbone",))
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {"scales": FULL}
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    want = run(model_of(RESIZE, scales=np.array([1, 1, 2, 2], np.float32)), x=x)[0]
    np.testing.assert_allclose(run(model, x=x)[0], want, rtol=0, atol=1e-2)
