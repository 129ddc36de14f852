"""What is kept of each frame that an engine and the reference both judged, and what the frames together say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from ...bundle.record import ParityState
from .report import FrameVerdict, Margin


@final
@dataclass(frozen=True, kw_only=True)
class FrameComparison:
    """Both sides' numbers on one frame.

    Attributes:
        file: the image.
        origin: ``"golden"`` or ``"data"``.
        reference_score: float32 value; may be no finite number.
        engine_score: the same of the engine.
        map_error: largest |engine − reference| of the maps; NaN where a map holds a value that is not finite.
        map_is_finite: reference, engine: whether every pixel is a finite number.
        label: 0 good, 1 defective; None where it is not known.
    """

    file: str
    origin: str
    reference_score: float
    engine_score: float
    map_error: float
    map_is_finite: tuple[bool, bool]
    label: int | None = None

    @property
    def reference_is_finite(self) -> bool:
        """Whether score and map of the reference are numbers."""
        return bool(np.isfinite(self.reference_score)) and self.map_is_finite[0]

    @property
    def engine_is_finite(self) -> bool:
        """Whether score and map of the engine are numbers."""
        return bool(np.isfinite(self.engine_score)) and self.map_is_finite[1]


@final
@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the frames together say; the fields are those of ParityReport."""

    state: ParityState
    num_frames: int
    verdict_flips: tuple[FrameVerdict, ...]
    ties: tuple[FrameVerdict, ...]
    score_max_abs_error: float | None
    map_max_abs_error: float | None
    score_range: float | None
    map_range: float | None
    score_spread: float
    score_tolerance: float
    map_tolerance: float
    rank_correlation: float | None
    smallest_margin: Margin | None
    worst_frames: tuple[tuple[str, float], ...]
    failures: tuple[str, ...]
