"""The list of detectors, and of the parameters and presets of one detector."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..core.docstrings import attributes
from ..core.registry import resolve
from ..core.size import value_text
from .presets import Preset
from .ranges import allowed_values, allowed_words
from .table import DETECTORS


@final
@dataclass(frozen=True)
class Listing:
    """A line about each detector, by name."""

    entries: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(self.entries)

    def summary_lines(self) -> tuple[str, ...]:
        """One line per name."""
        return tuple(f"{name:22} {text}" for name, text in self.entries.items())


@final
@dataclass(frozen=True, kw_only=True)
class DetectorListing:
    """The parameters of a detector with their defaults, and its presets.

    Attributes:
        parameters: default of each parameter.
        allowed: in words what a parameter may be, where not every value of its type will do.
        guesses: description of each parameter whose default no source settles.
        presets: presets by name.
    """

    parameters: dict[str, Any]
    allowed: dict[str, str]
    guesses: dict[str, str]
    presets: dict[str, Preset]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def summary_lines(self) -> tuple[str, ...]:
        """One line per parameter, and under each preset what it sets."""
        lines = []
        for name, value in self.parameters.items():
            notes = [self.allowed[name]] if name in self.allowed else []
            notes += ["a guess"] if name in self.guesses else []
            beside = f" ({'; '.join(notes)})" if notes else ""
            lines.append(f"{name:22} {value_text(value)}{beside}")
        for name, preset in self.presets.items():
            lines += ["", f"--preset {name}: {preset.source}"]
            lines += [f"    {_set_text(preset.settings)}"] if preset.settings else []
            lines += [f"    {category}: {_set_text(values)}" for category, values in preset.by_category.items()]
        return tuple(lines)


def _set_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value_text(value)}" for key, value in values.items())


def describe_detectors(detector: str | None) -> Listing | DetectorListing:
    """List every detector with one line about it, or the parameters and presets of one detector.

    The list of detectors is read from their source and needs no PyTorch; the parameters need it.

    Args:
        detector: name of a detector, or None for the list of all.

    Raises:
        UsageError: there is no such detector.
    """
    if detector is None:
        return Listing({name: _summary(target.partition(":")[0]) for name, target in sorted(DETECTORS.items())})
    chosen = resolve(DETECTORS, detector, kind="detector")
    defaults = {field.name: field.default for field in dataclasses.fields(chosen.config_class)}
    said = describe_parameters(chosen.config_class)
    guesses = {name: said[name] for name in defaults if "guess" in said[name]}
    allowed = {name: allowed_words(values) for name, values in allowed_values(chosen.config_class).items()}
    return DetectorListing(parameters=defaults, allowed=allowed, guesses=guesses, presets=chosen.presets())


def describe_parameters(config_class: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a configuration and of those that it extends say of each parameter.

    A configuration that describes a parameter again wins over those that it extends. The word "guess" in a description
    says that no source settles the default.
    """
    classes = [kind for kind in reversed(config_class.__mro__) if dataclasses.is_dataclass(kind)]
    return {name: text for kind in classes for name, text in attributes(kind).items()}


def _summary(module: str) -> str:
    """First line of a module's docstring, read from its source."""
    root = Path(__file__).resolve().parent.parent
    source = root.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
