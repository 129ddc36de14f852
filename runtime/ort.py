"""ONNX Runtime: on the CPU, on CUDA, and through its TensorRT provider."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, final

import numpy as np

from ..core.errors import EnvironmentMissingError
from .base import AbstractEngine, Array
from .engine import Availability, Frames
from .ort_session import CPU, Provider, failures, import_onnxruntime, open_session


class AbstractOrtEngine(AbstractEngine):
    """An ONNX Runtime session fed from host memory."""

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
        self._frames = np.zeros((manifest.max_batch, *(int(size) for size in self._input.shape[1:])), np.uint8)
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

    @classmethod
    def availability(cls) -> Availability:
        """Available where onnxruntime (or onnxruntime-gpu, the same module) can be imported."""
        wanted = "the package onnxruntime (or onnxruntime-gpu: one module, never both)"
        try:
            ort = import_onnxruntime()
        except EnvironmentMissingError as error:
            return Availability(cls.name, False, wanted, str(error), "pip install 'lineproof[cpu]'")
        return Availability(cls.name, True, wanted, f"onnxruntime {ort.__version__}", "")

    def _providers(self) -> list[Provider]:
        return [(CPU, {})]
