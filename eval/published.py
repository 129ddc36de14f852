"""The paper's tables, with what was measured here beside what was published.

The figures lie in ``published.json``, with their sources and with footnotes on cells that are not what they seem.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, final

from ..core.errors import UsageError
from ..core.table import aligned
from ..data.counts import MVTEC_3D_AD, MVTEC_AD

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
#: Tables that hold an accuracy; table 3 is about speed and size.
ACCURACY_TABLES = ("1", "2", "5", "6")


def published() -> dict[str, Any]:
    """The data file as it is."""
    found: dict[str, Any] = json.loads((files(__package__) / "published.json").read_text())
    return found


@final
@dataclass(frozen=True)
class PaperTable:
    """One table: a published and a measured row per method.

    Attributes:
        title: what it shows, and where from.
        header: method, categories, averages.
        rows: cells as printed; ``"-"`` where there is no figure.
        values: per row the figures by column, in the table's unit; a column without a figure is absent.
        footnotes: what is odd about published cells.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[dict[str, float], ...]
    footnotes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [{"method": row[0], **value} for row, value in zip(self.rows, self.values, strict=True)]
        return {"title": self.title, "rows": rows, "footnotes": list(self.footnotes)}

    def text(self) -> str:
        """Columns for a terminal."""
        return "\n".join([self.title, aligned(self.header, self.rows), *self.footnotes])

    def markdown(self) -> str:
        """A table for a document."""
        lines = [self.header, tuple("---" if not i else "---:" for i in range(len(self.header))), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{self.title}\n\n{body}\n" + "".join(f"\n{note}\n" for note in self.footnotes)

    def csv(self) -> str:
        """Comma-separated values; a cell without a figure is empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([["" if cell == "-" else cell for cell in row] for row in self.rows])
        return stream.getvalue()


def paper_table(number: str, measured: Mapping[str, Mapping[str, float]]) -> PaperTable:
    """A table of the paper, with our figures below the published ones of the same method.

    Args:
        number: one of ACCURACY_TABLES.
        measured: per row name, such as ``"fastflow"`` or ``"fastflow fp16 on openvino"``, its figures by category,
            each 0 to 1. The first word is the method.

    Raises:
        UsageError: there is no such table.
    """
    found = published()
    if number not in ACCURACY_TABLES:
        raise UsageError(f"--table is {number!r}; expected {', '.join(ACCURACY_TABLES)}. Table 3: lineproof profile.")
    table = found["tables"][number]
    is_percent = table["unit"] == "percent"
    names = _categories(table)
    columns = (*names, *(("textures", "objects", "all") if number in "12" else ("all",)))
    rows, values = [], []
    for label, figures in _in_order(table["rows"], measured, names, scale=100.0 if is_percent else 1.0):
        cells = tuple(f"{figures[name]:.{1 if is_percent else 3}f}" if name in figures else "-" for name in columns)
        rows.append((label, *cells))
        values.append(figures)
    notes = tuple(_note(note, table["rows"]) for note in table["footnotes"])
    title = f"Table {number}: {table['title']}. {found['citation']}"
    return PaperTable(title, ("method", *columns), tuple(rows), tuple(values), notes)


def _note(note: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """A footnote with the cells that it is about."""
    about = note["applies_to"]
    methods = [rows[name]["name"] for name in about.get("methods", [])]
    whom = "All rows" if len(methods) == len(rows) else ", ".join(methods)
    cells = ", ".join([*about.get("categories", []), *about.get("averages", [])])
    return f"* {whom}{f' ({cells})' if cells else ''}: {note['text']}"


_SPEED_COLUMNS = (("fps", 1), ("time_ms", 2), ("extra_parameters_m", 2), ("constants_mb", 1), ("gflop", 2))


def speed_table(measured: Mapping[str, Mapping[str, float]]) -> PaperTable:
    """Table 3 of the paper, with our figures below the published ones of the same method.

    Args:
        measured: per row name, whose first word is the method: ``fps``, ``time_ms``, ``extra_parameters_m``, and what
            the paper does not give, ``constants_mb`` and ``gflop``.
    """
    found = published()
    table = found["tables"]["3"]
    left = dict(measured)
    ordered: list[tuple[str, Mapping[str, float]]] = []
    for method, row in table["rows"].items():
        ordered.append((f"{row['name']}, published", {k: row[k] for k, _ in _SPEED_COLUMNS if k in row}))
        ordered += [(f"{name}, measured", left.pop(name)) for name in measured if name.split()[0] == method]
    ordered += [(f"{name}, measured", values) for name, values in left.items()]
    header = ("method", "FPS", "time (ms)", "extra parameters (M)", "constants (MB)", "GFLOP per frame")
    rows = [
        (label, *(f"{values[key]:.{digits}f}" if key in values else "-" for key, digits in _SPEED_COLUMNS))
        for label, values in ordered
    ]
    notes = tuple(_note(note, table["rows"]) for note in table["footnotes"])
    title = f"Table 3: {table['title']}. {found['citation']}"
    return PaperTable(title, header, tuple(rows), tuple(dict(values) for _, values in ordered), notes)


def _categories(table: Mapping[str, Any]) -> list[str]:
    """The benchmark's categories: textures first, then by name."""
    names = MVTEC_AD if table["dataset"] == "mvtec-ad" else MVTEC_3D_AD
    return sorted(names, key=lambda name: (name not in TEXTURES, name))


def _in_order(
    rows: Mapping[str, Any], measured: Mapping[str, Mapping[str, float]], names: Sequence[str], *, scale: float
) -> list[tuple[str, dict[str, float]]]:
    """Published rows, each followed by the measured rows of its method; measured ones of other methods last."""
    left = {name: _with_averages(figures, names, scale) for name, figures in measured.items()}
    ordered: list[tuple[str, dict[str, float]]] = []
    for method, row in rows.items():
        ordered.append((f"{row['name']}, published", {**row.get("categories", {}), **row.get("averages", {})}))
        own = [name for name in left if name.split()[0] == method]
        ordered += [(f"{name}, measured", left.pop(name)) for name in own]
    return [*ordered, *((f"{name}, measured", figures) for name, figures in left.items())]


def _with_averages(figures: Mapping[str, float], names: Sequence[str], scale: float) -> dict[str, float]:
    """Figures in the table's unit, with the averages of whichever groups are complete."""
    scaled = {name: scale * value for name, value in figures.items()}
    groups = {
        "textures": [name for name in names if name in TEXTURES],
        "objects": [name for name in names if name not in TEXTURES],
        "all": list(names),
    }
    means = {
        group: sum(scaled[name] for name in members) / len(members)
        for group, members in groups.items()
        if members and set(members) <= set(scaled)
    }
    return {**scaled, **means}
