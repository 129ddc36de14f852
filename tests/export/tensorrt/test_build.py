"""Plans and the gate, with NVIDIA's own parser and ahead-of-time builder, on a machine without a GPU."""

import dataclasses
import json

import numpy as np
import pytest

from lineproof.bundle.atomic import file_sha256
from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, EnvironmentMissingError, ExportError, UsageError
from lineproof.export.tensorrt import build as tensorrt_build
from lineproof.export.tensorrt.build import build_plan, gate
from lineproof.export.tensorrt.precision import count_inspected, prove_precision
from lineproof.host.nvidia import Gpu, GpuSearch, find_gpus

onnx = pytest.importorskip("onnx")
helper, kind = onnx.helper, onnx.TensorProto


@pytest.fixture(autouse=True)
def rtx():
    return pytest.importorskip("tensorrt_rtx")


def _save(path, nodes, constants=(), *, frames=("N", 12, 16, 3), output=kind.FLOAT):
    """A graph that casts its frames to ``grey`` and ends in ``out``."""
    cast = helper.make_node("Cast", ["frames"], ["grey"], name="preprocess/cast", to=kind.FLOAT)
    graph = helper.make_graph(
        [cast, *nodes],
        "graph",
        [helper.make_tensor_value_info("frames", kind.UINT8, frames)],
        [helper.make_tensor_value_info("out", output, None)],
        list(constants),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def _integers(name, *values):
    return helper.make_tensor(name, kind.INT64, [len(values)], values)


def _half(path, *, batch="N"):
    nodes = [
        helper.make_node("Cast", ["grey"], ["half"], name="head/to_half", to=kind.FLOAT16),
        helper.make_node("Mul", ["half", "factor"], ["scaled"], name="head/mul"),
        helper.make_node("Cast", ["scaled"], ["out"], name="post/cast", to=kind.FLOAT),
    ]
    return _save(path, nodes, [helper.make_tensor("factor", kind.FLOAT16, [], [0.5])], frames=(batch, 12, 16, 3))


def test_the_tiny_graph_passes_the_gate_for_every_target(tiny_bundle, rtx):
    report = gate(tiny_bundle.model_path, max_batch=8)
    assert report.passed
    assert report.errors == ()
    assert report.targets == ("sm_86", "sm_89", "sm_120")
    assert report.engine_version == rtx.__version__
    assert report.num_layers >= 4
    assert set(report.layers_per_dtype) == {"float32"}
    assert report.seconds > 0


def test_an_antialiased_resize_is_refused_with_its_name(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["grey"], ["planes"], name="preprocess/planes", perm=[0, 3, 1, 2]),
        helper.make_node(
            "Resize", ["planes", "", "", "sizes"], ["out"], name="preprocess/resize", mode="linear", antialias=1
        ),
    ]
    path = _save(tmp_path / "model.onnx", nodes, [_integers("sizes", 1, 3, 6, 8)], frames=(1, 12, 16, 3))
    report = gate(path, max_batch=1)
    assert not report.passed
    ((name, operator, words),) = report.errors
    assert (name, operator) == ("preprocess/resize", "Resize")
    assert "Antialiasing is not supported" in words
    assert report.num_layers == 0


def test_every_node_that_is_refused_is_named(tmp_path):
    nodes = [
        helper.make_node("Det", ["grey"], ["first"], name="head/covariance/det"),
        helper.make_node("Transpose", ["grey"], ["turned"], name="head/turn", perm=[0, 2, 1]),
        helper.make_node("Det", ["turned"], ["second"], name="head/other/det"),
        helper.make_node("Add", ["first", "second"], ["out"], name="head/add"),
    ]
    report = gate(_save(tmp_path / "model.onnx", nodes, frames=("N", 3, 3)), max_batch=8, targets=("sm_89",))
    words = "the parser has no such operator"
    assert report.errors == (("head/covariance/det", "Det", words), ("head/other/det", "Det", words))


def test_a_top_k_that_is_too_large_is_refused_by_the_builder_with_its_name(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["grey", "shape"], ["flat"], name="head/flat"),
        helper.make_node("TopK", ["flat", "k"], ["out", "index"], name="head/neighbours/topk"),
    ]
    constants = [_integers("shape", -1, 8000), _integers("k", 4000)]
    report = gate(_save(tmp_path / "model.onnx", nodes, constants, frames=("N", 100, 80, 1)), max_batch=2)
    ((name, operator, words),) = report.errors
    assert (name, operator) == ("head/neighbours/topk", "TopK")
    assert "3840" in words


def test_half_layers_are_counted(tmp_path):
    report = gate(_half(tmp_path / "model.onnx"), max_batch=8)
    assert report.passed
    assert report.layers_per_dtype["float16"] == 3
    assert report.layers_per_dtype["float32"] == 2


def test_a_graph_with_a_fixed_batch_needs_no_profile(tmp_path):
    assert gate(_half(tmp_path / "model.onnx", batch=1), max_batch=1).passed


def test_weights_beside_the_model_are_found(tmp_path):
    path = tmp_path / "model.onnx"
    weights = onnx.numpy_helper.from_array(np.ones((3, 400), np.float32), "weights")
    _save(path, [helper.make_node("MatMul", ["grey", "weights"], ["out"], name="head/matmul")], [weights])
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    assert (tmp_path / "model.onnx.data").exists()
    assert gate(path, max_batch=8, targets=("sm_89",)).passed


def test_a_symbolic_frame_size_is_refused(tmp_path):
    path = _save(
        tmp_path / "model.onnx",
        [helper.make_node("Relu", ["grey"], ["out"], name="head/relu")],
        frames=("N", "H", 16, 3),
    )
    with pytest.raises(ExportError, match=r"Input frames has the shape .*only the batch may be symbolic"):
        gate(path, max_batch=8)


def test_what_is_no_model_is_an_error_or_a_refusal(tmp_path):
    with pytest.raises(BadInputError, match=r"There is no file .*none\.onnx"):
        gate(tmp_path / "none.onnx", max_batch=1)
    (tmp_path / "text.onnx").write_bytes(b"not a graph")
    ((name, _, words),) = gate(tmp_path / "text.onnx", max_batch=1).errors
    assert name == ""
    assert "Failed to parse the ONNX model" in words


def test_an_unknown_target_is_refused(tiny_bundle):
    with pytest.raises(UsageError, match=r"cannot build for sm_90; it knows .*sm_89"):
        gate(tiny_bundle.model_path, max_batch=8, targets=("sm_89", "sm_90"))


def test_a_plan_is_stored_with_what_it_was_built_for(tiny_bundle, rtx):
    heard = []
    bundle = build_plan(
        tiny_bundle, engine="trt-rtx", targets=("sm_86", "sm_89"), progress=lambda *step: heard.append(step)
    )
    (plan,) = open_bundle(bundle.path).manifest.plans
    file = bundle.path / plan.file
    assert file.name == f"trt-rtx-{rtx.__version__}-sm_86+sm_89-fp32-{bundle.model_sha256[:12]}.plan"
    assert (plan.sha256, plan.num_bytes) == (file_sha256(file), file.stat().st_size)
    assert (plan.engine, plan.engine_version) == ("trt-rtx", rtx.__version__)
    assert (plan.target, plan.precision, plan.max_batch) == ("sm_86+sm_89", "fp32", 8)
    assert plan.model_sha256 == bundle.model_sha256
    assert set(plan.layers_per_dtype) == {"float32"}
    assert len(heard) > 10
    assert heard[0] == (f"tensorrt_rtx {rtx.__version__}: parse", 0, 0)
    assert ("build: Building engine", 6, 6) in heard


def test_a_plan_of_the_same_key_is_replaced_and_of_another_is_added(tiny_bundle):
    bundle = tiny_bundle
    for target in ("sm_86", "sm_86", "sm_89"):
        bundle = build_plan(bundle, engine="trt-rtx", targets=(target,))
    assert [plan.target for plan in bundle.manifest.plans] == ["sm_86", "sm_89"]


def test_fp16_that_came_out_as_fp32_is_refused(tiny_bundle):
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, precision="fp16"))
    with pytest.raises(ExportError, match=r"fp16 was asked for, and the parsed network has \d+ float32 and no float16"):
        build_plan(bundle, engine="trt-rtx", targets=("sm_89",))
    assert not open_bundle(bundle.path).manifest.plans


def test_a_refused_graph_names_its_nodes_and_leaves_the_bundle_alone(tiny_bundle):
    model = onnx.load(tiny_bundle.model_path)
    nodes = [
        helper.make_node("Det", ["anomaly_map"], ["determinant"], name="head/det"),
        helper.make_node("Identity", ["determinant"], ["unused"], name="post/unused"),
    ]
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info("unused", kind.FLOAT, ["N"]))
    onnx.save(model, tiny_bundle.model_path)
    words = r"refused .*model\.onnx: head/det \(Det\): the parser has no such operator"
    with pytest.raises(ExportError, match=words) as caught:
        build_plan(tiny_bundle, engine="trt-rtx", targets=("sm_89",))
    assert caught.value.exit_status == 1
    assert not (tiny_bundle.path / "plans").exists()


def test_an_interrupt_stops_the_build_and_leaves_the_bundle_alone(tiny_bundle):
    def interrupt(stage, _done, _total):
        if stage.startswith("build: Optimizing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(tiny_bundle, engine="trt-rtx", targets=("sm_89",), progress=interrupt)
    assert not open_bundle(tiny_bundle.path).manifest.plans


def test_without_a_gpu_the_first_gpu_is_not_guessed(tiny_bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_build, "find_gpus", lambda: GpuSearch((), "no NVIDIA driver"))
    with pytest.raises(
        EnvironmentMissingError, match=r"Found: no NVIDIA driver.*Or build ahead of time: give the targets"
    ):
        build_plan(tiny_bundle, engine="trt-rtx")


def test_with_a_gpu_rtx_builds_for_its_capability(tiny_bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_build, "find_gpus", lambda: GpuSearch((Gpu(name="NVIDIA A10", sm="sm_86"),), "a GPU"))
    assert build_plan(tiny_bundle, engine="trt-rtx").manifest.plans[0].target == "sm_86"
    monkeypatch.setattr(tensorrt_build, "find_gpus", lambda: GpuSearch((Gpu(name="NVIDIA H100", sm="sm_90"),), "a GPU"))
    with pytest.raises(UsageError, match=r"cannot build for sm_90"):
        build_plan(tiny_bundle, engine="trt-rtx")


def test_what_builds_no_plans_is_said(tiny_bundle):
    with pytest.raises(UsageError, match=r"no plan for engine 'openvino'; plans are built for trt and trt-rtx"):
        build_plan(tiny_bundle, engine="openvino")


def test_a_missing_package_is_said(tiny_bundle, monkeypatch):
    def no_module(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(tensorrt_build, "import_module", no_module)
    words = (
        r"Looked for: the module tensorrt\. Found: No module named 'tensorrt'\. To fix: "
        r"pip install 'tensorrt>=10\.0' 'cuda-python>=12\.6'"
    )
    with pytest.raises(EnvironmentMissingError, match=words):
        build_plan(tiny_bundle, engine="trt")


def test_trt_takes_no_targets(tiny_bundle, monkeypatch, rtx):
    monkeypatch.setattr(tensorrt_build, "import_module", lambda _name: rtx)
    with pytest.raises(UsageError, match=r"Engine trt builds for the GPU it runs on and takes no targets"):
        build_plan(tiny_bundle, engine="trt", targets=("sm_89",))


def test_the_inspectors_words_are_counted():
    layers = [
        {"Name": "conv", "Outputs": [{"Format/Datatype": "Half"}, {"Format/Datatype": "Float"}]},
        {"Name": "gemm", "Outputs": [{"Format/Datatype": "Row major linear FP16 format"}]},
        {"Name": "norm", "Outputs": [{"Format/Datatype": "Float"}]},
        {"Name": "map", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]},
        {"Name": "q", "Outputs": [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format."}]},
        {"Name": "b", "Outputs": [{"Format/Datatype": "BFloat16"}]},
        {"Name": "u", "Outputs": [{"Format/Datatype": "UInt8"}]},
        {"Name": "none", "Outputs": []},
        "a name only",
    ]
    counts = {"float16": 2, "float32": 2, "int8": 1, "bfloat16": 1, "uint8": 1}
    assert count_inspected(json.dumps({"Layers": layers})) == counts
    assert count_inspected("no JSON") == {}
    assert count_inspected("[]") == {}


def test_the_proof_of_precision():
    prove_precision({"float32": 3}, "fp32", where="it")
    prove_precision({"float32": 3, "float16": 1}, "fp16", where="it")
    prove_precision({"float32": 3, "int8": 1}, "int8", where="it")
    with pytest.raises(ExportError, match=r"int8 was asked for, and the plan has 3 float32 and no int8"):
        prove_precision({"float32": 3}, "int8", where="the plan")
    with pytest.raises(ExportError, match=r"has no layer and no float16"):
        prove_precision({}, "fp16", where="the plan")


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["trt", "trt-rtx"])
def test_a_plan_built_here_is_proved_by_the_inspector(engine, tiny_bundle):
    from lineproof.runtime.engine import availability

    state = availability(engine)
    if not state.is_available:
        pytest.skip(f"{engine}: {state.found}")
    plan = build_plan(tiny_bundle, engine=engine).manifest.plans[0]
    assert plan.target == find_gpus().gpus[0].target if engine == "trt" else plan.target == find_gpus().gpus[0].sm
    assert dataclasses.asdict(plan)["layers_per_dtype"].get("float32")
