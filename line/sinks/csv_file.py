"""Verdicts as rows of a CSV file, for spreadsheets."""

from __future__ import annotations

import csv
import io
import os
import stat
from typing import final, get_type_hints

from ...bundle.atomic import write_all
from ...core.errors import UsageError
from ..verdict_line import VerdictLine
from .base import AbstractSink

#: One column per key of a verdict, see docs/run.md; the file's name first.
COLUMNS = tuple(sorted(get_type_hints(VerdictLine), key=lambda key: (key != "file", key != "verdict", key != "score")))


@final
class CsvSink(AbstractSink):
    """Appends a row per verdict to a UTF-8 file as RFC 4180 has it; a new or empty file begins with the names."""

    def __init__(self, place: str) -> None:
        self._handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._has_header = self._check(place)
        except BaseException:
            os.close(self._handle)
            raise

    def _check(self, place: str) -> bool:
        """Whether the file has begun; UsageError where it began with something else."""
        if not stat.S_ISREG(os.fstat(self._handle).st_mode):
            return False
        header = _row(COLUMNS)
        first = os.pread(self._handle, len(header), 0)
        if first and first != header:
            raise UsageError(
                f"The sink csv={place} is a file that begins with {first[:60]!r}; expected the columns "
                f"{','.join(COLUMNS[:4])},… of a file that a run began. Name another file."
            )
        return bool(first)

    def write(self, entry: VerdictLine) -> None:
        """Append one row; a value that the verdict does not have is an empty cell."""
        row = _row([entry.get(column) for column in COLUMNS])
        write_all(self._handle, row if self._has_header else _row(COLUMNS) + row)
        self._has_header = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def _row(cells: tuple[str, ...] | list[object]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(["" if cell is None else cell for cell in cells])
    # A file's name may hold bytes that are no UTF-8: they come back as they were.
    return text.getvalue().encode("utf-8", "surrogateescape")
