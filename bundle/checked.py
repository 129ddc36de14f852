"""Are the values of a manifest of the types and ranges that its fields promise? JSON itself promises nothing."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..core.spec import PRECISIONS

if TYPE_CHECKING:
    from .manifest import Manifest

_PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


def check_types(value: Any, expected: Any, *, where: str) -> None:
    """Check a value, and everything in it, against a type hint.

    Args:
        value: what was read.
        expected: a dataclass, a plain type, or a hint made of tuple, dict, Literal, unions and Any.
        where: name of the field, for the error.

    Raises:
        TypeError: it is of another type, or a number that is not finite.
    """
    if not _is_of(value, expected):
        raise TypeError(f"{where} is {value!r}, expected {getattr(expected, '__name__', None) or expected}")
    for name, item, hint in _parts(value, expected):
        check_types(item, hint, where=f"{where}.{name}" if where else name)


def _is_of(value: Any, expected: Any) -> bool:
    origin = get_origin(expected)
    if expected is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_is_of(value, option) for option in get_args(expected))
    if origin is Literal:
        return value in get_args(expected)
    if expected in _PLAIN:
        # To Python a bool is an int.
        is_plain = isinstance(value, _PLAIN[expected]) and (expected is bool or not isinstance(value, bool))
        return is_plain and not (isinstance(value, float) and not math.isfinite(value))
    return isinstance(value, origin or expected)


def _parts(value: Any, expected: Any) -> list[tuple[str, Any, Any]]:
    """Name, value and type hint of each part of a value."""
    arguments = get_args(expected)
    hints: Any
    if dataclasses.is_dataclass(value):
        hints = get_type_hints(type(value))
        return [(item.name, getattr(value, item.name), hints[item.name]) for item in dataclasses.fields(value)]
    if get_origin(expected) is dict:
        return [(str(key), item, arguments[1]) for key, item in value.items()]
    if get_origin(expected) is tuple:
        hints = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        return [(str(place), item, hint) for place, (item, hint) in enumerate(zip(value, hints, strict=True))]
    return []


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
