"""Checks of a manifest's values: each lies in the range of its field, and they agree with each other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..core.spec import PRECISIONS

if TYPE_CHECKING:
    from .manifest import Manifest


def check_values(manifest: Manifest) -> None:
    """Check what the types do not say: ranges, and fields that must go together.

    Raises:
        ValueError: a value lies outside its range, or contradicts another one.
    """
    spec = manifest.preprocessing.frames
    tolerances = [value for item in manifest.tolerances.values() for value in dataclasses.astuple(item)]
    rules = {
        f"precision is {manifest.precision!r}, expected {', '.join(PRECISIONS)}": manifest.precision in PRECISIONS,
        f"tolerances hold none for {manifest.precision}": manifest.precision in manifest.tolerances,
        "a tolerance is negative": min(tolerances, default=0.0) >= 0.0,
        "score_spread or map_range is negative": min(manifest.score_spread, manifest.map_range) >= 0.0,
        f"max_batch is {manifest.max_batch}, expected 1 or more": manifest.max_batch >= 1,
        f"inputs are {manifest.inputs}, expected {spec} by the preprocessing": manifest.inputs == (spec,),
        "outputs are not score and anomaly_map": [item.name for item in manifest.outputs] == ["score", "anomaly_map"],
    }
    broken = [words for words, holds in rules.items() if not holds]
    if broken:
        raise ValueError("; ".join(broken))
