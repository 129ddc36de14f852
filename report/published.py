"""Tables of Zheng et al. 2022, "the paper": published figures with measured ones beside them.

The figures lie in ``published.json``. Per table: ``paper``, what Zheng et al. print, misprints included, null for a
dash; ``other``, what other sources say of the same cells where that differs; footnotes on cells that are not what they
seem.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from typing import Any, final

from ..core.errors import UsageError
from ..core.table import TERMINAL, aligned, wrapped
from ..data.counts import MVTEC_3D_AD, MVTEC_AD

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
#: The paper's tables of accuracy; its Table 3 is about speed and size, Table 4 about settings.
ACCURACY_TABLES = ("1", "2", "5", "6")
_LONGEST_LIST = 6


def published() -> dict[str, Any]:
    """Read ``published.json``."""
    content: dict[str, Any] = json.loads((files(__package__) / "published.json").read_text())
    return content


@final
@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of the paper: per method the published row, rows of other sources, and measured rows.

    Attributes:
        title: number and title of the table, and the citation of the paper.
        header: names of the columns: method, categories, averages.
        rows: cells as printed; ``"-"`` where there is no figure.
        values: per row the figures by column, in the table's unit; a column without a figure is absent.
        footnotes: remarks on published cells.
        hidden: columns that ``text`` leaves out, since their categories were not measured.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[dict[str, float], ...]
    footnotes: tuple[str, ...]
    hidden: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [{"method": row[0], **value} for row, value in zip(self.rows, self.values, strict=True)]
        return {"title": self.title, "rows": rows, "footnotes": list(self.footnotes)}

    def text(self) -> str:
        """Lines for a terminal, none longer than ``TERMINAL``; the other forms hold every column."""
        shown = [i for i, name in enumerate(self.header) if name not in self.hidden]
        header, *rows = ([row[i] for i in shown] for row in (self.header, *self.rows))
        left_out = f"Not measured, so not shown: {', '.join(self.hidden)}. --table-file and --json hold them."
        notes = [wrapped(line) for line in (*([left_out] if self.hidden else []), *self.footnotes)]
        return "\n".join([wrapped(self.title), aligned(header, rows, width=TERMINAL), *notes])

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
    """A table of the paper's accuracies, with measured figures below the published ones of the same method.

    Args:
        number: one of ACCURACY_TABLES.
        measured: figures, 0 to 1, by category, by the name of the row, such as ``"fastflow fp16 on openvino"``; the
            first word of the name is the method.

    Raises:
        UsageError: there is no such table.
    """
    content = published()
    if number not in ACCURACY_TABLES:
        raise UsageError(
            f"table (--table) is {number!r}; expected {', '.join(ACCURACY_TABLES)} of Zheng et al. 2022. "
            "Their Table 3: lineproof profile."
        )
    table = content["tables"][number]
    is_percent = table["unit"] == "percent"
    names = _categories(table)
    columns = (*names, *(("textures", "objects", "all") if number in "12" else ("all",)))
    ours = {name: _with_averages(row, names, 100.0 if is_percent else 1.0) for name, row in measured.items()}
    ordered = list(_in_order(table, ours, names))
    rows = [
        (label, *(_cell(figures.get(name), digits=1 if is_percent else 3) for name in columns))
        for label, figures in ordered
    ]
    categories = {name: None for figures in measured.values() for name in figures}
    others = [name or "a set without categories" for name in categories if name not in names]
    no_column = [f"* Measured on {', '.join(others)}, of which this table has no column."] if others else []
    return PaperTable(
        title=_title(number, content),
        header=("method", *columns),
        rows=tuple(rows),
        values=tuple(figures for _, figures in ordered),
        footnotes=(*no_column, *_notes(table), *(_settings(content["tables"]["4"], table) if number in "56" else ())),
        hidden=tuple(name for name in names if name not in categories) if categories.keys() & set(names) else (),
    )


def _cell(value: float | None, *, digits: int) -> str:
    """A figure in print, rounded half up; floating point would round 99.25 to even."""
    if value is None:
        return "-"
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _title(number: str, content: Mapping[str, Any]) -> str:
    return f"Table {number}: {content['tables'][number]['title']}. Published: {content['citation']}"


def _notes(table: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on published cells, and the citations of the other sources."""
    for note in table["footnotes"]:
        about = note["applies_to"]
        cells = ", ".join([*about.get("categories", []), *about.get("averages", [])])
        whom = _names(about["methods"], {method: row["name"] for method, row in table["paper"].items()})
        yield f"* {whom}{f' ({cells})' if cells else ''}: {note['text']}"
    sources = [item for items in table.get("other", {}).values() for item in items]
    for place in dict.fromkeys(item["listed_in"] for item in sources):
        cited = "; ".join(f"{item['source']}: {item['citation']}" for item in sources if item["listed_in"] == place)
        yield f"* Other sources, as listed in {place}; their averages are the means of their cells. {cited}."


def _names(methods: Sequence[str], names: Mapping[str, str]) -> str:
    """Rows in words: all, a list, or first to last where many stand below each other."""
    if len(methods) == len(names):
        return "All rows"
    order = list(names)
    start = order.index(methods[0])
    if len(methods) > _LONGEST_LIST and order[start : start + len(methods)] == list(methods):
        return f"{names[methods[0]]} to {names[methods[-1]]}"
    return ", ".join(names[method] for method in methods)


def _settings(table: Mapping[str, Any], shown: Mapping[str, Any]) -> Iterator[str]:
    """Table 4 as a footnote, for the methods of the table shown."""
    runs = [
        f"{row['name']} {row['backbone']}, {', '.join(map(str, row['input_sizes_px']))} px"
        for method, row in table["paper"].items()
        if method in shown["paper"]
    ]
    yield f"* Backbones and input sizes (Table 4): {'; '.join(runs)}."


_SPEED_COLUMNS = (("fps", 2), ("time_ms", 2), ("extra_parameters_m", 2), ("constants_mb", 1), ("gflop", 2))


def speed_table(measured: Mapping[str, Mapping[str, float]]) -> PaperTable:
    """Table 3 of the paper, with measured figures below the published ones of the same method.

    Args:
        measured: figures by the name of the row, whose first word is the method: ``fps``, ``time_ms`` and
            ``extra_parameters_m`` (millions) as in the paper, ``constants_mb`` and ``gflop`` besides.
    """
    content = published()
    table = content["tables"]["3"]
    left = dict(measured)
    ordered: list[tuple[str, Mapping[str, float]]] = []
    for method, row in table["paper"].items():
        ordered.append((f"{row['name']}, published", {k: row[k] for k, _ in _SPEED_COLUMNS if k in row}))
        ordered += [(f"{name}, measured", left.pop(name)) for name in measured if name.split()[0] == method]
    ordered += [(f"{name}, measured", values) for name, values in left.items()]
    header = ("method", "FPS", "time (ms)", "extra parameters (M)", "constants (MB)", "GFLOP per frame")
    rows = [
        (label, *(_cell(values.get(key), digits=digits) for key, digits in _SPEED_COLUMNS)) for label, values in ordered
    ]
    return PaperTable(
        title=_title("3", content),
        header=header,
        rows=tuple(rows),
        values=tuple(dict(values) for _, values in ordered),
        footnotes=tuple(_notes(table)),
    )


def _categories(table: Mapping[str, Any]) -> list[str]:
    """The benchmark's categories: textures first, then by name."""
    names = MVTEC_AD if table["dataset"] == "mvtec-ad" else MVTEC_3D_AD
    return sorted(names, key=lambda name: (name not in TEXTURES, name))


def _in_order(
    table: Mapping[str, Any], ours: Mapping[str, dict[str, float]], names: Sequence[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """The paper's rows, each followed by other sources' and our rows of its method; rows of other methods last."""
    left = dict(ours)
    for method, row in table["paper"].items():
        printed = {**row["categories"], **row["averages"]}
        yield f"{row['name']}, published", {name: value for name, value in printed.items() if value is not None}
        for item in table["other"].get(method, ()):
            yield f"{row['name']}, {item['source']}", _with_averages(item["categories"], names, 1.0)
        yield from [(f"{name}, measured", left.pop(name)) for name in ours if name.split()[0] == method]
    yield from ((f"{name}, measured", figures) for name, figures in left.items())


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
