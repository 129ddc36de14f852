"""Opening engines by name."""

import dataclasses

import pytest

from lineproof.bundle.manifest import PlanRecord
from lineproof.core.errors import EnvironmentMissingError, UsageError
from lineproof.runtime import engine as engines
from lineproof.runtime.engine import Availability, EngineOptions, open_engine, pick_engine, predict, resolve_auto


def _only(*names):
    return lambda name: Availability(name, name in names, "a package", "nothing", "pip install it")


def test_auto_takes_the_first_that_is_available(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engines, "availability", _only("openvino", "ort-cpu"))
    assert pick_engine(tiny_bundle) == "openvino"
    monkeypatch.setattr(engines, "availability", _only("ort-cpu"))
    assert pick_engine(tiny_bundle) == "ort-cpu"


def test_auto_takes_tensorrt_only_with_a_plan(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engines, "availability", _only("trt", "ort-cpu"))
    assert pick_engine(tiny_bundle) == "ort-cpu"
    record = PlanRecord("plans/a.plan", "0" * 64, 1, "trt", "11.4", "L4 sm_89", "fp32", "0" * 64, 8)
    assert pick_engine(tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, plans=(record,)))) == "trt"


def test_no_engine_at_all_says_how_to_get_one(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engines, "availability", _only())
    with pytest.raises(
        EnvironmentMissingError,
        match=r"looked for trt.*pip install 'onnxruntime>=1\.20', or pip install 'openvino>=2025\.0'",
    ):
        pick_engine(tiny_bundle)


def test_an_unknown_name_is_a_usage_error(tiny_bundle):
    with pytest.raises(UsageError, match=r"There is no engine 'ort_cpu'.*Did you mean 'ort-cpu'\?"):
        open_engine(tiny_bundle, "ort_cpu")


def test_an_engine_that_cannot_run_names_those_that_can(tiny_bundle):
    state = engines.availability("ort-cuda")
    if state.is_available:
        pytest.skip("ort-cuda can run here")
    with pytest.raises(
        EnvironmentMissingError, match=r"Engine ort-cuda cannot run here.*To fix: .*work here: .*ort-cpu"
    ):
        open_engine(tiny_bundle, "ort-cuda")


@pytest.mark.parametrize("name", ["ort-cuda", "ort-trt"])
def test_a_fallback_that_was_accepted_runs_and_says_so(name, tiny_bundle, require):
    require("ort-cpu")
    if engines.availability(name).is_available:
        pytest.skip(f"{name} can run here")
    engine = open_engine(tiny_bundle, name, options=EngineOptions(allow_fallback=True))
    golden = tiny_bundle.golden()
    assert predict(engine, golden.frames).score == pytest.approx(golden.reference.score, abs=1e-6)
    assert engine.describe()["provider"] == "CPUExecutionProvider"
    assert engine.device_bytes() is None
    engine.close()


def test_auto_takes_a_proved_engine_first(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engines, "availability", _only("openvino", "ort-cpu"))
    proved = tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time="t"))
    assert pick_engine(proved) == "ort-cpu"
    both = proved.change(lambda manifest: manifest.with_parity("openvino", "passed", time="t"))
    assert pick_engine(both) == "openvino"


def test_auto_takes_an_engine_that_failed_last(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engines, "availability", _only("openvino", "ort-cpu"))
    failed = tiny_bundle.change(lambda manifest: manifest.with_parity("openvino", "failed", time="t"))
    assert pick_engine(failed) == "ort-cpu"
    monkeypatch.setattr(engines, "availability", _only("openvino"))
    assert pick_engine(failed) == "openvino"


def test_auto_asks_for_the_proof_of_the_arithmetic(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engines, "availability", _only("openvino", "ort-cpu"))
    bundle = tiny_bundle.change(
        lambda manifest: manifest.with_parity("openvino", "passed", time="t").with_parity(
            "ort-cpu:bf16", "passed", time="t"
        )
    )
    assert pick_engine(bundle, options=EngineOptions(compute_dtype="bf16")) == "ort-cpu"
    assert resolve_auto(bundle, "auto") == "openvino"
    assert resolve_auto(bundle, "trt") == "trt"
