"""The list of detectors, and of the parameters of one detector."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.registry import resolve
from ..core.size import value_text
from .table import DETECTORS


@dataclass(frozen=True)
class Listing:
    """Values by name: a line about each detector, or the default of each parameter."""

    entries: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.entries

    def summary_lines(self) -> tuple[str, ...]:
        """One line per name."""
        return tuple(f"{name:22} {value_text(value)}" for name, value in self.entries.items())


def describe_detectors(detector: str | None) -> Listing:
    """List every detector with one line about it, or every parameter of one detector with its default.

    The list of detectors is read from their source and needs no PyTorch; the parameters need it.

    Args:
        detector: name of a detector, or None for the list of all.

    Raises:
        UsageError: there is no such detector.
    """
    if detector is None:
        return Listing({name: _summary(target.partition(":")[0]) for name, target in sorted(DETECTORS.items())})
    config_class = resolve(DETECTORS, detector, kind="detector").config_class
    return Listing({field.name: field.default for field in dataclasses.fields(config_class)})


def _summary(module: str) -> str:
    """First line of a module's docstring, read from its source."""
    root = Path(__file__).resolve().parent.parent
    source = root.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
