"""ONNX Runtime: never the CPU by accident, and the right numbers from an fp16 graph."""

import os

import numpy as np
import pytest

from lineproof.core.errors import BundleError, EnvironmentMissingError
from lineproof.host.nvidia import find_gpus
from lineproof.runtime import ort
from lineproof.runtime.engine import EngineOptions, open_engine, predict
from lineproof.runtime.ort_session import CPU, CUDA, TENSORRT, import_onnxruntime, open_session, stray_operators


@pytest.fixture
def onnxruntime(require):
    require("ort-cpu")
    if find_gpus().gpus:
        pytest.skip("a GPU is here: nothing falls back")
    return import_onnxruntime()


@pytest.mark.parametrize(
    ("provider", "cure"), [(CUDA, r"onnxruntime-gpu\[cuda,cudnn\]"), (TENSORRT, r"libnvinfer\.so\.10")]
)
def test_asked_for_the_gpu_and_got_the_cpu_is_an_error(provider, cure, onnxruntime, tiny_bundle, capfd):
    providers = [(provider, {"device_id": "0"}), (CPU, {})]
    with pytest.raises(
        EnvironmentMissingError, match=rf"asked for {provider} and would run on the CPU.*{cure}"
    ) as caught:
        open_session(onnxruntime, tiny_bundle, providers, EngineOptions())
    assert caught.value.exit_status == 3
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_fallback_that_was_accepted_is_a_cpu_session(provider, onnxruntime, tiny_bundle):
    providers = [(provider, {"device_id": "0"}), (CPU, {})]
    session = open_session(onnxruntime, tiny_bundle, providers, EngineOptions(allow_fallback=True))
    assert session.get_providers() == [CPU]


def test_the_words_of_the_library_are_in_the_error(tiny_bundle, monkeypatch, require):
    require("ort-cpu")
    onnxruntime = import_onnxruntime()

    def no_library(*_arguments, **_options):
        os.write(2, b"[E:onnxruntime] libcublasLt.so.13: cannot open shared object file")
        raise RuntimeError("Please install TensorRT libraries")

    monkeypatch.setattr(onnxruntime, "InferenceSession", no_library)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CPU])
    words = r"It said: Please install TensorRT libraries \[E:onnxruntime\] libcublasLt\.so\.13: cannot open"
    with pytest.raises(EnvironmentMissingError, match=words):
        open_session(onnxruntime, tiny_bundle, [(TENSORRT, {}), (CPU, {})], EngineOptions())


def test_a_graph_that_cannot_be_read_is_a_bundle_error(tiny_bundle, require):
    require("ort-cpu")
    tiny_bundle.model_path.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot open the graph: .*Export it again"):
        open_engine(tiny_bundle, "ort-cpu")


def test_nodes_that_compute_elsewhere_are_found():
    assert stray_operators({CUDA: ["Conv", "Relu"], CPU: ["Shape", "Gather"]}, CUDA) == {}
    assert stray_operators({CUDA: ["Conv"], CPU: ["Shape", "TopK", "TopK"]}, CUDA) == {"TopK": 2}
    assert stray_operators({TENSORRT: ["Conv"], CUDA: ["Cast"], CPU: ["Shape"]}, TENSORRT) == {}
    assert stray_operators({CUDA: ["Conv"], CPU: ["Shape"]}, TENSORRT) == {"Conv": 1, "Shape": 1}


@pytest.mark.parametrize(
    ("engine", "provider", "wanted"),
    [
        (ort.OrtCudaEngine, CUDA, {"device_id": "0", "use_tf32": "0", "user_compute_stream": "7"}),
        (
            ort.OrtTrtEngine,
            TENSORRT,
            {
                "device_id": "0",
                "trt_engine_cache_enable": "0",
                "trt_profile_min_shapes": "frames:1x12x16x3",
                "trt_profile_opt_shapes": "frames:1x12x16x3",
                "trt_profile_max_shapes": "frames:8x12x16x3",
                "user_compute_stream": "7",
            },
        ),
    ],
)
def test_what_the_providers_are_told(engine, provider, wanted, tiny_bundle, monkeypatch, host_cuda, require):
    require("ort-cpu")
    cuda, asked = host_cuda(), []

    def refuse(_ort, _bundle, providers, _options):
        asked.extend(providers)
        raise EnvironmentMissingError("stop here")

    monkeypatch.setattr(ort, "open_cuda", lambda _device: cuda)
    monkeypatch.setattr(ort, "open_session", refuse)
    with pytest.raises(EnvironmentMissingError, match="stop here"):
        engine(tiny_bundle, options=EngineOptions())
    assert asked[0] == (provider, wanted)
    assert asked[-1] == (CPU, {})
    assert not cuda.blocks, "what was allocated is given back when opening fails"


def test_an_fp16_graph_on_the_cpu_is_within_the_tolerance_of_fp16(half_bundle, require):
    require("ort-cpu")
    golden = half_bundle.golden()
    prediction = predict(open_engine(half_bundle, "ort-cpu"), golden.frames)
    np.testing.assert_allclose(prediction.score, golden.reference.score, atol=2e-3)
    assert not np.array_equal(prediction.score, golden.reference.score)
