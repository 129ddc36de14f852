"""Protocols of results and of reports: lines for people, JSON values for programs, and a check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Result(Protocol):
    """The outcome of a command or of a call of the library, which can be printed and written as JSON."""

    def summary_lines(self) -> Sequence[str]:
        """The result for people, a line each."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """The result as JSON values."""
        ...


class Report(Result, Protocol):
    """A result that passes or fails, such as a parity report: ``check`` says which."""

    def check(self) -> None:
        """Raise a LineproofError where the result is not good enough; a command ends with that error's exit status."""
        ...
