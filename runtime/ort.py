"""Engines of ONNX Runtime: on the CPU, on CUDA, and through its TensorRT provider."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, final

import numpy as np

from ..core.errors import EnvironmentMissingError
from ..core.spec import PRECISIONS
from ..host.extras import install
from ..host.nvidia import find_gpus
from .base import AbstractEngine, Array
from .cuda.bindings import cuda_library, open_cuda
from .cuda.buffers import CudaBuffers
from .engine import Availability, Frames
from .ort_session import (
    CPU,
    CUDA,
    TENSORRT,
    Provider,
    failures,
    import_onnxruntime,
    nodes_per_provider,
    open_session,
)

_GPU_FIX = f"{install('gpu')} (uninstall onnxruntime first: one module, never both)"


class AbstractOrtEngine(AbstractEngine):
    """An ONNX Runtime session fed from host memory."""

    precisions: ClassVar[tuple[str, ...]] = PRECISIONS

    def _open(self) -> None:
        self._ort = import_onnxruntime()
        self._failures = failures(self._ort)
        self._open_session(self._providers())

    def _open_session(self, providers: list[Provider]) -> None:
        self._session = open_session(self._ort, self._bundle, providers, self._options)
        self._resources.callback(self._release)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._check_interface((port.name for port in inputs), (port.name for port in outputs))
        manifest = self._bundle.manifest
        self._input = manifest.inputs[0]
        self._names = [spec.name for spec in manifest.outputs]
        self._frames = np.zeros((manifest.max_batch, *(int(size) for size in self._input.shape[1:])), self._input.dtype)
        self._results: list[Array] = []

    @abstractmethod
    def _providers(self) -> list[Provider]:
        """Providers in the order of preference, with their options."""

    def _upload(self, frames: Frames) -> None:
        self._frames[: len(frames)] = frames

    def _execute(self) -> None:
        try:
            self._results = self._session.run(self._names, {self._input.name: self._frames[: self._num_frames]})
        except self._failures as error:
            raise self._failed("run", error) from error

    def _download(self) -> tuple[Array, Array]:
        score, anomaly_map = (np.array(result) for result in self._results)
        return score, anomaly_map

    def _describe(self) -> dict[str, Any]:
        return {
            "library": "onnxruntime",
            "library_version": self._ort.__version__,
            "provider": self._session.get_providers()[0],
            "device": "CPU",
            "num_threads": self._options.num_threads or "one per core (the library's default)",
            "arithmetic": "as written in the graph",
        }

    def _release(self) -> None:
        del self._session


@final
class OrtCpuEngine(AbstractOrtEngine):
    """ONNX Runtime on the CPU. An fp16 graph runs too: where a kernel is missing, casts to fp32 are put around it."""

    name: ClassVar[str] = "ort-cpu"
    preference: ClassVar[int] = 10

    @classmethod
    def availability(cls) -> Availability:
        """Say whether onnxruntime (or onnxruntime-gpu, the same module) can be imported."""
        looked_for = "the package onnxruntime (or onnxruntime-gpu: one module, never both)"
        try:
            ort = import_onnxruntime()
        except EnvironmentMissingError as error:
            return Availability(
                name=cls.name, is_available=False, looked_for=looked_for, found=str(error), fix=install("cpu")
            )
        return Availability(
            name=cls.name, is_available=True, looked_for=looked_for, found=f"onnxruntime {ort.__version__}", fix=""
        )

    def _providers(self) -> list[Provider]:
        return [(CPU, {})]


class AbstractOrtGpuEngine(AbstractOrtEngine):
    """An ONNX Runtime session on a GPU, bound to device buffers of this engine: no hidden copy, one stream.

    Where the caller accepts a fallback and the GPU cannot be used, it runs from host memory like the CPU engine,
    and ``describe`` says which provider computes.
    """

    uses_gpu: ClassVar[bool] = True

    wanted_provider: ClassVar[str]
    arithmetic: ClassVar[str]

    @classmethod
    def availability(cls) -> Availability:
        """Say whether onnxruntime-gpu, CUDA's Python bindings and a GPU are here; a session may still be refused."""
        looked_for = f"onnxruntime-gpu with {cls.wanted_provider}, pycuda or cuda-python, an NVIDIA GPU"
        try:
            ort = import_onnxruntime()
        except EnvironmentMissingError as error:
            return Availability(
                name=cls.name, is_available=False, looked_for=looked_for, found=str(error), fix=_GPU_FIX
            )
        search, library, providers = find_gpus(), cuda_library(), ort.get_available_providers()
        here = (library or "no CUDA binding", search.description)
        versions = f"onnxruntime {ort.__version__} with {', '.join(providers)}; {'; '.join(here)}"
        fix = ""
        if cls.wanted_provider not in providers:
            fix = _GPU_FIX
        elif not search.gpus:
            fix = "install the NVIDIA driver, or run on a machine with an NVIDIA GPU (check `nvidia-smi`)"
        elif not library:
            fix = "pip install cuda-python"
        return Availability(name=cls.name, is_available=not fix, looked_for=looked_for, found=versions, fix=fix)

    def _open_session(self, providers: list[Provider]) -> None:
        self._buffers: CudaBuffers | None = None
        try:
            self._buffers = self._open_buffers()
        except EnvironmentMissingError:
            if not self._options.allow_fallback:
                raise
        stream = {"user_compute_stream": str(self._buffers.stream)} if self._buffers else {}
        on_gpu = [(name, {**settings, **stream}) for name, settings in providers]
        super()._open_session([*on_gpu, (CPU, {})])
        if self.wanted_provider not in self._session.get_providers():
            self._buffers = None
        self._binding = self._session.io_binding()

    def _open_buffers(self) -> CudaBuffers:
        manifest = self._bundle.manifest
        shapes = {
            spec.name: (
                tuple(manifest.max_batch if isinstance(size, str) else size for size in spec.shape),
                spec.dtype,
            )
            for spec in (*manifest.inputs, *manifest.outputs)
        }
        buffers = CudaBuffers(open_cuda(self._options.device), shapes)
        self._resources.callback(buffers.close)
        return buffers

    def _upload(self, frames: Frames) -> None:
        if self._buffers is None:
            super()._upload(frames)
            return
        self._buffers.upload(self._input.name, frames)
        self._bind(self._buffers, len(frames))

    def _bind(self, buffers: CudaBuffers, num_frames: int) -> None:
        manifest, device = self._bundle.manifest, self._options.device
        for specs, bind in (
            (manifest.inputs, self._binding.bind_input),
            (manifest.outputs, self._binding.bind_output),
        ):
            for spec in specs:
                shape = [num_frames if isinstance(size, str) else size for size in spec.shape]
                bind(spec.name, "cuda", device, np.dtype(spec.dtype).type, shape, buffers.address(spec.name))

    def _execute(self) -> None:
        if self._buffers is None:
            super()._execute()
            return
        try:
            self._buffers.execute(lambda _stream: self._session.run_with_iobinding(self._binding))
        except self._failures as error:
            raise self._failed("run", error) from error

    def _download(self) -> tuple[Array, Array]:
        if self._buffers is None:
            return super()._download()
        score, anomaly_map = (self._buffers.download(name, self._num_frames) for name in self._names)
        return score, anomaly_map

    def device_time_ns(self) -> int | None:
        """Time of the last ``execute`` in ns between two CUDA events around it; None after a fallback."""
        return self._buffers.elapsed_ns() if self._buffers else None

    def device_bytes(self) -> int | None:
        """Growth of the GPU's memory in use since the engine was opened, in bytes; None after a fallback."""
        return self._buffers.used_bytes() if self._buffers else None

    def _describe(self) -> dict[str, Any]:
        nodes = {name: len(operators) for name, operators in nodes_per_provider(self._session).items()}
        common = {**super()._describe(), "nodes_per_provider": nodes}
        if self._buffers is None:
            return common
        gpu = find_gpus().gpus[self._options.device]
        return {
            **common,
            "device": gpu.target,
            "device_uuid": gpu.uuid,
            "arithmetic": self.arithmetic,
            "cuda_library": self._buffers.library,
        }

    def _release(self) -> None:
        self._binding = None
        super()._release()


@final
class OrtCudaEngine(AbstractOrtGpuEngine):
    """ONNX Runtime on CUDA, without TF32."""

    name: ClassVar[str] = "ort-cuda"
    preference: ClassVar[int] = 30
    wanted_provider: ClassVar[str] = CUDA
    arithmetic: ClassVar[str] = "as written in the graph, TF32 off"

    def _providers(self) -> list[Provider]:
        return [(CUDA, {"device_id": str(self._options.device), "use_tf32": "0"})]


@final
class OrtTrtEngine(AbstractOrtGpuEngine):
    """ONNX Runtime's TensorRT provider; what TensorRT does not take runs on CUDA.

    The plan is built when the engine is opened and again at every opening: the provider's own cache would load
    plans whose hash no manifest knows.
    """

    name: ClassVar[str] = "ort-trt"
    wanted_provider: ClassVar[str] = TENSORRT
    arithmetic: ClassVar[str] = "as written in the graph; TensorRT may use TF32 for fp32, the provider has no switch"

    def _providers(self) -> list[Provider]:
        manifest, device = self._bundle.manifest, str(self._options.device)
        spec = manifest.inputs[0]
        sizes = "x".join(str(size) for size in spec.shape[1:])
        profile = {"min": 1, "opt": 1, "max": manifest.max_batch}
        settings = {f"trt_profile_{key}_shapes": f"{spec.name}:{batch}x{sizes}" for key, batch in profile.items()}
        return [
            (TENSORRT, {"device_id": device, "trt_engine_cache_enable": "0", **settings}),
            (CUDA, {"device_id": device, "use_tf32": "0"}),
        ]
