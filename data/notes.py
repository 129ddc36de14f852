"""Notes about a data set that stand beside every result on it: in brief, in full, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, final

from .records import Dataset


class DataJson(TypedDict):
    """A data set in words; all are empty where none was read."""

    summary: str
    remarks: list[str]
    problems: list[str]


@final
@dataclass(frozen=True, kw_only=True)
class DataNotes:
    """A data set in words, which travel with what was measured on it.

    Attributes:
        summary: category, counts, layout and folders of good parts in one line; "" where no data set was read.
        brief: what the data set lacks, what was assumed, and a line per kind of problem.
        remarks: which folders hold the good images, and what was assumed.
        problems: what the data set lacks, then every problem in full.
    """

    summary: str = ""
    brief: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> DataNotes:
        """The notes of a data set whose contents were checked, see ``check_contents``."""
        summary, *brief = dataset.summary_lines()
        remarks, problems = (tuple(map(_in_one_line, lines)) for lines in (dataset.notes, dataset.problems))
        return cls(summary=summary, brief=tuple(brief), remarks=remarks, problems=problems)

    def lines(self, *, lists_all: bool = False) -> tuple[str, ...]:
        """The notes for people, a line each; ``lists_all`` names every problem instead of counting them by kind."""
        if not self.summary:
            return ()
        return (self.summary, *((*self.remarks, *self.problems) if lists_all else self.brief))

    def to_dict(self) -> DataJson:
        """Plain JSON values."""
        return {"summary": self.summary, "remarks": list(self.remarks), "problems": list(self.problems)}


def _in_one_line(text: str) -> str:
    return " ".join(text.splitlines())


#: Where no data set was read.
NO_DATA = DataNotes()
