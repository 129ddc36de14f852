"""CUDA through pycuda or cuda-python: the few calls that an engine needs, in one class per binding."""

# ruff: noqa: D102 (AbstractCuda says what each method does)
from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnvironmentMissingError, LineproofError

Bytes = NDArray[np.uint8]


class AbstractCuda(ABC):
    """One GPU, one stream and two events. Every call but ``current`` happens inside ``with cuda.current():``."""

    library: ClassVar[str]

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make this GPU the calling thread's inside a ``with`` block, and turn CUDA's failures into LineproofError."""

    @property
    @abstractmethod
    def stream(self) -> int:
        """Handle of the one stream."""

    @abstractmethod
    def allocate_device(self, num_bytes: int) -> int:
        """Allocate device memory and return its address."""

    @abstractmethod
    def free_device(self, address: int) -> None:
        """Free device memory."""

    @abstractmethod
    def allocate_host(self, num_bytes: int) -> Bytes:
        """Allocate page-locked host memory: uint8 (num_bytes,)."""

    @abstractmethod
    def free_host(self, memory: Bytes) -> None:
        """Free page-locked host memory."""

    @abstractmethod
    def copy_to_device(self, address: int, memory: Bytes) -> None:
        """Queue a copy of host memory to the device."""

    @abstractmethod
    def copy_to_host(self, memory: Bytes, address: int) -> None:
        """Queue a copy of device memory to the host."""

    @abstractmethod
    def record(self, event: int) -> None:
        """Queue an event: 0 is the start, 1 the stop."""

    @abstractmethod
    def elapsed_ns(self) -> int:
        """Time between the start and the stop event in ns; both must have passed."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream is empty."""

    @abstractmethod
    def used_bytes(self) -> int:
        """Memory of the GPU that all processes together use, in bytes."""

    @abstractmethod
    def close(self) -> None:
        """Release the stream and the events."""


@final
class PythonCuda(AbstractCuda):
    """CUDA through cuda-python (module ``cuda.bindings``)."""

    library: ClassVar[str] = "cuda-python"

    def __init__(self, device: int) -> None:
        from cuda.bindings import runtime

        self._api = runtime
        self._device = device
        self._call(runtime.cudaSetDevice(device))
        self._stream = self._call(runtime.cudaStreamCreate())
        self._events = [self._call(runtime.cudaEventCreate()) for _ in range(2)]

    def _call(self, answer: tuple[Any, ...]) -> Any:
        if int(answer[0]):
            words = self._api.cudaGetErrorString(answer[0])[1].decode(errors="replace")
            raise LineproofError(f"CUDA failed on GPU {self._device}: {words} (error {int(answer[0])}).")
        return answer[1] if len(answer) == 2 else answer[1:]

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._api.cudaSetDevice(self._device))
        yield

    @property
    def stream(self) -> int:
        return int(self._stream)

    def allocate_device(self, num_bytes: int) -> int:
        return int(self._call(self._api.cudaMalloc(num_bytes)))

    def free_device(self, address: int) -> None:
        self._call(self._api.cudaFree(address))

    def allocate_host(self, num_bytes: int) -> Bytes:
        address = int(self._call(self._api.cudaHostAlloc(num_bytes, self._api.cudaHostAllocDefault)))
        return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))

    def free_host(self, memory: Bytes) -> None:
        self._call(self._api.cudaFreeHost(memory.ctypes.data))

    def copy_to_device(self, address: int, memory: Bytes) -> None:
        self._copy(address, memory.ctypes.data, memory.nbytes, self._api.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_to_host(self, memory: Bytes, address: int) -> None:
        self._copy(memory.ctypes.data, address, memory.nbytes, self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._call(self._api.cudaMemcpyAsync(target, source, num_bytes, kind, self._stream))

    def record(self, event: int) -> None:
        self._call(self._api.cudaEventRecord(self._events[event], self._stream))

    def elapsed_ns(self) -> int:
        elapsed_ms: float = self._call(self._api.cudaEventElapsedTime(*self._events))
        return round(elapsed_ms * 1e6)

    def synchronize(self) -> None:
        self._call(self._api.cudaStreamSynchronize(self._stream))

    def used_bytes(self) -> int:
        free, total = self._call(self._api.cudaMemGetInfo())
        return int(total - free)

    def close(self) -> None:
        for event in self._events:
            self._call(self._api.cudaEventDestroy(event))
        self._call(self._api.cudaStreamDestroy(self._stream))


@final
class PyCuda(AbstractCuda):
    """CUDA through pycuda, on the GPU's primary context, which the other libraries use as well."""

    library: ClassVar[str] = "pycuda"

    def __init__(self, device: int) -> None:
        import pycuda.driver

        self._api = pycuda.driver
        self._api.init()
        self._context = self._api.Device(device).retain_primary_context()
        self._blocks: dict[int, Any] = {}
        with self.current():
            self._stream = self._api.Stream()
            self._events = [self._api.Event() for _ in range(2)]

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        except self._api.Error as error:
            raise LineproofError(f"CUDA failed through pycuda: {error}.") from error
        finally:
            self._context.pop()

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def allocate_device(self, num_bytes: int) -> int:
        block = self._api.mem_alloc(num_bytes)
        self._blocks[int(block)] = block
        return int(block)

    def free_device(self, address: int) -> None:
        self._blocks.pop(address).free()

    def allocate_host(self, num_bytes: int) -> Bytes:
        memory: Bytes = self._api.pagelocked_empty(num_bytes, np.uint8)
        return memory

    def free_host(self, memory: Bytes) -> None:
        memory.base.free()  # type: ignore[union-attr]

    def copy_to_device(self, address: int, memory: Bytes) -> None:
        self._api.memcpy_htod_async(address, memory, self._stream)

    def copy_to_host(self, memory: Bytes, address: int) -> None:
        self._api.memcpy_dtoh_async(memory, address, self._stream)

    def record(self, event: int) -> None:
        self._events[event].record(self._stream)

    def elapsed_ns(self) -> int:
        elapsed_ms: float = self._events[1].time_since(self._events[0])
        return round(elapsed_ms * 1e6)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def used_bytes(self) -> int:
        free, total = self._api.mem_get_info()
        return int(total - free)

    def close(self) -> None:
        # pycuda frees a stream and an event when their last reference goes, and wants the context then.
        self._events.clear()
        del self._stream


def cuda_library() -> str:
    """Name of the binding that ``open_cuda`` uses: ``pycuda``, ``cuda-python``, or "" where none is installed."""
    if find_spec("pycuda"):
        return PyCuda.library
    return PythonCuda.library if find_spec("cuda") and find_spec("cuda.bindings") else ""


def open_cuda(device: int) -> AbstractCuda:
    """Open a GPU with pycuda where it is installed, else with cuda-python.

    Args:
        device: index of the GPU in CUDA's order.

    Raises:
        EnvironmentMissingError: no binding is installed, or the driver or the GPU is missing.
    """
    library = cuda_library()
    if not library:
        raise EnvironmentMissingError(
            "A GPU engine needs CUDA's Python bindings; looked for pycuda and cuda-python, found neither. "
            "Install: pip install cuda-python."
        )
    try:
        return PyCuda(device) if library == PyCuda.library else PythonCuda(device)
    except (ImportError, OSError, RuntimeError, LineproofError) as error:
        raise EnvironmentMissingError(
            f"{library} cannot open GPU {device}: {error} Check `nvidia-smi`, the driver, and --device."
        ) from error
