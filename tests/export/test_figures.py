"""FLOPs, nodes per dtype and constants, held to counts by hand."""

import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
torch = pytest.importorskip("torch")

from lineproof.core.errors import ExportError  # noqa: E402
from lineproof.detectors.base import build_detector, make_config  # noqa: E402
from lineproof.export.figures import constants_bytes, count_flops, nodes_per_dtype, prove_precision  # noqa: E402


def model_of(body, names, *, infer=True):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{body}')
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model) if infer else model)


CONVOLUTIONS = """
convolutions (float[N, 6, 10, 12] x, float[8, 6, 3, 3] w, float[8, 1, 5, 5] d, float[8, 4, 2, 2] t)
    => (float[N, 4, 10, 12] y)
{
    a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
    b = Conv <group = 8, pads = [2, 2, 2, 2]> (a, d)
    y = ConvTranspose <strides = [2, 2]> (b, t)
}
"""
PRODUCTS = """
products (float[N, 7, 20] q, float[20, 30] m, float[7, 16, 16] f, float[7, N, 16] v, float[5, 9] g, float[9, 3] h,
          float[9, 5] gt)
    => (float[N, 7, 30] a, float[7, N, 16] b, float[5, 3] c, float[5, 3] d)
{
    a = MatMul (q, m)
    b = MatMul (v, f)
    c = Gemm (g, h)
    d = Gemm <transA = 1> (gt, h)
}
"""


def test_convolutions_by_hand():
    model = model_of(CONVOLUTIONS, ["preprocess/Conv", "backbone/Conv", "head/ConvTranspose"])
    assert count_flops(model) == {
        "preprocess": 2 * (8 * 5 * 6) * (6 * 9),  # outputs × inputs per output
        "backbone": 2 * (8 * 5 * 6) * 25,  # depthwise: one channel per output
        "head": 2 * (8 * 5 * 6) * (4 * 4),  # every input value is spread over 4 channels × 2×2
        "post": 0,
    }


def test_products_by_hand():
    model = model_of(PRODUCTS, ["head/MatMul", "backbone/MatMul", "post/Gemm", "post/Gemm_2"])
    assert count_flops(model) == {
        "preprocess": 0,
        "head": 2 * 7 * 20 * 30,  # per frame: N counts as one
        "backbone": 2 * 7 * 16 * 16,
        "post": 2 * (2 * 5 * 9 * 3),
    }


def test_pytorch_counts_the_same():
    """The counter of PyTorch, an independent one, on the same layers."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.nn.Conv2d(6, 8, 3, 2, 1, bias=False)(torch.zeros(1, 6, 10, 12))
        torch.nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False)(torch.zeros(1, 8, 5, 6))
        torch.nn.ConvTranspose2d(8, 4, 2, 2, bias=False)(torch.zeros(1, 8, 5, 6))
    model = model_of(CONVOLUTIONS, ["preprocess/Conv", "backbone/Conv", "head/ConvTranspose"])
    assert counter.get_total_flops() == sum(count_flops(model).values())


GRIDS = """
grids (float[N, 3, 16, 8, 12] x, float[8, 3, 4, 4, 4] w, float[8, 5, 4, 4, 4] t) => (float[N, 5, 16, 8, 12] y)
{
    a = Conv <pads = [1, 1, 1, 1, 1, 1], strides = [2, 2, 2]> (x, w)
    y = ConvTranspose <pads = [1, 1, 1, 1, 1, 1], strides = [2, 2, 2]> (a, t)
}
"""


def test_convolutions_of_grids_by_hand():
    """Halved and doubled along three axes: 8 × 4 × 6 cells between."""
    model = model_of(GRIDS, ["backbone/Conv", "head/ConvTranspose"])
    counted = count_flops(model)
    assert counted["backbone"] == 2 * (8 * 8 * 4 * 6) * (3 * 64)  # outputs × inputs per output
    assert counted["head"] == 2 * (8 * 8 * 4 * 6) * (5 * 64)  # every input value is spread over 5 channels × 4×4×4
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cells = torch.nn.Conv3d(3, 8, 4, 2, 1, bias=False)(torch.zeros(1, 3, 16, 8, 12))
        assert torch.nn.ConvTranspose3d(8, 5, 4, 2, 1, bias=False)(cells).shape == (1, 5, 16, 8, 12)
    assert counter.get_total_flops() == counted["backbone"] + counted["head"]


def test_a_tensor_without_a_shape_is_refused():
    model = model_of(CONVOLUTIONS, ["preprocess/Conv", "backbone/Conv", "head/ConvTranspose"], infer=False)
    with pytest.raises(ExportError, match=r"preprocess/Conv: a tensor has no known shape"):
        count_flops(model)


def test_nodes_are_counted_by_their_first_floating_output():
    body = """
    mixed (float[N, 4] x, float16[4] h) => (float[N, 4] y)
    {
        a = Relu (x)
        b = Cast <to = 10> (a)
        c = Mul (b, h)
        d = Neg (c)
        i = Shape (d)
        y = Cast <to = 1> (d)
    }
    """
    model = model_of(body, ["a", "b", "c", "d", "i", "y"])
    assert nodes_per_dtype(model) == {"float16": 2, "float32": 1}


@pytest.mark.parametrize(
    ("precision", "counted", "words"),
    [
        ("fp16", {"float32": 9}, "precision fp16 was asked for, but the written graph has 0 fp16 nodes and 9 fp32"),
        ("fp16", {}, "0 fp16 nodes and 0 fp32"),
        ("fp32", {"float16": 1, "float32": 9}, "precision fp32 was asked for, but the written graph has 1 fp16 nodes"),
    ],
)
def test_a_precision_that_did_not_happen_is_refused(precision, counted, words):
    with pytest.raises(ExportError, match=words):
        prove_precision(precision, counted)


def test_a_precision_that_happened_passes():
    prove_precision("fp32", {"float32": 3})
    prove_precision("fp16", {"float16": 1, "float32": 3})


def test_tables_of_the_backbone_stage_count():
    """DifferNet turns its frames before the network: one int32 index per pixel and view."""
    settings = {"backbone": "test_resnet", "weights": "random", "resize_px": 64, "crop_px": 64, "hidden": 8, "steps": 1}
    detector = build_detector("differnet", make_config("differnet", {**settings, "num_rotations": 3}))
    table = detector.rotate.table
    assert table.numel() == 3 * 64 * 64
    assert constants_bytes(detector) >= table.numel() * table.element_size()


def test_constants_are_those_of_all_stages(run_folder):
    from lineproof.bundle.runs.folder import CHECKPOINT, read_record
    from lineproof.detectors.training.checkpoint import load_detector

    detector = load_detector(read_record(run_folder).detector, run_folder / CHECKPOINT)
    positions, dim = detector.gaussians.factor.shape[:2]
    floats = positions * dim * dim + positions * dim  # whitening factors and their biases
    upsample = 64 * sum(detector.backbone.map_sizes(detector.config.crop_px)[0])
    assert constants_bytes(detector) == 4 * (floats + upsample) + 8 * dim


def views_of_a_frame(dimension):
    shape = ir.Shape([ir.SymbolicDim(dimension), 3, 8, 8])
    image = ir.Value(name="x", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", shape=ir.Shape([2, 3, 1, 1]), type=ir.TensorType(ir.DataType.FLOAT))
    out_shape = ir.Shape([ir.SymbolicDim(dimension), 2, 8, 8])
    out = ir.Value(name="y", shape=out_shape, type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Conv", [image, weight], outputs=[out], name="backbone/conv/Conv")
    return ir.Model(ir.Graph([image, weight], [out], nodes=[node], opset_imports={"": 18}), ir_version=10)


def test_views_of_a_frame_in_the_batch_are_counted():
    once = count_flops(views_of_a_frame("N"))["backbone"]
    assert once == 2 * 2 * 8 * 8 * 3
    assert count_flops(views_of_a_frame("64*N"))["backbone"] == 64 * once


@pytest.mark.parametrize("dimension", ["M", "N + 1", "N*N"])
def test_a_dimension_that_is_no_multiple_of_the_batch_is_refused(dimension):
    with pytest.raises(ExportError, match="is no multiple of the batch N"):
        count_flops(views_of_a_frame(dimension))
