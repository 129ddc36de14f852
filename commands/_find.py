"""What a short command means: the newest run, the newest bundle, the usual names."""

from __future__ import annotations

from pathlib import Path

from ..bundle.store import MANIFEST, Bundle, open_bundle
from ..core.errors import BadInputError, UsageError


def newest_bundle(root: Path | None = None) -> Path:
    """The newest ``*.bundle`` folder directly under ``root`` (default: here).

    Raises:
        BadInputError: there is none.
    """
    return all_bundles(root)[-1]


def all_bundles(root: Path | None = None) -> list[Path]:
    """The ``*.bundle`` folders directly under ``root`` (default: here), the newest last.

    Raises:
        BadInputError: there is none.
    """
    root = root or Path()
    found = sorted(root.glob(f"*.bundle/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BadInputError(
            f"There is no *.bundle in {root.resolve()}. Name one, or make one: lineproof export fastflow --sample"
        )
    return [path.parent for path in found]


def open_named(path: Path | None, *, precision: str | None = None) -> Bundle:
    """Open the bundle named, or the newest one here.

    Raises:
        BadInputError: none was named and there is none here.
        UsageError: its precision is not the one that was asked for.
    """
    bundle = open_bundle(path or newest_bundle())
    if precision not in (None, bundle.manifest.precision):
        raise UsageError(
            f"{bundle.path} is {bundle.manifest.precision}, not {precision}. The precision is written in the graph: "
            f"export it again with --precision {precision}."
        )
    return bundle
