"""What every sink is, and how one that fails never ends the judging."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import final

from ...core.errors import UsageError
from ...core.os_errors import os_error_words
from ...core.registry import resolve
from ...core.words import counted
from ..verdict_line import VerdictLine
from .table import SINKS


class AbstractSink(ABC):
    """An open place that takes verdicts, one by one, in the order in which they fall.

    Args:
        place: what stands behind the ``=`` of ``--sink KIND=PLACE``: a path, an address.

    Raises:
        OSError: the place cannot be opened.
        UsageError: it holds something that verdicts may not be added to.
    """

    @abstractmethod
    def __init__(self, place: str) -> None: ...

    @abstractmethod
    def write(self, entry: VerdictLine) -> None:
        """Take one verdict; when this returns it has left the process. Raises OSError where that failed."""

    @abstractmethod
    def close(self) -> None:
        """Give the place back."""


@final
class Outlet:
    """A sink that may fail: its first failure is kept in words, and it takes nothing more after that.

    Args:
        sink: what takes the verdicts.
        name: what people call it, ``csv=verdicts.csv``.
    """

    def __init__(self, sink: AbstractSink, *, name: str) -> None:
        self._sink = sink
        self._name = name
        self._problem = ""
        self._is_told = False
        self.num_written = 0

    def add(self, entry: VerdictLine) -> None:
        """Hand on a verdict; an error of the sink is kept, not raised."""
        if self._problem:
            return
        try:
            self._sink.write(entry)
        except OSError as error:
            words = os_error_words(error, place=self._name)
            self._problem = (
                f"The sink {self._name} stopped at {entry['file']} after "
                f"{counted(self.num_written, 'verdict')}. {words}"
            )
            return
        self.num_written += 1

    def news(self) -> tuple[str, ...]:
        """The failure, the first time that this is asked after it."""
        is_new = bool(self._problem) and not self._is_told
        self._is_told = bool(self._problem)
        return (self._problem,) if is_new else ()

    def problems(self) -> str:
        """The failure in a sentence; "" where every verdict was taken."""
        return self._problem


@contextmanager
def open_sinks(words: Sequence[str]) -> Iterator[tuple[Outlet, ...]]:
    """Open sinks by the words of the command line, and close them at the end.

    Args:
        words: ``"csv=verdicts.csv"``: a key of ``SINKS``, ``=``, and a place.

    Raises:
        UsageError: another form, an unknown kind, or a place that may not be added to.
        OSError: a place that cannot be opened.
    """
    with ExitStack() as stack:
        outlets = []
        for word in words:
            kind, equals, place = word.partition("=")
            if not (kind and equals and place):
                raise UsageError(
                    f"A sink (--sink) is {word!r}; expected KIND=PLACE, such as csv=verdicts.csv. Kinds: "
                    f"{', '.join(SINKS)}."
                )
            sink_class: type[AbstractSink] = resolve(SINKS, kind, kind="sink")
            sink = sink_class(place)
            stack.callback(sink.close)
            outlets.append(Outlet(sink, name=word))
        yield tuple(outlets)
