"""Reader of JSON values into typed dataclasses: a value of another type than its field has is refused."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .errors import UsageError

T = TypeVar("T")
_PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}
_SHOWN_CHARACTERS = 60
#: Key in the metadata of a dataclass's field that no file holds.
IN_MEMORY = "in memory"
#: Key in the metadata of a field that a file must hold, though it has a default in memory.
IN_FILE = "in file"
#: Field whose default distinguishes the dataclasses of a union; one of them may lack it, as its file then does.
_TAG = "kind"


def read_as(kind: type[T], value: Any, *, where: str = "", refuses_unknown: bool = True) -> T:
    """Build a value from what JSON gave, and check everything in it against the type hints.

    Numbers stay what they were in the file: an ``int`` where a float is expected is no other number, and a digest
    over what was read shall be that over the file.

    Args:
        kind: a dataclass, or any hint made of dataclasses, plain types, tuple, dict, Literal, unions and Any.
        value: what ``json.loads`` gave.
        where: name of the field that it is, for errors; "" for the whole of a file.
        refuses_unknown: whether a field that the dataclass does not have is an error, at any depth; else it is left
            out, for files that carry no version and that a later release may have written.

    Raises:
        ValueError: something is missing, unknown, of another type, or no finite number, or the dataclass itself
            refused it. The message names the field by its path, what was seen and what is expected.
    """
    return cast(T, _Reader(refuses_unknown=refuses_unknown).read(kind, value, where))


class _Reader:
    """Reads one file; see ``read_as``."""

    def __init__(self, *, refuses_unknown: bool) -> None:
        self._refuses_unknown = refuses_unknown

    def read(self, hint: Any, value: Any, where: str) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Any:
            return value
        if origin in (Union, types.UnionType):
            return self._option(hint, value, where)
        if origin is tuple and isinstance(value, list):
            return self._items(hint, value, where)
        if origin is dict and isinstance(value, dict):
            return {key: self.read(arguments[1], item, _path(where, key)) for key, item in value.items()}
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            return self._fields(cast(Any, hint), value, where)
        if not _is_plain(hint, value):
            raise _wrong(hint, value, where)
        return value

    def _option(self, hint: Any, value: Any, where: str) -> Any:
        """Read the value as the one member of a union that it can be."""
        options = [option for option in get_args(hint) if option is not types.NoneType]
        if value is None and len(options) < len(get_args(hint)):
            return None
        if len(options) == 1:
            return self.read(options[0], value, where)
        tagged = {_tag_of(option): option for option in options if dataclasses.is_dataclass(option)}
        if tagged and isinstance(value, dict):
            tag = value.get(_TAG)
            if tag not in tagged:
                known = ", ".join(repr(name) for name in tagged if name)
                raise ValueError(f"{_path(where, _TAG)} is {tag!r}; expected {known}, or none")
            return self.read(tagged[tag], value, where)
        for option in options:
            if _is_plain(option, value):
                return value
        raise _wrong(hint, value, where)

    def _items(self, hint: Any, value: list[Any], where: str) -> tuple[Any, ...]:
        hints = get_args(hint)
        if hints[-1] is ...:
            hints = (hints[0],) * len(value)
        if len(hints) != len(value):
            raise _wrong(hint, value, where)
        return tuple(
            self.read(item, part, _path(where, index))
            for index, (item, part) in enumerate(zip(hints, value, strict=True))
        )

    def _fields(self, kind: Any, value: dict[str, Any], where: str) -> Any:
        hints = get_type_hints(kind)
        fields = {item.name: item for item in dataclasses.fields(kind) if IN_MEMORY not in item.metadata}
        for name in value if self._refuses_unknown else ():
            if name not in fields:
                raise ValueError(f"{_path(where, name)} is no field of this file; expected {', '.join(fields)}")
        for name, item in fields.items():
            has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
            if name not in value and (IN_FILE in item.metadata or not has_default):
                raise ValueError(f"{_path(where, name)} is missing; expected {_words(hints[name])}")
        read = {name: self.read(hints[name], value[name], _path(where, name)) for name in fields if name in value}
        try:
            return kind(**read)
        except (UsageError, ValueError) as error:
            raise ValueError(f"{where}: {error}" if where else str(error)) from None


def _tag_of(kind: Any) -> str | None:
    """The default of a dataclass's tag; None where it has no such field."""
    return next((str(item.default) for item in dataclasses.fields(kind) if item.name == _TAG), None)


def _is_plain(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return isinstance(value, str | int) and not isinstance(value, bool) and value in get_args(hint)
    # To Python a bool is an int.
    fits = isinstance(value, _PLAIN.get(hint, ())) and (hint is bool or not isinstance(value, bool))
    return fits and not (isinstance(value, float) and not math.isfinite(value))


def _path(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _wrong(hint: Any, value: Any, where: str) -> ValueError:
    text = repr(value)
    seen = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    is_endless = isinstance(value, float) and not math.isfinite(value)
    return ValueError(f"{where or 'the file'} is {seen}, expected {'a finite ' * is_endless}{_words(hint)}")


def _words(hint: Any) -> str:
    """A type hint for people, in JSON's words where Python's are others."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return "anything"
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(option) for option in arguments))
    if origin is tuple:
        is_any_length = arguments[-1] is ...
        return f"a list of {'' if is_any_length else f'{len(arguments)} '}{_words(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "an object"
    return "null" if hint is types.NoneType else getattr(hint, "__name__", str(hint))
