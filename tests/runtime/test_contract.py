"""What every engine of the table promises."""

import dataclasses
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from lineproof.core.errors import BadInputError, BundleError, LineproofError, UsageError
from lineproof.core.spec import PRECISIONS
from lineproof.runtime.engine import (
    ENGINES,
    Availability,
    Engine,
    EngineOptions,
    availability,
    cpu_engines,
    engine_type,
    names_of,
    open_engine,
    predict,
)

GPU = set(names_of(lambda engine: engine.uses_gpu))
ALL = [pytest.param(name, marks=[pytest.mark.gpu] if name in GPU else []) for name in ENGINES]
COMPUTING = [param for param in ALL if not engine_type(param.values[0]).is_harness]
ON_CPU = [name for name in ENGINES if name not in GPU]
TAKES_THREADS = set(names_of(lambda engine: engine.takes_threads))

LIBRARIES = "onnx onnxruntime openvino torch tensorrt tensorrt_rtx pycuda cuda pynvml"


@pytest.mark.parametrize("name", ENGINES)
def test_availability_says_what_was_found_and_how_to_fix_it(name):
    state = availability(name)
    assert isinstance(state, Availability)
    assert state.name == name
    assert state.looked_for
    assert state.found
    assert bool(state.fix) is not state.is_available


@pytest.mark.parametrize("name", ENGINES)
def test_what_it_can_do_stands_on_its_class(name):
    engine = engine_type(name)
    assert engine.name == name
    assert engine.precisions
    assert set(engine.precisions) <= set(PRECISIONS)
    assert "f32" in engine.compute_dtypes
    assert engine.preference >= 0
    if engine.is_reference or engine.is_harness:
        assert (engine.preference, engine.needs_plan, engine.uses_gpu) == (0, False, False)
        assert engine.precisions == PRECISIONS
    assert engine.needs_plan or not engine.builds_ahead


def test_one_engine_is_the_truth_and_one_measures_the_harness():
    assert len(names_of(lambda engine: engine.is_reference)) == 1
    assert len(names_of(lambda engine: engine.is_harness)) == 1
    preferences = [engine_type(name).preference for name in ENGINES if engine_type(name).preference]
    assert len(set(preferences)) == len(preferences), "two engines have one place in what auto takes"


def test_asking_what_an_engine_can_do_needs_no_package():
    code = (
        "import sys\n"
        "from lineproof.runtime.engine import ENGINES, engine_type\n"
        "told = [(e.uses_gpu, e.needs_plan, e.precisions, e.preference) for e in map(engine_type, ENGINES)]\n"
        f"print(len(told), sorted(set({LIBRARIES!r}.split()) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"{len(ENGINES)} []"


@pytest.mark.parametrize("name", ENGINES)
def test_a_bundle_of_another_precision_is_refused(name, tiny_bundle, monkeypatch):
    monkeypatch.setattr(engine_type(name), "precisions", ("fp16",))
    words = rf"tiny\.bundle is fp32, and engine {name} runs fp16 only\. Name an engine that runs fp32 \(.*\), or export"
    with pytest.raises(BundleError, match=words):
        open_engine(tiny_bundle, name)


@pytest.mark.parametrize("name", COMPUTING)
def test_golden_numbers(name, open_tiny, tiny_bundle):
    golden = tiny_bundle.golden()
    prediction = predict(open_tiny(name), golden.frames)
    np.testing.assert_allclose(prediction.score, golden.reference.score, atol=1e-6)
    np.testing.assert_allclose(prediction.anomaly_map, golden.reference.anomaly_map, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_shapes_dtypes_and_protocol(name, open_tiny, tiny_bundle):
    engine = open_tiny(name)
    assert isinstance(engine, Engine)
    prediction = predict(engine, tiny_bundle.golden().frames[:3])
    assert prediction.score.shape == (3,)
    assert prediction.score.dtype == np.float32
    assert prediction.anomaly_map.shape == (3, 12, 16)
    assert prediction.anomaly_map.dtype == np.float32


@pytest.mark.parametrize("name", COMPUTING)
def test_a_frame_gets_the_same_answer_alone_and_in_a_batch(name, open_tiny, tiny_bundle):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    together = predict(engine, frames)
    for index in (7, 0, 3):
        alone = predict(engine, frames[index : index + 1])
        np.testing.assert_allclose(alone.score[0], together.score[index], rtol=1e-6)
        np.testing.assert_allclose(alone.anomaly_map[0], together.anomaly_map[index], rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_wrong_frames_are_refused(name, open_tiny, tiny_bundle):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    with pytest.raises(BadInputError, match=r"frames is float32 \(8, 12, 16, 3\), but this bundle takes uint8"):
        engine.upload(frames.astype(np.float32))
    with pytest.raises(BadInputError, match=r"no resize"):
        engine.upload(frames[:, :11])
    with pytest.raises(BadInputError, match=r"frames is uint8 \(12, 16, 3\)"):
        engine.upload(frames[0])
    with pytest.raises(UsageError, match=r"A batch of 9 frames; this bundle takes 1 to 8"):
        engine.upload(np.concatenate([frames, frames[:1]]))
    with pytest.raises(UsageError, match=r"A batch of 0 frames"):
        engine.upload(frames[:0])


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_calls_is_kept(name, open_tiny, tiny_bundle):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    with pytest.raises(UsageError, match=r"execute before upload"):
        engine.execute()
    engine.upload(frames)
    with pytest.raises(UsageError, match=r"download before execute"):
        engine.download()
    engine.execute()
    engine.upload(frames[:2])
    with pytest.raises(UsageError, match=r"download before execute"):
        engine.download()
    with pytest.raises(BadInputError):
        engine.upload(frames[:, :5])
    engine.execute()
    assert len(engine.download().score) == 2


@pytest.mark.parametrize("name", ALL)
def test_a_closed_engine_refuses(name, open_tiny, tiny_bundle):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    engine.upload(frames)
    engine.close()
    engine.close()
    for call in (lambda: engine.upload(frames), engine.execute, engine.download, engine.describe):
        with pytest.raises(UsageError, match=rf"Engine {name} is closed"):
            call()


@pytest.mark.parametrize("name", ALL)
def test_a_second_thread_is_refused_while_one_is_inside(name, open_tiny, tiny_bundle, monkeypatch):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    inside, leave, execute = threading.Event(), threading.Event(), engine._execute

    def slow():
        inside.set()
        assert leave.wait(10)
        execute()

    monkeypatch.setattr(engine, "_execute", slow)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(predict(engine, frames)))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(LineproofError, match=rf"Two threads are in engine {name} at once"):
        engine.upload(frames)
    leave.set()
    thread.join()
    assert len(answers[0].score) == 8


@pytest.mark.parametrize("name", ALL)
def test_a_batch_belongs_to_the_thread_that_uploaded_it(name, open_tiny, tiny_bundle):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    engine.upload(frames[:4])
    thread = threading.Thread(target=lambda: engine.upload(frames[4:]))
    thread.start()
    thread.join()
    with pytest.raises(LineproofError, match=r"a batch that another thread uploaded"):
        engine.execute()


@pytest.mark.parametrize("name", ALL)
def test_downloads_are_copies_of_their_own(name, open_tiny, tiny_bundle):
    engine, frames = open_tiny(name), tiny_bundle.golden().frames
    first = predict(engine, frames)
    copy = first.anomaly_map.copy()
    again = engine.download()
    assert not np.shares_memory(first.anomaly_map, again.anomaly_map)
    assert not np.shares_memory(first.score, again.score)
    again.anomaly_map[:] = -1.0
    predict(engine, 255 - frames)
    np.testing.assert_array_equal(first.anomaly_map, copy)


@pytest.mark.parametrize("name", COMPUTING)
def test_uploaded_frames_may_be_reused_by_the_caller(name, open_tiny, tiny_bundle):
    engine, golden = open_tiny(name), tiny_bundle.golden()
    frames = golden.frames.copy()
    engine.upload(frames)
    frames[:] = 0
    engine.execute()
    np.testing.assert_allclose(engine.download().score, golden.reference.score, atol=1e-6)


@pytest.mark.parametrize("name", COMPUTING)
def test_frames_that_are_a_view_give_the_same_answer(name, open_tiny, tiny_bundle):
    engine, golden = open_tiny(name), tiny_bundle.golden()
    wide = np.zeros((8, 12, 32, 3), np.uint8)
    wide[:, :, ::2] = golden.frames
    np.testing.assert_allclose(predict(engine, wide[:, :, ::2]).score, golden.reference.score, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_describe_is_what_a_measurement_must_record(name, open_tiny, tiny_bundle):
    engine = open_tiny(name)
    predict(engine, tiny_bundle.golden().frames)
    record = json.loads(json.dumps(engine.describe()))
    assert record["engine"] == name
    assert record["graph_precision"] == "fp32"
    assert {"library", "device", "num_threads", "arithmetic"} <= set(record)
    assert (engine.device_bytes() is None) is (name not in GPU)
    assert (engine.device_time_ns() is None) is (name not in GPU)


@pytest.mark.parametrize("name", ALL)
def test_an_arithmetic_that_it_does_not_have_is_refused(name, open_tiny):
    with pytest.raises(UsageError, match=rf"Engine {name} cannot compute in 'f8'; it takes f32"):
        open_tiny(name, EngineOptions(compute_dtype="f8"))


@pytest.mark.parametrize("name", ON_CPU)
def test_a_cpu_engine_refuses_a_gpu(name, open_tiny):
    with pytest.raises(UsageError, match=rf"Engine {name} runs on the CPU and has no device 1"):
        open_tiny(name, EngineOptions(device=1))


@pytest.mark.parametrize("name", [name for name in ON_CPU if name in TAKES_THREADS])
def test_threads_are_what_was_asked_or_refused(name, open_tiny, tiny_bundle):
    try:
        engine = open_tiny(name, EngineOptions(num_threads=1))
    except UsageError as refusal:
        said = str(refusal)
    else:
        predict(engine, tiny_bundle.golden().frames)
        said = f"{engine.describe()['num_threads']} threads"
    assert "1 threads" in said


@pytest.mark.parametrize("name", [name for name in ENGINES if name not in TAKES_THREADS])
def test_threads_are_refused_where_there_are_none(name, open_tiny):
    with pytest.raises(UsageError, match=rf"Engine {name} has no number of threads to choose; asked for 2 threads\."):
        open_tiny(name, EngineOptions(num_threads=2))


def with_outputs(bundle, *outputs):
    """The bundle as a caller holds it, with other outputs in its manifest than in its graph."""
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, outputs=outputs))


@pytest.mark.parametrize("name", cpu_engines())
def test_a_graph_that_does_not_fit_its_manifest_is_refused(name, tiny_bundle, require):
    require(name)
    score, anomaly_map = tiny_bundle.manifest.outputs
    renamed = with_outputs(tiny_bundle, dataclasses.replace(score, name="anomaly_score"), anomaly_map)
    with pytest.raises(BundleError, match=r"the model has the outputs anomaly_map, score, the manifest names"):
        open_engine(renamed, name)
    resized = with_outputs(tiny_bundle, score, dataclasses.replace(anomaly_map, shape=("N", 12, 15)))
    with pytest.raises(BundleError, match=r"gave anomaly_map as float32 \(1, 12, 16\); the manifest says"):
        predict(open_engine(resized, name), np.zeros((1, 12, 16, 3), np.uint8))


@pytest.mark.parametrize("name", cpu_engines())
def test_a_model_that_is_none_is_refused_in_plain_words(name, tiny_bundle, require):
    require(name)
    tiny_bundle.model_path.write_bytes(b"not a graph")
    with pytest.raises(LineproofError, match=r"tiny\.bundle"):
        open_engine(tiny_bundle, name)


def test_an_absent_engine_is_a_skip_and_a_failure_where_it_is_required(check_required):
    absent = Availability(name="trt", is_available=False, looked_for="TensorRT", found="no GPU", fix="buy one")
    with pytest.raises(pytest.skip.Exception, match=r"trt cannot run here\. Found: no GPU\. To fix: buy one"):
        check_required(absent, "ort-cuda")
    with pytest.raises(pytest.fail.Exception, match=r"LINEPROOF_REQUIRE names trt cannot run here"):
        check_required(absent, "ort-cuda,trt")
    with pytest.raises(AssertionError, match=r"LINEPROOF_REQUIRE names \{'tensorrt'\}"):
        check_required(absent, "tensorrt")
    check_required(Availability(name="trt", is_available=True, looked_for="TensorRT", found="all", fix=""), "trt")
