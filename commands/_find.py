"""Bundles that a command means without naming them: the newest one in the current folder, or all of them."""

from __future__ import annotations

from pathlib import Path

from ..bundle.store import MANIFEST, Bundle, open_bundle
from ..core.errors import BadInputError, UsageError


def newest_bundle(root: Path | None = None) -> Path:
    """The newest ``*.bundle`` folder directly below ``root``.

    Args:
        root: folder to search; None for the current one.

    Raises:
        BadInputError: there is none.
    """
    return all_bundles(root)[-1]


def all_bundles(root: Path | None = None) -> list[Path]:
    """The ``*.bundle`` folders directly below ``root``, the newest last.

    Args:
        root: folder to search; None for the current one.

    Raises:
        BadInputError: there is none.
    """
    root = root or Path()
    manifests = sorted(root.glob(f"*.bundle/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise BadInputError(
            f"There is no *.bundle in {root.resolve()}. Name one, or make one: lineproof export fastflow --sample"
        )
    return [path.parent for path in manifests]


def open_named(path: Path | None, *, precision: str | None = None) -> Bundle:
    """Open a bundle.

    Args:
        path: folder of the bundle; None for the newest one in the current folder.
        precision: precision that the bundle's graph must have, or None for any.

    Raises:
        BadInputError: no bundle was named and the current folder holds none.
        BundleError: the folder is not a bundle, or the bundle was altered.
        UsageError: the bundle has another precision.
    """
    bundle = open_bundle(path or newest_bundle())
    if precision not in (None, bundle.manifest.precision):
        raise UsageError(
            f"{bundle.path} is {bundle.manifest.precision}, not {precision}. The precision is written in the graph: "
            f"export it again with --precision {precision}."
        )
    return bundle


def open_bundles(path: Path | None, *, precision: str | None = None, takes_all: bool) -> list[Bundle]:
    """Open the bundle that was named, see ``open_named``; where none was, the newest one or all in the current folder.

    Args:
        path: folder of the bundle, or None.
        precision: precision that every graph must have, or None for any.
        takes_all: whether all bundles of the current folder are meant where none was named.
    """
    paths = all_bundles() if path is None and takes_all else [path]
    return [open_named(item, precision=precision) for item in paths]
