"""The engine of OpenVINO, on the CPU."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, ClassVar, final

import numpy as np

from ..core.errors import EnvironmentMissingError
from ..core.spec import PRECISIONS
from ..host.extras import install
from .base import AbstractEngine, Array
from .engine import Availability, Frames

_FIX = install("openvino")
_HINTS = {"f32": "float32", "bf16": "bfloat16"}


def _openvino() -> Any:
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise EnvironmentMissingError(f"openvino cannot be imported ({error}). Install: {_FIX}.") from error
    return openvino


@cache
def _core(openvino: Any) -> Any:
    """The one core of an imported openvino, which is never given back.

    On a CPU with AMX the plugin gives the thread that loads it a larger stack for signal handlers, and unmaps it when
    the last core or model goes, in whatever thread. Loaded in one thread and unloaded in another, it would leave the
    first without a stack: the next signal that Python handles there, a Ctrl-C or a child that ended, kills the process.
    """
    return openvino.Core()


def openvino_core() -> Any:
    """OpenVINO's core.

    Raises:
        EnvironmentMissingError: openvino cannot be imported.
    """
    return _core(_openvino())


@final
class OpenVinoEngine(AbstractEngine):
    """OpenVINO's CPU plugin, tuned for latency.

    By default the plugin computes in bf16 on a CPU that can, which changes the scores. Here it computes in f32 unless
    ``compute_dtype`` is ``"bf16"``; a CPU without bf16 arithmetic then gets an error, where the plugin would silently
    take f32. The parts of a graph that are fp16 are computed in f32 as well: ``describe`` counts the nodes of the
    compiled model by the type that they really compute in.
    """

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    compute_dtypes: ClassVar[tuple[str, ...]] = ("f32", "bf16")
    preference: ClassVar[int] = 20

    @classmethod
    def availability(cls) -> Availability:
        """Say whether the package openvino can be imported and its CPU plugin loads."""
        looked_for = "the package openvino and its CPU plugin"
        try:
            openvino = _openvino()
            devices = _core(openvino).available_devices
        except (EnvironmentMissingError, RuntimeError) as error:
            return Availability(name=cls.name, is_available=False, looked_for=looked_for, found=str(error), fix=_FIX)
        versions = f"openvino {openvino.__version__} with {', '.join(devices) or 'no device'}"
        return Availability(
            name=cls.name,
            is_available="CPU" in devices,
            looked_for=looked_for,
            found=versions,
            fix="" if "CPU" in devices else _FIX,
        )

    def _open(self) -> None:
        openvino = _openvino()
        core = _core(openvino)
        self._version = str(openvino.__version__)
        self._cpu = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._refuse_missing_bf16(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        config = {
            "INFERENCE_PRECISION_HINT": self._options.compute_dtype,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._options.num_threads,
            # 8-bit activations for compressed weights would be arithmetic that nobody wrote into the graph.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        try:
            model = core.read_model(str(self._bundle.model_path))
            self._compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise self._failed("compile", error) from error
        self._check_hint()
        self._request = self._compiled.create_infer_request()
        self._bind(openvino)

    def _refuse_missing_bf16(self, capabilities: list[str]) -> None:
        if self._options.compute_dtype == "bf16" and "BF16" not in capabilities:
            raise EnvironmentMissingError(
                f"This CPU ({self._cpu}) has no bf16 arithmetic; OpenVINO reports {', '.join(capabilities)} and "
                "would compute in f32. Leave the compute type at f32, or use a CPU with AVX512_BF16 or AMX."
            )

    def _check_hint(self) -> None:
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        dtype = self._options.compute_dtype
        if hint not in (dtype, _HINTS[dtype]):
            raise EnvironmentMissingError(
                f"OpenVINO was asked to compute in {dtype} and compiled the model for {hint} on this CPU "
                f"({self._cpu}). Choose the compute type {hint}, or another engine."
            )

    def _bind(self, openvino: Any) -> None:
        names = {port: port.get_names() for port in (*self._compiled.inputs, *self._compiled.outputs)}
        manifest = self._bundle.manifest
        expected = {spec.name for spec in (*manifest.inputs, *manifest.outputs)}
        name_of = {port: next(iter(expected & labels), min(labels, default="?")) for port, labels in names.items()}
        self._check_interface(
            (name_of[port] for port in self._compiled.inputs), (name_of[port] for port in self._compiled.outputs)
        )
        by_name = {name: port for port, name in name_of.items()}
        self._ports = [by_name[spec.name] for spec in manifest.outputs]
        spec = manifest.inputs[0]
        self._frames = np.zeros((manifest.max_batch, *(int(size) for size in spec.shape[1:])), spec.dtype)
        self._tensor = openvino.Tensor
        self._resources.callback(self._release)

    def _upload(self, frames: Frames) -> None:
        self._frames[: len(frames)] = frames
        # A tensor over a slice of this engine's buffer: no second copy, and the caller may reuse the frames at once.
        self._request.set_input_tensor(self._tensor(self._frames[: len(frames)], shared_memory=True))

    def _execute(self) -> None:
        try:
            self._request.infer()
        except RuntimeError as error:
            raise self._failed("run", error) from error

    def _download(self) -> tuple[Array, Array]:
        score, anomaly_map = (np.array(self._request.get_tensor(port).data) for port in self._ports)
        return score, anomaly_map

    def _describe(self) -> dict[str, Any]:
        return {
            "library": "openvino",
            "library_version": self._version,
            "provider": "CPU",
            "device": self._cpu,
            "num_threads": int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            "arithmetic": self._options.compute_dtype,
            "nodes_per_dtype": self._nodes_per_dtype(),
        }

    def _nodes_per_dtype(self) -> dict[str, int]:
        """Number of nodes of the compiled model by the type they compute in, without inputs, outputs and constants."""
        counts: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) not in ("Input", "Output", "Const"):
                counts[info["runtimePrecision"].astype(str)] += 1
        return dict(counts)

    def _release(self) -> None:
        del self._request, self._compiled
