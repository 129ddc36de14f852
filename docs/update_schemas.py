"""Write the JSON Schemas of the manifest, a verdict and each report to bundle/schemas; ``--check`` compares only.

They are made from the types that the program writes and reads: a field that has another type has another schema. What
an attribute means is taken from the docstring of its class.
"""

import dataclasses
import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

SCHEMAS = Path(__file__).resolve().parents[1] / "bundle" / "schemas"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


class Writer:
    """Makes one schema; objects that occur in it stand in its ``$defs``, by the name of their class.

    Args:
        is_closed: whether an object with another property than the type has is invalid.
    """

    def __init__(self, *, is_closed: bool) -> None:
        self._is_closed = is_closed
        self.defs: dict[str, Any] = {}

    def of(self, hint: Any) -> dict[str, Any]:
        """The schema of a type hint."""
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Any:
            return {}
        if hint in _PLAIN:
            return {"type": _PLAIN[hint]}
        if origin in (Annotated, NotRequired):
            # Annotated: a dict that holds the fields of the dataclass named beside it.
            return self.of(arguments[-1])
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(option) for option in arguments]}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if origin is list or arguments[1:] == (...,):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is tuple:
            items = [self.of(item) for item in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return self._reference(hint)

    def _reference(self, kind: type[Any]) -> dict[str, Any]:
        """A reference to an object's schema, which is made where it is not there yet."""
        # Where a dataclass writes itself otherwise than field by field, its to_dict says how.
        written = get_type_hints(kind.to_dict).get("return") if hasattr(kind, "to_dict") else None
        kind = written if is_typeddict(written) else kind
        name = kind.__name__.removesuffix("Json").lstrip("_")
        if name not in self.defs:
            self.defs[name] = {}
            self.defs[name] = self.object(kind)
        return {"$ref": f"#/$defs/{name}"}

    def object(self, kind: type[Any], *, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """The schema of a TypedDict or a dataclass, with further fields that its to_dict adds."""
        from lineproof.core.docstrings import attributes

        described = attributes(kind)
        fields = [*fields_of(kind), *((name, hint, True) for name, hint in (extra or {}).items())]
        # A writer writes every field of a dataclass; a reader of a file takes the default of one that is not there.
        writes_all = not self._is_closed and not is_typeddict(kind)
        words = {name: {"description": described[name]} if name in described else {} for name, _, _ in fields}
        summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("``", "")
        return {
            "type": "object",
            "description": summary,
            "properties": {name: {**self.of(hint), **words[name]} for name, hint, _ in fields},
            "required": [name for name, _, is_required in fields if is_required or writes_all],
            **({"additionalProperties": False} if self._is_closed else {}),
        }


def fields_of(kind: type[Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name and type hint of each field that JSON holds, and whether it has no default."""
    from lineproof.core.strict import IN_MEMORY

    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        # With annotations as strings __required_keys__ holds all of them.
        yield from ((name, hint, get_origin(hint) is not NotRequired) for name, hint in hints.items())
        return
    for item in dataclasses.fields(kind):
        has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if IN_MEMORY not in item.metadata:
            yield item.name, hints[item.name], not has_default


def schemas() -> dict[str, dict[str, Any]]:
    """File name → schema."""
    from lineproof.bundle.manifest import Manifest
    from lineproof.core.imported_model import ImportedModel
    from lineproof.eval.calibrate import CalibrationJson
    from lineproof.eval.parity.report import ParityReport
    from lineproof.line.verdict_line import VerdictLine
    from lineproof.profiles.report_json import ProfileJson
    from lineproof.report.accuracy_table import TabulatedJson

    kinds: dict[str, tuple[type[Any], dict[str, Any]]] = {
        "manifest": (Manifest, {"seal": str}),
        "verdict": (VerdictLine, {}),
        "parity": (ParityReport, {"passed": bool, "tie_share": float}),
        "profile": (ProfileJson, {}),
        "evaluation": (TabulatedJson, {}),
        "calibration": (CalibrationJson, {}),
        "preprocessing": (ImportedModel, {}),
    }
    return {f"{name}.json": _schema(name, *kind) for name, kind in kinds.items()}


def _schema(name: str, kind: type[Any], extra: dict[str, Any]) -> dict[str, Any]:
    # Whoever reads a bundle, or a file that says how to import one, refuses fields that he does not know; reports may
    # get further ones in a later release.
    writer = Writer(is_closed=name in ("manifest", "preprocessing"))
    top = writer.object(kind, extra=extra)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"lineproof {name}"}
    return {**head, **top, "$defs": dict(sorted(writer.defs.items()))}


def main() -> int:
    """Write the schemas, or with --check name those that are out of date."""
    stale = []
    for name, schema in schemas().items():
        path, text = SCHEMAS / name, json.dumps(schema, indent=2) + "\n"
        if not path.is_file() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                SCHEMAS.mkdir(exist_ok=True)
                path.write_text(text)
    if "--check" in sys.argv and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python docs/update_schemas.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
