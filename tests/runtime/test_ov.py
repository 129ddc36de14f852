"""OpenVINO: the arithmetic is what was asked, and is said."""

import subprocess
import sys

import numpy as np
import pytest

from lineproof.core.errors import EnvironmentMissingError
from lineproof.runtime.engine import EngineOptions, open_engine, predict

openvino = pytest.importorskip("openvino")


def _has_bf16():
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_bf16_is_refused_by_a_cpu_that_would_compute_in_f32(tiny_bundle):
    if _has_bf16():
        pytest.skip("this CPU computes in bf16")
    with pytest.raises(EnvironmentMissingError, match=r"has no bf16 arithmetic.*would compute in f32"):
        open_engine(tiny_bundle, "openvino", options=EngineOptions(compute_dtype="bf16"))


def test_bf16_is_used_where_it_was_asked_for(tiny_bundle):
    if not _has_bf16():
        pytest.skip("this CPU has no bf16 arithmetic")
    engine = open_engine(tiny_bundle, "openvino", options=EngineOptions(compute_dtype="bf16"))
    assert engine.describe()["arithmetic"] == "bf16"
    engine.close()


def test_a_plugin_that_chose_another_arithmetic_is_refused(tiny_bundle, monkeypatch):
    from lineproof.runtime.ov import OpenVinoEngine

    monkeypatch.setattr(OpenVinoEngine, "_refuse_missing_bf16", lambda _self, _capabilities: None)
    if _has_bf16():
        pytest.skip("this CPU computes in bf16")
    with pytest.raises(EnvironmentMissingError, match=r"asked to compute in bf16 and compiled the model for f32"):
        open_engine(tiny_bundle, "openvino", options=EngineOptions(compute_dtype="bf16"))


def test_f32_is_the_default_and_no_node_computes_lower(tiny_bundle):
    record = open_engine(tiny_bundle, "openvino").describe()
    assert record["arithmetic"] == "f32"
    assert "f32" in record["nodes_per_dtype"]
    assert not {"f16", "bf16"} & set(record["nodes_per_dtype"])


def test_an_fp16_graph_is_computed_in_f32_and_said_so(half_bundle):
    engine, golden = open_engine(half_bundle, "openvino"), half_bundle.golden()
    np.testing.assert_allclose(predict(engine, golden.frames).score, golden.reference.score, atol=2e-3)
    record = engine.describe()
    assert record["graph_precision"] == "fp16"
    assert record["arithmetic"] == "f32"
    assert "f16" not in record["nodes_per_dtype"]


#: Closes an engine in another thread than the one that opened it; then a signal that Python handles arrives there.
CLOSED_ELSEWHERE = """
import gc, os, signal, sys, threading
from lineproof.bundle.store import open_bundle
from lineproof.runtime.engine import open_engine, predict

bundle = open_bundle(sys.argv[1])
engines = [open_engine(bundle, "openvino")]
predict(engines[0], bundle.golden().frames[:1])

def close():
    engines.pop().close()
    gc.collect()

closing = threading.Thread(target=close)
closing.start()
closing.join()
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append("seen"))
os.kill(os.getpid(), signal.SIGTERM)
print(*seen)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_an_engine_closed_in_another_thread_leaves_the_process_able_to_take_a_signal(tiny_bundle):
    command = [sys.executable, "-c", CLOSED_ELSEWHERE, str(tiny_bundle.path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (answer.returncode, answer.stdout.strip()) == (0, "seen"), answer.stderr
