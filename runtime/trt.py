"""Engines of TensorRT (10.x, 11.x) and TensorRT for RTX (1.x): two modules with one API, run by the same code."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, final

from ..core.errors import BundleError, EnvironmentMissingError
from ..core.spec import PRECISIONS
from ..host.nvidia import Gpu, find_gpus
from ..host.tensorrt import TENSORRT, TENSORRT_RTX, TensorRtLibrary, tensorrt_logger
from .base import AbstractEngine, Array
from .cuda.bindings import cuda_library, open_cuda
from .cuda.buffers import CudaBuffers
from .engine import Availability, Frames
from .plans import plan_key, read_plan, select_plan

_NO_GPU = "install the NVIDIA driver, or run on a machine with an NVIDIA GPU (check `nvidia-smi`)"


class AbstractTensorRtEngine(AbstractEngine):
    """A plan of the bundle on this GPU. ``lineproof export BUNDLE --engine …`` builds plans; nothing is built here."""

    library: ClassVar[TensorRtLibrary]
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    uses_gpu: ClassVar[bool] = True
    takes_threads: ClassVar[bool] = False
    needs_plan: ClassVar[bool] = True

    @classmethod
    def availability(cls) -> Availability:
        """Say whether the library, CUDA's Python bindings and a GPU that the library serves are here."""
        library = cls.library
        looked_for = f"{library.title} (module {library.module}), pycuda or cuda-python, an NVIDIA GPU"
        try:
            trt = import_module(library.module)
        except (ImportError, OSError) as error:
            return Availability(
                name=cls.name,
                is_available=False,
                looked_for=looked_for,
                found=f"{error}; {find_gpus().description}",
                fix=library.fix,
            )
        search, binding = find_gpus(), cuda_library()
        versions = f"{library.module} {trt.__version__}; {binding or 'no CUDA binding'}; {search.description}"
        fix = ""
        if not search.gpus:
            fix = _NO_GPU
        elif not binding:
            fix = "pip install cuda-python"
        elif not any(cls._serves(trt, gpu) for gpu in search.gpus):
            fix = f"use a GPU that {library.title} serves, or another engine (`trt` or `ort-cuda` on this one)"
        return Availability(name=cls.name, is_available=not fix, looked_for=looked_for, found=versions, fix=fix)

    @classmethod
    def _serves(cls, trt: Any, gpu: Gpu) -> bool:
        """Whether the library has kernels for this GPU. TensorRT says so only when it loads a plan: True here."""
        del trt, gpu
        return True

    def _open(self) -> None:
        library = self.library
        try:
            self._trt = import_module(library.module)
        except (ImportError, OSError) as error:
            raise EnvironmentMissingError(f"{library.module} cannot be imported: {error}. {library.fix}") from error
        self._gpu = self._find_gpu()
        key = plan_key(self._bundle, engine=self.name, engine_version=self._trt.__version__, gpu=self._gpu)
        self._plan = select_plan(self._bundle, key)
        content = read_plan(self._bundle, self._plan)
        self._buffers = CudaBuffers(open_cuda(self._options.device), self._shapes())
        self._resources.callback(self._buffers.close)
        self._resources.callback(self._release)
        with self._buffers.current():
            self._load(content)

    def _find_gpu(self) -> Gpu:
        search, index = find_gpus(), self._options.device
        if index >= len(search.gpus):
            raise EnvironmentMissingError(
                f"Engine {self.name} was asked for GPU {index} (--device). Found: {search.description}. To fix: "
                f"{_NO_GPU}; or choose another GPU."
            )
        return search.gpus[index]

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        manifest = self._bundle.manifest
        return {
            spec.name: (tuple(manifest.max_batch if isinstance(n, str) else n for n in spec.shape), spec.dtype)
            for spec in (*manifest.inputs, *manifest.outputs)
        }

    def _load(self, content: bytes) -> None:
        logger, self._errors = tensorrt_logger(self._trt)
        self._errors.take()
        self._runtime = self._checked(self._trt.Runtime(logger), "start its runtime")
        self._engine = self._checked(self._runtime.deserialize_cuda_engine(content), "load the plan")
        self._context = self._checked(self._engine.create_execution_context(), "make an execution context")
        self._check_tensors()
        for name in self._shapes():
            if not self._context.set_tensor_address(name, self._buffers.address(name)):
                raise self._failed(f"bind {name} of", self._errors.take())
        self._batch = 0

    def _checked(self, handle: Any, action: str) -> Any:
        """Return a handle of this API, or raise: a call that fails gives None and logs the reason."""
        if handle is None:
            library = self.library
            raise EnvironmentMissingError(
                f"{library.title} {self._trt.__version__} could not {action} ({self._plan.file}, for "
                f"{self._gpu.target}). It said: {self._errors.take() or 'nothing'} "
                f"Build it again here: lineproof export {self._bundle.path} --engine {self.name}"
            )
        return handle

    def _check_tensors(self) -> None:
        engine, trt, manifest = self._engine, self._trt, self._bundle.manifest
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        self._check_interface(
            (name for name in names if modes[name] == trt.TensorIOMode.INPUT),
            (name for name in names if modes[name] == trt.TensorIOMode.OUTPUT),
        )
        kinds = {"uint8": trt.DataType.UINT8, "float32": trt.DataType.FLOAT}
        for spec in (*manifest.inputs, *manifest.outputs):
            if engine.get_tensor_dtype(spec.name) != kinds[spec.dtype]:
                raise BundleError(
                    f"{self._plan.file}: {spec.name} is {engine.get_tensor_dtype(spec.name)}, the manifest says "
                    f"{spec.dtype}. Build it again: lineproof export {self._bundle.path} --engine {self.name}"
                )

    def _upload(self, frames: Frames) -> None:
        self._buffers.upload(self._bundle.manifest.inputs[0].name, frames)
        if len(frames) != self._batch:
            with self._buffers.current():
                is_set = self._context.set_input_shape(self._bundle.manifest.inputs[0].name, frames.shape)
            if not is_set:
                raise self._failed(f"set the batch {len(frames)} of", self._errors.take())
            self._batch = len(frames)

    def _execute(self) -> None:
        self._buffers.execute(self._queue)

    def _queue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._failed("run", self._errors.take())

    def _download(self) -> tuple[Array, Array]:
        score, anomaly_map = (
            self._buffers.download(spec.name, self._num_frames) for spec in self._bundle.manifest.outputs
        )
        return score, anomaly_map

    def device_time_ns(self) -> int | None:
        """Time of the last ``execute`` in ns between two CUDA events around it."""
        return self._buffers.elapsed_ns()

    def device_bytes(self) -> int | None:
        """Growth of the GPU's memory in use since the engine was opened, in bytes."""
        return self._buffers.used_bytes()

    def _describe(self) -> dict[str, Any]:
        return {
            "library": self.library.module,
            "library_version": self._trt.__version__,
            "provider": self.library.title,
            "device": self._gpu.target,
            "device_uuid": self._gpu.uuid,
            "num_threads": 0,
            "arithmetic": "as written in the graph, TF32 off",
            "plan": self._plan.file,
            "layers_per_dtype": dict(self._plan.layers_per_dtype),
            "cuda_library": self._buffers.library,
        }

    def _release(self) -> None:
        """Drop the library's objects, innermost first, while the buffers they point to still exist."""
        with self._buffers.current():
            self._context = self._engine = self._runtime = None


@final
class TrtEngine(AbstractTensorRtEngine):
    """TensorRT; its plan is bound to this GPU, this version and this model."""

    library: ClassVar[TensorRtLibrary] = TENSORRT
    name: ClassVar[str] = TENSORRT.engine
    preference: ClassVar[int] = 50


@final
class TrtRtxEngine(AbstractTensorRtEngine):
    """TensorRT for RTX; its plan is bound to compute capabilities, and compiled fully when the first batch runs."""

    library: ClassVar[TensorRtLibrary] = TENSORRT_RTX
    name: ClassVar[str] = TENSORRT_RTX.engine
    builds_ahead: ClassVar[bool] = TENSORRT_RTX.builds_ahead
    preference: ClassVar[int] = 40

    @classmethod
    def _serves(cls, trt: Any, gpu: Gpu) -> bool:
        return gpu.sm.replace("sm_", "SM") in trt.ComputeCapability.__members__
