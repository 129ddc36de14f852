"""Judgement of an engine: the numbers of both sides on each frame, and the result over all frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from ...bundle.record import ParityState
from .report import FrameVerdict, Margin


@final
@dataclass(frozen=True, kw_only=True)
class FrameComparison:
    """Scores of the reference and the engine on one frame, and the error of the map.

    Attributes:
        file: name of the image.
        origin: ``"golden"`` or ``"data"``.
        reference_score: score of the reference, a float32 value; may be NaN or infinite.
        engine_score: score of the engine, a float32 value; may be NaN or infinite.
        map_error: largest |engine − reference| of the maps; NaN where a map holds a value that is not finite.
        map_is_finite: whether every pixel is finite, of the reference's map and of the engine's.
        label: 0 for good, 1 for defective; None where the label is not known.
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
        """Whether score and map of the reference are finite."""
        return bool(np.isfinite(self.reference_score)) and self.map_is_finite[0]

    @property
    def engine_is_finite(self) -> bool:
        """Whether score and map of the engine are finite."""
        return bool(np.isfinite(self.engine_score)) and self.map_is_finite[1]


@final
@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Result over all frames; ``ParityReport`` has the same fields and says what they mean."""

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
