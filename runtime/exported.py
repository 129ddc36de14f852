"""ONNX files that other tools exported, run as they are: images in, all outputs by name.

They are no bundles: nothing about them is known but what the file declares. What is learned from running them is
evidence, never a verdict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError
from .native_log import caught_stderr
from .original import Outputs
from .ort_session import failures, import_onnxruntime, open_file
from .ov import openvino_core


class ExportedFile(Protocol):
    """A file that is open in an engine.

    Attributes:
        shape: declared shape of its one input; a size that is not fixed is None.
        arithmetic: type that the engine computes in, such as ``float32``.
    """

    shape: tuple[int | None, ...]
    arithmetic: str

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """All outputs by name for images float32 (N, 3, H, W).

        Raises:
            BadInputError: the engine cannot run the file on them.
        """
        ...


def _refuse_other_inputs(path: Path, num: int, shape: tuple[int | None, ...]) -> None:
    if num != 1 or len(shape) != 4:
        raise BadInputError(
            f"{path} has {num} inputs, the first of shape {shape}; expected one of images (N, 3, H, W). Give the file "
            "that the library's own export wrote."
        )


@final
class OrtFile:
    """A file in ONNX Runtime on the CPU; see ``ExportedFile``."""

    arithmetic = "float32"

    def __init__(self, path: Path) -> None:
        ort = import_onnxruntime()
        self._path, self._failures = path, failures(ort)
        self._session = open_file(path)
        inputs = self._session.get_inputs()
        self.shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
        _refuse_other_inputs(path, len(inputs), self.shape)
        self._input = inputs[0].name
        self._names = [item.name for item in self._session.get_outputs()]

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """All outputs by name; see ``ExportedFile``."""
        try:
            with caught_stderr():
                outputs = self._session.run(self._names, {self._input: images})
        except self._failures as error:
            raise BadInputError(f"{self._path} cannot be run on {images.shape} ({_first_line(error)}).") from None
        return dict(zip(self._names, outputs, strict=True))


@final
class OpenVinoFile:
    """A file in OpenVINO on the CPU; see ``ExportedFile``.

    Args:
        path: the file.
        compute_dtype: arithmetic that is asked for, ``"f32"``; None leaves it to OpenVINO, as the library does.
    """

    def __init__(self, path: Path, *, compute_dtype: str | None) -> None:
        core = openvino_core()
        self._path = path
        config = {"INFERENCE_PRECISION_HINT": compute_dtype} if compute_dtype else {}
        try:
            self._compiled = core.compile_model(core.read_model(str(path)), "CPU", config)
        except RuntimeError as error:
            raise BadInputError(f"{path} cannot be opened by OpenVINO ({_first_line(error)}).") from None
        self.shape = tuple(
            int(side.get_length()) if side.is_static else None for side in self._compiled.inputs[0].get_partial_shape()
        )
        _refuse_other_inputs(path, len(self._compiled.inputs), self.shape)
        self.arithmetic = str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """All outputs by name; see ``ExportedFile``."""
        try:
            outputs = self._compiled(images)
        except RuntimeError as error:
            raise BadInputError(f"{self._path} cannot be run on {images.shape} ({_first_line(error)}).") from None
        # An output has several names where nodes were merged; the one that the file declares is among them.
        return {name: np.array(values) for port, values in outputs.items() for name in port.get_names()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
