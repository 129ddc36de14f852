"""Reader of manifests: of this format version, or of an older one that is brought up to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..core.errors import BundleError
from ..core.strict import read_as
from ..core.words import clause
from .checked import check_values
from .manifest import FORMAT_VERSION, Manifest
from .record import upgrade_from_1

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
    version = raw.get("format_version") if isinstance(raw, dict) else None
    is_known = isinstance(version, int) and (version == FORMAT_VERSION or version in _UPGRADES)
    if not is_known:
        raise BundleError(
            f"{where}: the manifest has format_version {version!r}; this release reads "
            f"{', '.join(map(str, [*_UPGRADES, FORMAT_VERSION]))}. Use the release of lineproof that wrote it, or "
            "export again."
        )
    try:
        return _sealed(raw) if version == FORMAT_VERSION else _upgraded(raw)
    except ValueError as error:
        raise BundleError(
            f"{where}: manifest.json does not follow bundle/FORMAT.md: {clause(error)}. Export the bundle again."
        ) from None


def _refuse_constant(name: str) -> float:
    """Refuse NaN and infinity, which JSON does not have but Python's reader accepts."""
    raise ValueError(f"it holds {name}, which is no number of JSON")


def _sealed(raw: dict[str, Any]) -> Manifest:
    """A manifest of this version, whose ``is_as_written`` says whether its seal fits."""
    fields = {name: value for name, value in raw.items() if name != "seal"}
    return _build(fields).checked_against(read_as(_Seal, raw, refuses_unknown=False).seal)


@dataclass(frozen=True)
class _Seal:
    """What a manifest of this version holds besides the fields of ``Manifest``."""

    seal: str


def _upgraded(raw: dict[str, Any]) -> Manifest:
    """A manifest of an older version; its history begins with the decision that it came with."""
    manifest = _build(_UPGRADES[raw["format_version"]](raw))
    return manifest.with_entry(
        "upgrade", time=manifest.created, reason=f"written as format version {raw['format_version']}, without a history"
    )


def _build(raw: dict[str, Any]) -> Manifest:
    manifest = read_as(Manifest, raw)
    check_values(manifest)
    return manifest
