"""Text tables with aligned columns, and sentences wrapped to the width of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

#: Columns of a terminal that a long table has to fit.
TERMINAL = 110
#: How narrow the first column may become so that everything stays side by side, and its width where that is not enough.
_NARROW, _LABEL = 30, 48
_GAP = 2


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Columns padded to one width, the first left-aligned, the others right-aligned.

    Args:
        header: a heading per column; the first column names the rows.
        rows: cells of each row, as many as there are headings.
        width: characters that no line may exceed, as long as no single column is that wide. Columns that do not fit
            go into further blocks below, each with the first column repeated, whose names are wrapped. None puts
            everything side by side.
    """
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    if width is None or sum(widths) + _GAP * (len(widths) - 1) <= width:
        return _block(table, widths)
    beside = width - sum(_GAP + item for item in widths[1:])
    widths[0] = min(widths[0], beside if beside >= _NARROW else _LABEL)
    blocks = [[0, *columns] for columns in _split(widths, width)]
    return "\n\n".join(
        _block([[row[i] for i in block] for row in table], [widths[i] for i in block]) for block in blocks
    )


def wrapped(text: str, *, width: int = TERMINAL) -> str:
    """A sentence in lines of at most ``width`` characters, the later ones indented; a long path stays whole."""
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _split(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns after the first, in as few groups as fit beside it, each group about equally full."""
    room = width - widths[0]
    needed = sum(_GAP + item for item in widths[1:])
    for num_groups in range(-(-needed // max(room, 1)), len(widths)):
        groups = _fill(widths, needed / num_groups)
        if all(sum(_GAP + widths[i] for i in group) <= room for group in groups):
            yield from groups
            return
    yield from ([column] for column in range(1, len(widths)))


def _fill(widths: Sequence[int], share: float) -> list[list[int]]:
    """Columns put into the group in which their middle lies, where each group is ``share`` characters wide."""
    groups: dict[int, list[int]] = {}
    done = 0
    for column in range(1, len(widths)):
        size = _GAP + widths[column]
        groups.setdefault(int((done + size / 2) / share), []).append(column)
        done += size
    return list(groups.values())


def _block(table: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    return "\n".join(line for row in table for line in _lines(row, widths))


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """One line, and one more for each further part of a name that is wider than its column."""
    first, *more = textwrap.wrap(row[0], widths[0], subsequent_indent="  ") if len(row[0]) > widths[0] else [row[0]]
    cells = [first.ljust(widths[0]), *(cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True))]
    yield (" " * _GAP).join(cells).rstrip()
    yield from more


def first_few(items: Sequence[object], *, num: int = 3) -> str:
    """The first items by name, and how many more there are: ``"a, b, c and 4 more"``."""
    named = ", ".join(map(str, items[:num]))
    return f"{named} and {len(items) - num} more" if len(items) > num else named
