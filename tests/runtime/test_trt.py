"""TensorRT engines as far as they go without a GPU; with one, the contract tests run them."""

import pytest

from lineproof.core.errors import BundleError, EnvironmentMissingError
from lineproof.export.tensorrt.build import build_plan
from lineproof.host.nvidia import Gpu, GpuSearch, find_gpus
from lineproof.runtime import trt
from lineproof.runtime.engine import EngineOptions, availability

A10 = Gpu(name="NVIDIA A10", sm="sm_86")


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def pretend_gpu(monkeypatch, host_cuda):
    """A GPU in name only: CUDA is host memory, the driver is missing."""
    if find_gpus().gpus:
        pytest.skip("a real GPU is here")
    cuda = host_cuda()
    monkeypatch.setattr(trt, "find_gpus", lambda: GpuSearch((A10,), A10.target))
    monkeypatch.setattr(trt, "open_cuda", lambda _device: cuda)
    return cuda


def _open(bundle, device=0):
    return trt.TrtRtxEngine(bundle, options=EngineOptions(device=device))


def test_without_a_gpu_it_says_what_was_looked_for_and_found(rtx):
    if find_gpus().gpus:
        pytest.skip("a GPU is here")
    state = availability("trt-rtx")
    assert not state.is_available
    assert rtx.__version__ in state.found
    assert find_gpus().description in state.found
    assert "NVIDIA GPU" in state.fix


def test_without_the_package_it_names_the_command(monkeypatch):
    def no_module(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(trt, "import_module", no_module)
    assert "pip install 'tensorrt-rtx>=1.5' 'cuda-python>=12.6'" in availability("trt-rtx").fix
    assert "pypi.nvidia.com" in availability("trt").fix


@pytest.mark.usefixtures("rtx")
def test_a_gpu_that_the_library_does_not_serve_is_said(monkeypatch):
    h100 = Gpu(name="NVIDIA H100 80GB HBM3", sm="sm_90")
    monkeypatch.setattr(trt, "find_gpus", lambda: GpuSearch((h100,), h100.target))
    monkeypatch.setattr(trt, "cuda_library", lambda: "cuda-python")
    state = availability("trt-rtx")
    assert not state.is_available
    assert "sm_90" in state.found
    assert "use a GPU that TensorRT for RTX serves" in state.fix
    monkeypatch.setattr(trt, "find_gpus", lambda: GpuSearch((A10,), A10.target))
    assert availability("trt-rtx").is_available


@pytest.mark.usefixtures("rtx", "pretend_gpu")
def test_a_gpu_index_that_does_not_exist_is_said(tiny_bundle):
    with pytest.raises(EnvironmentMissingError, match=r"asked for GPU 3 \(--device\)\. Found: NVIDIA A10 sm_86"):
        _open(tiny_bundle, device=3)


@pytest.mark.usefixtures("rtx", "pretend_gpu")
def test_a_bundle_without_a_plan_names_the_command(tiny_bundle):
    with pytest.raises(EnvironmentMissingError, match=r"holds no plan for engine trt-rtx.*--engine trt-rtx"):
        _open(tiny_bundle)


@pytest.mark.usefixtures("rtx")
def test_an_altered_plan_is_refused_before_the_library_sees_it(pretend_gpu, tiny_bundle):
    bundle = build_plan(tiny_bundle, engine="trt-rtx", targets=("sm_86",))
    file = bundle.path / bundle.manifest.plans[0].file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"was altered.*executable code"):
        _open(bundle)
    assert not pretend_gpu.calls


@pytest.mark.usefixtures("rtx")
def test_none_from_the_library_becomes_an_error_with_its_words(pretend_gpu, tiny_bundle):
    bundle = build_plan(tiny_bundle, engine="trt-rtx", targets=("sm_86", "sm_89"))
    words = r"could not load the plan .*It said: .*CUDA driver.*Build it again here: lineproof export"
    with pytest.raises(EnvironmentMissingError, match=words):
        _open(bundle)
    assert not pretend_gpu.blocks
    assert pretend_gpu.calls[-1] == ("close",)
