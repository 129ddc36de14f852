"""The base class of all engines: it holds the order of calls, lets one thread in at a time and checks the outputs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..bundle.store import Bundle
from ..core.errors import BundleError, LineproofError, UsageError
from ..core.prediction import Prediction
from ..core.words import counted
from .engine import Availability, EngineOptions, Frames, check_batch

Array = NDArray[Any]


class AbstractEngine(ABC):
    """A bundle opened for inference. A subclass adds the library; this class keeps the promises of ``Engine``.

    A batch belongs to the thread that uploaded it: another thread can neither execute nor download it, and a
    thread that calls while another one's call is running is refused. ``Engine`` says what the class attributes mean;
    a subclass must give ``name`` and ``precisions``, and those of the others whose default is wrong for it.

    Args:
        bundle: bundle whose hashes were checked.
        options: choices of the caller.

    Raises:
        UsageError: the engine cannot honour one of the options.
        BundleError: the graph's inputs or outputs are not those that the manifest names.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    compute_dtypes: ClassVar[tuple[str, ...]] = ("f32",)
    uses_gpu: ClassVar[bool] = False
    takes_threads: ClassVar[bool] = True
    needs_plan: ClassVar[bool] = False
    builds_ahead: ClassVar[bool] = False
    is_reference: ClassVar[bool] = False
    is_harness: ClassVar[bool] = False
    preference: ClassVar[int] = 0

    def __init__(self, bundle: Bundle, *, options: EngineOptions) -> None:
        if options.compute_dtype not in self.compute_dtypes:
            raise UsageError(
                f"Engine {self.name} cannot compute in {options.compute_dtype!r}; it takes "
                f"{' or '.join(self.compute_dtypes)}. A lower precision is written into the graph: export again "
                "with --precision."
            )
        if options.device and not self.uses_gpu:
            raise UsageError(
                f"Engine {self.name} runs on the CPU and has no device {options.device}. Leave --device away, or "
                "name an engine that uses a GPU."
            )
        if options.num_threads and not self.takes_threads:
            raise UsageError(
                f"Engine {self.name} has no number of threads to choose; asked for "
                f"{counted(options.num_threads, 'thread')}. "
                "Leave --threads away, or name an engine that computes on the CPU."
            )
        self._bundle = bundle
        self._options = options
        self._resources = ExitStack()
        self._lock = threading.Lock()
        self._owner = 0
        self._num_frames = 0
        self._is_executed = False
        self._is_closed = False
        with ExitStack() as undo:
            undo.callback(self._resources.close)
            self._open()
            undo.pop_all()

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Say whether this engine can run here, without opening a model."""

    @abstractmethod
    def _open(self) -> None:
        """Load the model, and register on ``self._resources`` whatever ``close`` must release."""

    @abstractmethod
    def _upload(self, frames: Frames) -> None:
        """Copy checked frames to where ``_execute`` reads them."""

    @abstractmethod
    def _execute(self) -> None:
        """Compute ``self._num_frames`` frames and return when the outputs are complete."""

    @abstractmethod
    def _download(self) -> tuple[Array, Array]:
        """Return score (N,) and anomaly_map (N, h, w), both float32, in arrays that nothing else writes to."""

    @abstractmethod
    def _describe(self) -> dict[str, Any]:
        """Library, version, provider, device, number of threads and arithmetic, as JSON values."""

    def upload(self, frames: Frames) -> None:
        """Check frames against the bundle's input and copy them to the device.

        Args:
            frames: (N, H, W, C) of the dtype that the bundle takes, uint8 for images.

        Raises:
            BadInputError: the frames have another dtype, size or number of channels than the bundle takes.
            UsageError: there are more frames than the bundle takes or none, the engine is closed, or another
                thread's call is running.
        """
        with self._inside("upload"):
            check_batch(self._bundle, frames)
            self._num_frames, self._is_executed = 0, False
            self._upload(frames)
            self._num_frames, self._owner = len(frames), threading.get_ident()

    def execute(self) -> None:
        """Compute the uploaded batch, and return when the outputs are complete.

        Raises:
            UsageError: nothing was uploaded, another thread uploaded it, or the engine is closed.
            LineproofError: the library failed; the message quotes it.
        """
        with self._inside("execute"):
            self._require(is_ready=self._num_frames > 0, action="execute", before="upload")
            self._is_executed = False
            self._execute()
            self._is_executed = True

    def download(self) -> Prediction:
        """Copy the outputs of the last ``execute`` to the host, into arrays of their own.

        Returns:
            score (N,) and anomaly_map (N, h, w), both float32.

        Raises:
            UsageError: nothing was executed since the last upload, another thread uploaded the batch, or the engine
                is closed.
            BundleError: the outputs have another dtype or shape than the manifest says.
        """
        with self._inside("download"):
            self._require(is_ready=self._is_executed, action="download", before="execute")
            score, anomaly_map = self._download()
            for array, spec in zip((score, anomaly_map), self._bundle.manifest.outputs, strict=True):
                shape = tuple(self._num_frames if isinstance(size, str) else size for size in spec.shape)
                if array.shape != shape or array.dtype != np.dtype(spec.dtype):
                    raise BundleError(
                        f"Engine {self.name} gave {spec.name} as {array.dtype} {array.shape}; the manifest says "
                        f"{spec.dtype} {shape}. The graph and the manifest disagree: export the bundle again."
                    )
            return Prediction(score, anomaly_map)

    def device_time_ns(self) -> int | None:
        """Time of the last ``execute`` in ns by the device's own events; None where the device has none."""
        return None

    def device_bytes(self) -> int | None:
        """Device memory in bytes that went into use since this engine was opened; None for a CPU engine."""
        return None

    def describe(self) -> dict[str, Any]:
        """Describe the engine for a report: library, version, provider, threads, device and arithmetic as JSON values.

        Raises:
            UsageError: the engine is closed.
        """
        if self._is_closed:
            raise UsageError(f"Engine {self.name} is closed, so it cannot describe itself. Ask before closing.")
        return {"engine": self.name, "graph_precision": self._bundle.manifest.precision, **self._describe()}

    def close(self) -> None:
        """Release everything, after a call that is still running has ended; a second close does nothing."""
        with self._lock:
            self._is_closed = True
            self._resources.close()

    @contextmanager
    def _inside(self, action: str) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise UsageError(
                f"Two threads are in engine {self.name} at once ({action} was refused). Give each thread an engine "
                "of its own, or share one through lineproof.open_line, which lets them in one by one."
            )
        try:
            if self._is_closed:
                raise UsageError(f"Engine {self.name} is closed, so it cannot {action}. Open the bundle again.")
            yield
        finally:
            self._lock.release()

    def _require(self, *, is_ready: bool, action: str, before: str) -> None:
        if not is_ready:
            raise UsageError(f"Engine {self.name} was asked to {action} before {before}. Call {before} first.")
        if self._owner != threading.get_ident():
            raise UsageError(
                f"Engine {self.name} was asked to {action} a batch that another thread uploaded. Give each thread "
                "an engine of its own, or share one through lineproof.open_line."
            )

    def _check_interface(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        manifest = self._bundle.manifest
        for kind, seen, specs in (("inputs", inputs, manifest.inputs), ("outputs", outputs, manifest.outputs)):
            names, expected = sorted(seen), sorted(spec.name for spec in specs)
            if names != expected:
                raise BundleError(
                    f"{self._bundle.path}: the model has the {kind} {', '.join(names)}, the manifest names "
                    f"{', '.join(expected)}. Export the bundle again."
                )

    def _failed(self, action: str, words: object) -> LineproofError:
        return LineproofError(
            f"Engine {self.name} failed to {action} {self._bundle.path}: {' '.join(str(words).split())} "
            "Try another engine (`lineproof doctor` lists those that work here), or export again."
        )
