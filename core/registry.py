"""Lazy tables: a name maps to ``"module:attribute"``, so that a table is no import."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from .errors import UsageError


def resolve(table: Mapping[str, str], name: str, *, kind: str) -> Any:
    """Import and return what ``table`` names.

    Args:
        table: name to ``"package.module:attribute"``, the module absolute.
        name: name of the requested entry.
        kind: what the entries are, for the error text (``"engine"``, ``"detector"``).

    Returns:
        The attribute, usually a class.

    Raises:
        UsageError: the table has no such name.
        ImportError: the module needs a package that is not installed.
    """
    check_name(table, name, kind=kind)
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def check_name(table: Mapping[str, str], name: str, *, kind: str) -> None:
    """Raise UsageError unless ``table`` has this name; nothing is imported."""
    if name not in table:
        near = get_close_matches(name, table, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"There is no {kind} {name!r}. Known: {', '.join(sorted(table))}.{hint}")
