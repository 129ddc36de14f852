"""An engine that computes nothing, so that its time is the time of the measuring harness itself."""

from typing import Any, ClassVar, final

import numpy as np

from ..core.spec import PRECISIONS
from .base import AbstractEngine, Array
from .engine import Availability, Frames


@final
class NullEngine(AbstractEngine):
    """Answers zeros of the right shapes. ``profile`` measures itself with it; ``verify`` must fail it."""

    name: ClassVar[str] = "null"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    takes_threads: ClassVar[bool] = False
    is_harness: ClassVar[bool] = True

    @classmethod
    def availability(cls) -> Availability:
        """Say that the engine can run; it can everywhere."""
        return Availability(name=cls.name, is_available=True, looked_for="nothing", found="nothing is needed", fix="")

    def _open(self) -> None:
        specs = self._bundle.manifest.outputs
        self._shapes = [tuple(size for size in spec.shape if not isinstance(size, str)) for spec in specs]

    def _upload(self, frames: Frames) -> None:
        """Leave the frames where they are."""

    def _execute(self) -> None:
        """Compute nothing."""

    def _download(self) -> tuple[Array, Array]:
        score, anomaly_map = (np.zeros((self._num_frames, *shape), np.float32) for shape in self._shapes)
        return score, anomaly_map

    def _describe(self) -> dict[str, Any]:
        return {"library": "none", "device": "none", "num_threads": 0, "arithmetic": "none"}
