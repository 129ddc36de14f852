"""Changes of a bundle: held alone, read again, changed, replaced in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from ..core.errors import BundleError
from .atomic import write_atomic
from .manifest import Manifest

MANIFEST = "manifest.json"
PROOF = "proof.json"
PROFILE = "profile.json"


@final
class Transaction:
    """A bundle held alone: its manifest as it is on disk, and what may be done to it.

    Attributes:
        manifest: the manifest as it is on disk now.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self.manifest = manifest

    def write(self, manifest: Manifest) -> None:
        """Replace manifest.json in one step."""
        write_atomic(self._path / MANIFEST, manifest.to_json().encode())
        self.manifest = manifest

    def append_report(self, file: str, report: Mapping[str, Any]) -> None:
        """Append a report with its time to a JSON list in the bundle, in one step.

        Args:
            file: ``"proof.json"`` or ``"profile.json"``.
            report: JSON values of the report.

        Raises:
            BundleError: what stands there is no JSON list; it is left as it is.
        """
        append_json(self._path / file, {"time": now(), **report})


def append_json(path: Path, entry: dict[str, Any]) -> None:
    """Append an object to a file that holds a JSON list, in one step; without the file the list begins.

    Raises:
        BundleError: what stands there is no JSON list; it is left as it is.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise BundleError(f"{path} is no JSON list of reports, so nothing was appended to it. Move it away.")
    entries.append(entry)
    write_atomic(path, (json.dumps(entries, indent=2) + "\n").encode())


def now() -> str:
    """Time of day in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
