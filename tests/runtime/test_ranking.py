"""Which engine ``auto`` means, and which options reach which engine."""

import dataclasses

import pytest

from lineproof.core.errors import EnvironmentMissingError, UsageError
from lineproof.runtime import ranking
from lineproof.runtime.engine import Availability, EngineOptions, engine_type, names_of
from lineproof.runtime.ranking import (
    fits,
    is_here,
    is_proved,
    rank_engines,
    reference_options,
    resolve_auto,
    share_options,
)


def _only(*names):
    return lambda name: Availability(
        name=name, is_available=name in names, looked_for="a package", found="nothing", fix="pip install it"
    )


def test_auto_takes_the_first_that_is_available(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("openvino", "ort-cpu"))
    assert resolve_auto(tiny_bundle, "auto") == "openvino"
    monkeypatch.setattr(ranking, "availability", _only("ort-cpu"))
    assert resolve_auto(tiny_bundle, "auto") == "ort-cpu"


def test_auto_takes_tensorrt_only_with_a_plan(tiny_bundle, make_plan, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("trt", "ort-cpu"))
    assert resolve_auto(tiny_bundle, "auto") == "ort-cpu"
    record = make_plan(num_bytes=1, target="L4 sm_89")
    assert (
        resolve_auto(tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, plans=(record,))), "auto")
        == "trt"
    )


def test_no_engine_at_all_says_how_to_get_one(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only())
    with pytest.raises(
        EnvironmentMissingError,
        match=r"looked for trt.*pip install 'onnxruntime>=1\.20', or pip install 'openvino>=2025\.0'",
    ):
        resolve_auto(tiny_bundle, "auto")


def test_auto_takes_a_proved_engine_first(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("openvino", "ort-cpu"))
    proved = tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time="t"))
    assert resolve_auto(proved, "auto") == "ort-cpu"
    both = proved.change(lambda manifest: manifest.with_parity("openvino", "passed", time="t"))
    assert resolve_auto(both, "auto") == "openvino"


def test_auto_takes_an_engine_that_failed_last(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("openvino", "ort-cpu"))
    failed = tiny_bundle.change(lambda manifest: manifest.with_parity("openvino", "failed", time="t"))
    assert resolve_auto(failed, "auto") == "ort-cpu"
    monkeypatch.setattr(ranking, "availability", _only("openvino"))
    assert resolve_auto(failed, "auto") == "openvino"


def test_auto_asks_for_the_proof_of_the_arithmetic(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("openvino", "ort-cpu"))
    bundle = tiny_bundle.change(
        lambda manifest: manifest.with_parity("openvino", "passed", time="t").with_parity(
            "ort-cpu:bf16", "passed", time="t"
        )
    )
    assert resolve_auto(bundle, "auto", options=EngineOptions(compute_dtype="bf16")) == "ort-cpu"
    assert resolve_auto(bundle, "auto") == "openvino"
    assert resolve_auto(bundle, "trt") == "trt"


def test_the_order_of_preference(tiny_bundle):
    known = ("trt", "trt-rtx", "ort-cuda", "openvino", "ort-cpu")
    ranked = rank_engines(tiny_bundle)
    assert tuple(name for name in ranked if name in known) == known
    assert not {"torch", "null", "ort-trt"} & set(ranked)


def test_each_filter_leaves_out_what_it_names(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("trt", "openvino", "ort-cpu"))
    assert rank_engines(tiny_bundle, is_here) == ("trt", "openvino", "ort-cpu")
    assert {"trt", "trt-rtx"}.isdisjoint(rank_engines(tiny_bundle, fits))
    assert rank_engines(tiny_bundle, fits, is_here) == ("openvino", "ort-cpu")
    proved = tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time="t"))
    assert rank_engines(proved, fits, is_proved) == ("ort-cpu",)
    assert rank_engines(proved, lambda _bundle, name: name != "ort-cpu", is_proved) == ()


def test_auto_takes_no_engine_that_cannot_run_the_precision(tiny_bundle, monkeypatch):
    monkeypatch.setattr(ranking, "availability", _only("openvino", "ort-cpu"))
    monkeypatch.setattr(engine_type("openvino"), "precisions", ("fp16",))
    assert resolve_auto(tiny_bundle, "auto") == "ort-cpu"


def test_a_reference_gets_the_defaults_except_threads():
    asked = EngineOptions(device=1, num_threads=3, compute_dtype="bf16", allow_fallback=True)
    for name in names_of(lambda engine: engine.takes_threads):
        assert reference_options(name, asked) == EngineOptions(num_threads=3)
    for name in names_of(lambda engine: not engine.takes_threads):
        assert reference_options(name, asked) == EngineOptions()


def test_each_of_several_engines_gets_what_it_can_honour():
    asked = EngineOptions(device=1, num_threads=3, allow_fallback=True)
    cpu, cuda, trt, null = share_options(("ort-cpu", "ort-cuda", "trt", "null"), asked)
    assert cpu == EngineOptions(num_threads=3, allow_fallback=True)
    assert cuda == asked
    assert trt == EngineOptions(device=1, allow_fallback=True)
    assert null == EngineOptions()


def test_what_no_engine_can_honour_reaches_them_so_that_they_refuse_it():
    asked = EngineOptions(device=1, compute_dtype="bf16")
    assert share_options(("ort-cpu", "openvino"), asked) == (asked, asked)
    threads = EngineOptions(num_threads=2)
    assert share_options(("trt", "null"), threads) == (threads, EngineOptions())


def test_arithmetic_is_not_shared_out():
    """Beside an engine that has it, one that lacks it would compute other numbers than were asked for."""
    asked = EngineOptions(compute_dtype="bf16")
    assert share_options(("ort-cpu", "openvino"), asked) == (asked, asked)


def test_an_unknown_engine_has_no_share():
    with pytest.raises(UsageError, match=r"There is no engine 'ort_cpu'"):
        share_options(("ort_cpu",), EngineOptions())
