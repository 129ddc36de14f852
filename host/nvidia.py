"""NVIDIA GPUs as the driver sees them, and what the TensorRT builder and the TensorRT engines share.

Needs no CUDA package: the driver's own library is asked through ctypes.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

from .extras import install

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES = 256


@dataclass(frozen=True)
class TensorRtLibrary:
    """How one engine's TensorRT is called.

    Attributes:
        module: Python module.
        title: its name for people.
        fix: command that installs it.
    """

    module: str
    title: str
    fix: str


#: The two libraries of one API, by engine name.
TENSORRT_LIBRARIES = {
    "trt": TensorRtLibrary("tensorrt", "TensorRT", f"{install('trt')} --extra-index-url https://pypi.nvidia.com"),
    "trt-rtx": TensorRtLibrary("tensorrt_rtx", "TensorRT for RTX", install("rtx")),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU in CUDA's own order.

    Attributes:
        name: as the driver spells it.
        sm: compute capability, ``"sm_89"``.
    """

    name: str
    sm: str

    @property
    def target(self) -> str:
        """What a plan built here is built for."""
        return f"{self.name} {self.sm}"


@dataclass(frozen=True)
class GpuSearch:
    """GPUs found, and what was found in words."""

    gpus: tuple[Gpu, ...]
    found: str


def find_gpus() -> GpuSearch:
    """Ask the NVIDIA driver for its GPUs, in the order that device indices mean."""
    file = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(file)
    except OSError:
        return GpuSearch((), f"no NVIDIA driver ({file} cannot be loaded)")
    status = driver.cuInit(0)
    if status:
        return GpuSearch((), f"an NVIDIA driver without a usable GPU (cuInit returned {status})")
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(driver, index) for index in range(count.value))
    return GpuSearch(gpus, ", ".join(gpu.target for gpu in gpus) or "an NVIDIA driver that lists no GPU")


def _gpu(driver: Any, index: int) -> Gpu:
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, index)
    value = ctypes.c_int()
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        numbers.append(value.value)
    return Gpu(name.value.decode(errors="replace"), f"sm_{numbers[0]}{numbers[1]}")


@final
class ErrorLog:
    """The last errors that a TensorRT library logged."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)

    def add(self, text: str) -> None:
        """Note one error."""
        self._lines.append(" ".join(text.split()))

    def take(self) -> str:
        """The errors noted since the last call, oldest first, in one line."""
        text = " | ".join(self._lines)
        self._lines.clear()
        return text


@lru_cache(maxsize=2)
def tensorrt_logger(trt: Any) -> tuple[Any, ErrorLog]:
    """The logger of a TensorRT module and where its errors go.

    One per module and process, and kept: the library registers the first logger it is given for as long as
    any builder or runtime lives, and ignores others.

    Args:
        trt: the imported module, ``tensorrt`` or ``tensorrt_rtx``.
    """
    errors = ErrorLog()

    @final
    class CollectingLogger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.add(text)

    return CollectingLogger(), errors
