"""The original of an imported bundle as an engine, to be the reference on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, final

from ..bundle.store import ORIGINAL, Bundle
from ..core.errors import BundleError
from ..core.imported_model import ImportedModel
from ..core.spec import PRECISIONS, Frames
from ..core.strict import read_as
from ..core.threshold import ORIGINAL_ENGINE
from ..core.words import clause
from .base import AbstractEngine, Array
from .engine import Availability, EngineOptions
from .original import OriginalModel
from .ort import OrtCpuEngine
from .ort_session import CPU


@final
class OriginalEngine(AbstractEngine):
    """The model's own file of an imported bundle, as the reference on a data set; no engine that parts are judged by.

    It stands in no table of engines: ``eval.parity`` opens it where the bundle carries the file.
    """

    name: ClassVar[str] = ORIGINAL_ENGINE
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    takes_threads: ClassVar[bool] = False
    is_reference: ClassVar[bool] = True

    @classmethod
    def availability(cls) -> Availability:
        """Say whether ONNX Runtime is here."""
        return OrtCpuEngine.availability()

    def _open(self) -> None:
        self._original = OriginalModel(original_path(self._bundle), imported_model(self._bundle))

    def _upload(self, frames: Frames) -> None:
        self._frames = frames.copy()

    def _execute(self) -> None:
        self._answer = self._original(self._frames)

    def _download(self) -> tuple[Array, Array]:
        return self._answer.score, self._answer.anomaly_map

    def _describe(self) -> dict[str, Any]:
        return {
            "library": "onnxruntime",
            "library_version": self._original.version,
            "provider": CPU,
            "device": "CPU",
            "num_threads": "one per core (the library's default)",
            "arithmetic": "as written in the file",
        }


def has_original(bundle: Bundle) -> bool:
    """Whether a bundle was made of an imported model and carries its own file."""
    return bundle.manifest.is_of_file and _original_name(bundle) in bundle.manifest.files


def open_original(bundle: Bundle) -> OriginalEngine:
    """Open the original of an imported bundle.

    Raises:
        BundleError: the bundle carries none, or not what it takes.
        BadInputError: ONNX Runtime cannot open it.
        EnvironmentMissingError: ONNX Runtime is not installed.
    """
    if not has_original(bundle):
        raise BundleError(
            f"{bundle.path} carries no original: it was not imported, or with --no-reference. Name an engine as the "
            "reference, or import the model again."
        )
    return OriginalEngine(bundle, options=EngineOptions())


def original_path(bundle: Bundle) -> Path:
    """Path of the model's own file."""
    return bundle.path / _original_name(bundle)


def imported_model(bundle: Bundle) -> ImportedModel:
    """What the imported model of a bundle takes and gives.

    Raises:
        BundleError: the manifest does not say so.
    """
    try:
        return read_as(ImportedModel, bundle.manifest.detector.parameters)
    except ValueError as error:
        raise BundleError(
            f"{bundle.path}: the manifest does not say what its original takes ({clause(error)}). Import it again."
        ) from None


def _original_name(bundle: Bundle) -> str:
    imported = bundle.manifest.imported
    return f"{ORIGINAL}/{imported.file if imported else ''}"
