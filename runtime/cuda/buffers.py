"""Device memory of one engine, allocated once, with page-locked memory of the same size on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from .bindings import AbstractCuda, Bytes


@final
class CudaBuffers:
    """Named tensors for the largest batch, on the GPU and page-locked on the host, with one stream.

    Args:
        cuda: an open GPU, which is closed together with the buffers.
        shapes: shape at the largest batch (the batch comes first) and dtype of every tensor, by its name.

    Raises:
        LineproofError: CUDA failed; whatever was allocated before is freed.
    """

    def __init__(self, cuda: AbstractCuda, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        self._cuda = cuda
        self._shapes = dict(shapes)
        self._device: dict[str, int] = {}
        self._host: dict[str, Bytes] = {}
        self._elapsed_ns: int | None = None
        self._resources = ExitStack()
        with ExitStack() as undo, cuda.current():
            undo.callback(self.close)
            self._resources.callback(cuda.close)
            self._used_before_bytes = cuda.used_bytes()
            for name, (shape, dtype) in self._shapes.items():
                self._allocate(name, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            undo.pop_all()

    def _allocate(self, name: str, num_bytes: int) -> None:
        self._device[name] = self._cuda.allocate_device(num_bytes)
        self._resources.callback(self._cuda.free_device, self._device[name])
        self._host[name] = self._cuda.allocate_host(num_bytes)
        self._resources.callback(self._cuda.free_host, self._host[name])

    @property
    def library(self) -> str:
        """Name of the Python binding in use."""
        return self._cuda.library

    @property
    def stream(self) -> int:
        """CUDA handle of the stream that everything is queued on."""
        return self._cuda.stream

    def current(self) -> AbstractContextManager[None]:
        """Make this GPU the calling thread's inside a ``with`` block, while another library is called."""
        return self._cuda.current()

    def address(self, name: str) -> int:
        """Address of a tensor on the device; it never changes."""
        return self._device[name]

    def upload(self, name: str, array: NDArray[Any]) -> None:
        """Copy the first ``len(array)`` items of a tensor to the device, and wait."""
        memory = self._host[name][: array.nbytes]
        memory[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with self._cuda.current():
            self._cuda.copy_to_device(self._device[name], memory)
            self._cuda.synchronize()

    def download(self, name: str, num_items: int) -> NDArray[Any]:
        """Copy the first ``num_items`` items of a tensor into an array of its own."""
        shape, dtype = self._shapes[name]
        num_bytes = num_items * int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        memory = self._host[name][:num_bytes]
        with self._cuda.current():
            self._cuda.copy_to_host(memory, self._device[name])
            self._cuda.synchronize()
        return memory.view(dtype).reshape(num_items, *shape[1:]).copy()

    def execute(self, queue: Callable[[int], None]) -> None:
        """Call ``queue`` with the stream's handle between two CUDA events, and wait until the stream is empty."""
        self._elapsed_ns = None
        with self._cuda.current():
            self._cuda.record(0)
            queue(self._cuda.stream)
            self._cuda.record(1)
            self._cuda.synchronize()
            self._elapsed_ns = self._cuda.elapsed_ns()

    def elapsed_ns(self) -> int | None:
        """Time of the last ``execute`` in ns between the two CUDA events; None before the first one."""
        return self._elapsed_ns

    def used_bytes(self) -> int:
        """Growth of the GPU's memory in use since before the first buffer was allocated, in bytes."""
        with self._cuda.current():
            return max(0, self._cuda.used_bytes() - self._used_before_bytes)

    def close(self) -> None:
        """Free everything; a second close does nothing."""
        with self._cuda.current():
            self._resources.close()
