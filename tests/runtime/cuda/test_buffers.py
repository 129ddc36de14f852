"""Buffers are allocated once, copied in part, and given back in every case."""

import threading

import numpy as np
import pytest

from lineproof.core.errors import EnvironmentMissingError, LineproofError
from lineproof.host.nvidia import find_gpus
from lineproof.runtime.cuda import bindings as cuda_bindings
from lineproof.runtime.cuda.bindings import PythonCuda, cuda_library, open_cuda
from lineproof.runtime.cuda.buffers import CudaBuffers

SHAPES = {"frames": ((8, 2, 3), "uint8"), "score": ((8,), "float32")}


def test_copies_the_frames_of_a_smaller_batch(host_cuda):
    cuda = host_cuda()
    buffers = CudaBuffers(cuda, SHAPES)
    frames = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    buffers.upload("frames", frames[:, ::-1])
    np.testing.assert_array_equal(buffers.download("frames", 3), frames[:, ::-1])
    np.testing.assert_array_equal(buffers.download("frames", 1), frames[:1, ::-1])
    assert ("copy_to_device", buffers.address("frames"), 18) in cuda.calls
    assert ("copy_to_host", buffers.address("frames"), 6) in cuda.calls
    assert [call for call in cuda.calls if call[0] == "allocate_device"] == [
        ("allocate_device", 48),
        ("allocate_device", 32),
    ]


def test_downloads_are_copies_in_the_tensors_dtype(host_cuda):
    cuda = host_cuda()
    buffers = CudaBuffers(cuda, SHAPES)
    cuda.blocks[buffers.address("score")].view(np.float32)[:2] = (0.25, 4.0)
    first = buffers.download("score", 2)
    np.testing.assert_array_equal(first, np.array([0.25, 4.0], np.float32))
    cuda.blocks[buffers.address("score")][:] = 0
    np.testing.assert_array_equal(buffers.download("score", 2), np.zeros(2, np.float32))
    np.testing.assert_array_equal(first, np.array([0.25, 4.0], np.float32))


def test_execute_is_timed_by_events_and_waits(host_cuda):
    cuda = host_cuda()
    buffers = CudaBuffers(cuda, SHAPES)
    assert buffers.elapsed_ns() is None
    cuda.calls.clear()
    buffers.execute(lambda stream: cuda.calls.append(("queued", stream)))
    assert cuda.calls == [("record", 0), ("queued", 7), ("record", 1), ("synchronize",)]
    assert buffers.elapsed_ns() == 1500


def test_counts_what_it_took_itself(host_cuda):
    assert CudaBuffers(host_cuda(), SHAPES).used_bytes() == 48 + 32


def test_close_frees_in_reverse_and_only_once(host_cuda):
    cuda = host_cuda()
    buffers = CudaBuffers(cuda, SHAPES)
    cuda.calls.clear()
    buffers.close()
    buffers.close()
    assert [call[0] for call in cuda.calls] == ["free_host", "free_device", "free_host", "free_device", "close"]
    assert not cuda.blocks


def test_a_failed_allocation_gives_back_the_others(host_cuda):
    cuda = host_cuda(fail_at=1)
    with pytest.raises(LineproofError, match="out of memory"):
        CudaBuffers(cuda, SHAPES)
    assert not cuda.blocks
    assert cuda.calls[-1] == ("close",)


def test_pycuda_is_taken_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(cuda_bindings, "find_spec", lambda _name: object())
    assert cuda_library() == "pycuda"
    monkeypatch.setattr(cuda_bindings, "find_spec", lambda name: None if name == "pycuda" else object())
    assert cuda_library() == "cuda-python"
    monkeypatch.setattr(cuda_bindings, "find_spec", lambda _name: None)
    assert cuda_library() == ""
    with pytest.raises(EnvironmentMissingError, match=r"looked for pycuda and cuda-python, found neither"):
        open_cuda(0)


def test_a_missing_driver_is_said_in_plain_words():
    if find_gpus().gpus:
        pytest.skip("a GPU is here")
    if cuda_library() != PythonCuda.library:
        pytest.skip("cuda-python is not installed")
    with pytest.raises(EnvironmentMissingError, match=r"cuda-python cannot open GPU 0: .*driver"):
        open_cuda(0)


@pytest.mark.gpu
def test_a_round_trip_over_a_real_gpu_from_two_threads():
    if not find_gpus().gpus or not cuda_library():
        pytest.skip(f"{find_gpus().description}; {cuda_library() or 'no CUDA binding'}")
    buffers = CudaBuffers(open_cuda(0), {"frames": ((4, 1000), "uint8")})
    frames = np.random.default_rng(0).integers(0, 256, (3, 1000)).astype(np.uint8)
    buffers.upload("frames", frames)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(buffers.download("frames", 3)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(answers[0], frames)
    buffers.execute(lambda _stream: None)
    assert buffers.elapsed_ns() >= 0
    buffers.close()
