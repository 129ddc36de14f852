"""The engine of PyTorch: the detector as it was trained, the reference that every other engine is compared with.

This is the one file of this folder that imports torch and the detectors, and it does so only when an engine is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, ClassVar, final

import numpy as np

from ..bundle.store import REFERENCE
from ..core.errors import BundleError, EnvironmentMissingError
from ..core.spec import PRECISIONS
from ..core.threshold import REFERENCE_ENGINE
from ..host.extras import install
from .base import AbstractEngine, Array
from .engine import Availability, Frames

_FIX = install("train")


@final
class TorchEngine(AbstractEngine):
    """The detector in its training form, eager, fp32, on the CPU.

    It does not use a GPU, since the reference must be the same everywhere. Its weights are fp32 whatever the precision
    of the bundle's graph, so that it is the reference of every bundle.
    """

    name: ClassVar[str] = REFERENCE_ENGINE
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    is_reference: ClassVar[bool] = True

    @classmethod
    def availability(cls) -> Availability:
        """Say whether torch is installed, without importing it, which would take seconds."""
        looked_for = "the package torch (and the detectors' packages, timm and FrEIA)"
        if find_spec("torch") is None:
            return Availability(
                name=cls.name, is_available=False, looked_for=looked_for, found="torch is not installed", fix=_FIX
            )
        try:
            versions = f"torch {version('torch')}"
        except PackageNotFoundError:
            versions = "torch, without its version"
        return Availability(name=cls.name, is_available=True, looked_for=looked_for, found=versions, fix="")

    def _open(self) -> None:
        path = self._bundle.path / REFERENCE
        if REFERENCE not in self._bundle.manifest.files:
            raise BundleError(
                f"{self._bundle.path} holds no {REFERENCE}, so PyTorch has nothing to run. Export it with its "
                "reference, or compare with another engine."
            )
        try:
            import torch

            from ..detectors.training.checkpoint import load_reference
        except (ImportError, OSError) as error:
            raise EnvironmentMissingError(
                f"The PyTorch reference cannot be loaded ({error}). Install: {_FIX}."
            ) from error
        self._torch = torch
        manifest = self._bundle.manifest
        reference = load_reference(manifest.detector, manifest.preprocessing, weights=path, imported=manifest.imported)
        self._model = reference.eval()
        self._resources.callback(self._release)

    def _upload(self, frames: Frames) -> None:
        self._frames = self._torch.from_numpy(np.array(frames, order="C"))

    def _execute(self) -> None:
        with self._threads(), self._torch.inference_mode():
            score, anomaly_map = self._model(self._frames)
        self._outputs: tuple[Array, Array] = (score.numpy(), anomaly_map.numpy())

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Set PyTorch's number of threads, which holds for the whole process, and restore it after the block."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(self._options.num_threads or before)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)

    def _download(self) -> tuple[Array, Array]:
        score, anomaly_map = self._outputs
        return np.array(score), np.array(anomaly_map)

    def _describe(self) -> dict[str, Any]:
        return {
            "library": "torch",
            "library_version": str(self._torch.__version__),
            "provider": "eager",
            "device": "CPU",
            "num_threads": self._options.num_threads or self._torch.get_num_threads(),
            "arithmetic": "f32",
        }

    def _release(self) -> None:
        del self._model
