"""Reads a manifest: of this format version, or of an older one that is brought up to it."""

from __future__ import annotations

import json
from typing import Any

from ..core.errors import BundleError, UsageError
from ..core.inputs import parse_preprocessing
from ..core.spec import TensorSpec
from ..core.threshold import Threshold
from .checked import check_types, check_values
from .manifest import (
    FORMAT_VERSION,
    DetectorRecord,
    Figures,
    FileRecord,
    Manifest,
    PlanRecord,
    Tolerance,
    TrainingRecord,
)
from .record import HistoryEntry, ParityRecord, upgrade_from_1

#: Older versions that are read; they are written as the present one when the bundle next changes.
_UPGRADES = {1: upgrade_from_1}


def parse_manifest(text: str, *, where: str) -> Manifest:
    """Read a manifest; ``where`` names the bundle in errors.

    Raises:
        BundleError: not JSON, another format version, or a field that is missing, unknown or of another type.
    """
    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise BundleError(f"{where}: manifest.json is not JSON ({error}). Export the bundle again.") from None
    found = raw.get("format_version") if isinstance(raw, dict) else None
    is_known = isinstance(found, int) and (found == FORMAT_VERSION or found in _UPGRADES)
    if not is_known:
        raise BundleError(
            f"{where}: the manifest has format_version {found!r}; this release reads "
            f"{', '.join(map(str, [*_UPGRADES, FORMAT_VERSION]))}. Use the release of lineproof that wrote it, or "
            "export again."
        )
    try:
        return _sealed(raw) if found == FORMAT_VERSION else _upgraded(raw)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise BundleError(
            f"{where}: manifest.json does not follow bundle/FORMAT.md: {type(error).__name__}: {error}. "
            "Export the bundle again."
        ) from None


def _refuse_constant(name: str) -> float:
    """NaN and infinities, which JSON does not have and Python's reader takes all the same."""
    raise ValueError(f"it holds {name}, which is no number of JSON")


def _sealed(raw: dict[str, Any]) -> Manifest:
    """A manifest of this version, which knows whether it is as it was written."""
    return _build({name: value for name, value in raw.items() if name != "seal"}).checked_against(raw["seal"])


def _upgraded(raw: dict[str, Any]) -> Manifest:
    """A manifest of an older version; its history begins with the decision that it came with."""
    manifest = _build(_UPGRADES[raw["format_version"]](raw))
    return manifest.with_entry(
        "upgrade", time=manifest.created, reason=f"written as format version {raw['format_version']}, without a history"
    )


def _spec(raw: dict[str, Any]) -> TensorSpec:
    return TensorSpec(raw["name"], raw["dtype"], tuple(raw["shape"]))


def _build(raw: dict[str, Any]) -> Manifest:
    typed: dict[str, Any] = {
        "detector": DetectorRecord(**raw["detector"]),
        "inputs": tuple(_spec(item) for item in raw["inputs"]),
        "outputs": tuple(_spec(item) for item in raw["outputs"]),
        "preprocessing": parse_preprocessing(raw["preprocessing"]),
        "threshold": Threshold(**raw["threshold"]),
        "engine_thresholds": {name: Threshold(**item) for name, item in raw["engine_thresholds"].items()},
        "tolerances": {name: Tolerance(**item) for name, item in raw["tolerances"].items()},
        "training": TrainingRecord(**raw["training"]),
        "figures": Figures(**raw["figures"]),
        "files": {name: FileRecord(**item) for name, item in raw["files"].items()},
        "plans": tuple(PlanRecord(**item) for item in raw["plans"]),
        "parity": {engine: ParityRecord(**item) for engine, item in raw["parity"].items()},
        "history": tuple(HistoryEntry(**item) for item in raw["history"]),
    }
    if "is_as_written" in raw:
        raise TypeError("is_as_written is no field of the file")
    manifest = Manifest(**{**raw, **typed})
    check_types(manifest, Manifest, where="")
    check_values(manifest)
    return manifest
