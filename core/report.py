"""What a result says of itself: for people, for programs, and whether it is good enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Result(Protocol):
    """What a command shows."""

    def summary_lines(self) -> Sequence[str]:
        """The result for people, a line each."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """The result as JSON values."""
        ...


class Report(Result, Protocol):
    """A result that may not be good enough."""

    def check(self) -> None:
        """Raise a LineproofError where it is not; the command ends with that error's exit status."""
        ...
