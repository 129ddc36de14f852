"""TensorRT and TensorRT for RTX, two libraries of one API: what their builder and their engines share.

Imports neither: the module is handed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, final

from .extras import install


@final
@dataclass(frozen=True, kw_only=True)
class TensorRtLibrary:
    """One of the two libraries, and the engine that it gives.

    Attributes:
        engine: name of the engine that runs its plans.
        module: Python module.
        title: name of the library for people.
        fix: command that installs the library.
        builds_ahead: whether it builds plans for named GPUs on a machine without one.
    """

    engine: str
    module: str
    title: str
    fix: str
    builds_ahead: bool


TENSORRT = TensorRtLibrary(
    engine="trt",
    module="tensorrt",
    title="TensorRT",
    fix=f"{install('trt')} --extra-index-url https://pypi.nvidia.com",
    builds_ahead=False,
)
TENSORRT_RTX = TensorRtLibrary(
    engine="trt-rtx",
    module="tensorrt_rtx",
    title="TensorRT for RTX",
    fix=install("rtx"),
    builds_ahead=True,
)
TENSORRT_LIBRARIES = (TENSORRT, TENSORRT_RTX)


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


@cache
def tensorrt_logger(trt: Any) -> tuple[Any, ErrorLog]:
    """The logger of a TensorRT module and where its errors go.

    One per module and process, which is kept: the library registers the first logger that it gets for as long as
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
