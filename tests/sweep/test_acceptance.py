"""A bundle is proved before it is called done; one that fails stays, marked as failed."""

import dataclasses

import numpy as np
import pytest

from lineproof.bundle.atomic import file_sha256
from lineproof.bundle.manifest import FileRecord
from lineproof.bundle.store import GOLDEN, is_bundle, open_bundle
from lineproof.core.errors import EnvironmentMissingError, ExportError, ParityError, UsageError
from lineproof.export.tensorrt.build import GateReport
from lineproof.runtime.engine import Availability, availability
from lineproof.sweep import acceptance as prove_module
from lineproof.sweep.acceptance import builds_plan, export_engines, prove

PASSED = GateReport(
    passed=True,
    targets=("sm_89",),
    num_layers=4,
    engine_version="1.5.0",
    layers_per_dtype={"float32": 4},
    seconds=0.5,
    errors=(),
)
REFUSED = GateReport(
    passed=False, targets=(), num_layers=0, engine_version="1.5.0", layers_per_dtype={}, seconds=0.1,
    errors=(("head/warp/GridSample", "GridSample", "not supported"), ("post/Mod", "Mod", "fmod of floats")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def cpu_engine():
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.found}. To fix: {state.fix}")


@pytest.fixture
def gate_says(monkeypatch):
    """Put an answer in place of TensorRT for RTX; None means that it is not installed."""

    def say(report):
        monkeypatch.setattr(prove_module, "find_spec", lambda _name: report)
        monkeypatch.setattr(prove_module, "gate", lambda _path, *, max_batch: report if max_batch == 8 else None)

    return say


def spoil_golden(bundle):
    """Golden answers of another detector, with their hash in the manifest."""
    golden = bundle.golden()
    np.savez_compressed(
        bundle.path / GOLDEN, frames=golden.frames, names=np.array(golden.names),
        score=golden.reference.score[::-1], anomaly_map=golden.reference.anomaly_map,
    )  # fmt: skip
    record = FileRecord(file_sha256(bundle.path / GOLDEN), (bundle.path / GOLDEN).stat().st_size)
    return bundle.change(
        lambda manifest: dataclasses.replace(manifest, files={**bundle.manifest.files, GOLDEN: record})
    )


def test_a_proved_bundle_is_marked_passed(tiny_bundle, gate_says):
    gate_says(PASSED)
    proof = prove(tiny_bundle, engine="onnx")
    proof.check()
    assert open_bundle(tiny_bundle.path).manifest == proof.bundle.manifest
    assert proof.bundle.manifest.parity_of("ort-cpu") == "passed"
    assert proof.parity.engine == "ort-cpu"
    text = "\n".join(proof.summary_lines())
    assert "TensorRT for RTX 1.5.0 parsed and built it for sm_89: 4 layers (4 float32), 0.5 s." in text
    assert "Parity passed: tiny on ort-cpu (fp32)" in text
    plain = proof.to_dict()
    assert plain["parity"]["passed"] is True
    assert plain["tensorrt_rtx"]["num_layers"] == 4
    assert plain["bundle"] == str(tiny_bundle.path)
    assert (tiny_bundle.path / "proof.json").is_file()


def test_a_refused_graph_keeps_its_bundle_and_names_the_nodes(tiny_bundle, gate_says):
    gate_says(REFUSED)
    with pytest.raises(ExportError) as caught:
        prove(tiny_bundle, engine="onnx")
    message = str(caught.value)
    assert "TensorRT for RTX 1.5.0 refuses 2 nodes of" in message
    assert "head/warp/GridSample (GridSample): not supported" in message
    assert "post/Mod (Mod): fmod of floats" in message
    assert "kept and marked as failed for trt-rtx" in message
    assert open_bundle(tiny_bundle.path).manifest.parity_of("trt-rtx") == "failed"


def test_another_answer_fails_and_is_kept(tiny_bundle, gate_says):
    gate_says(None)
    proof = prove(spoil_golden(tiny_bundle), engine="onnx")
    assert open_bundle(tiny_bundle.path).manifest == proof.bundle.manifest
    assert proof.bundle.manifest.parity_of("ort-cpu") == "failed"
    assert proof.to_dict()["parity"]["passed"] is False
    with pytest.raises(ParityError, match=r"ort-cpu does not give the reference's answers"):
        proof.check()


def test_without_tensorrt_rtx_it_is_said(tiny_bundle, gate_says):
    gate_says(None)
    proof = prove(tiny_bundle, engine="onnx")
    assert proof.gate is None
    assert proof.to_dict()["tensorrt_rtx"] is None
    assert (
        "Not built by TensorRT for RTX: it is not installed (pip install 'tensorrt-rtx>=1.5' 'cuda-python>=12.6')."
        in proof.summary_lines()
    )


def test_without_verification_it_is_said(tiny_bundle, gate_says):
    gate_says(None)
    proof = prove(tiny_bundle, engine="onnx", is_verified=False)
    proof.check()
    assert proof.parity is None
    assert "Not verified, as asked (--no-verify)." in proof.summary_lines()
    assert open_bundle(tiny_bundle.path).manifest.parity == {}


def test_where_no_engine_works_it_is_said_before_anything_is_done(tiny_bundle, gate_says, monkeypatch):
    gate_says(None)
    absent = Availability(
        name="ort-cpu",
        is_available=False,
        looked_for="the package onnxruntime",
        found="no module",
        fix="pip install 'onnxruntime>=1.20'",
    )
    monkeypatch.setattr(prove_module, "availability", lambda name: dataclasses.replace(absent, name=name))
    with pytest.raises(
        EnvironmentMissingError, match=r"No engine here can verify a bundle for onnx: ort-cpu cannot.*--no-verify"
    ):
        prove(tiny_bundle, engine="onnx")
    assert open_bundle(tiny_bundle.path).manifest.parity == {}


def test_the_first_available_engine_verifies(tiny_bundle, gate_says, monkeypatch):
    if not availability("openvino").is_available:
        pytest.skip("openvino is not installed")
    gate_says(None)
    real = availability
    monkeypatch.setattr(
        prove_module, "availability", lambda name: dataclasses.replace(real(name), is_available=name != "ort-cpu")
    )
    assert prove(tiny_bundle, engine="onnx").parity.engine == "openvino"


def test_a_plan_that_cannot_run_here_is_verified_elsewhere_and_said(tiny_bundle, gate_says, monkeypatch):
    gate_says(PASSED)
    monkeypatch.setattr(prove_module, "build_plan", lambda bundle, **_options: bundle)
    real = availability
    monkeypatch.setattr(
        prove_module, "availability", lambda name: dataclasses.replace(real(name), is_available=name == "ort-cpu")
    )
    proof = prove(tiny_bundle, engine="trt-rtx", targets=("sm_89",))
    assert "built ahead of time and has not run: no GPU for it here. Verified on ort-cpu." in proof.notes[-1]


def test_what_cannot_be_is_refused(tiny_bundle):
    with pytest.raises(
        UsageError, match=r"engine \(--engine\) is 'trt11'; export knows onnx, ort-cpu, .*openvino, trt, trt-rtx"
    ):
        prove(tiny_bundle, engine="trt11")
    with pytest.raises(UsageError, match=r"targets go with trt-rtx only"):
        prove(tiny_bundle, engine="trt", targets=("sm_89",))
    for nothing in ("torch", "null"):
        with pytest.raises(UsageError, match=rf"engine \(--engine\) is '{nothing}'; export knows onnx"):
            prove(tiny_bundle, engine=nothing)


def test_what_gets_a_plan():
    assert {"onnx", "ort-cpu", "openvino", "trt", "trt-rtx"} <= set(export_engines())
    assert {"trt", "trt-rtx"} == {name for name in export_engines() if builds_plan(name)}


def test_an_engine_that_needs_no_plan_verifies_what_is_meant_for_it(tiny_bundle, gate_says):
    gate_says(None)
    assert prove(tiny_bundle, engine="ort-cpu").parity.engine == "ort-cpu"


def test_is_bundle(tiny_bundle, tmp_path):
    assert is_bundle(tiny_bundle.path)
    assert not is_bundle(tmp_path)
    assert not is_bundle(tmp_path / "absent")
