"""What a command says: one result on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from ..core.errors import BadInputError
from ..core.report import Report, Result
from ..data.notes import DataNotes
from ..report.page import write_report
from ._status import failure_of


@final
class _Bars(Progress):
    """Bars, and below them a line of its own for the detail, which would take the bar's place beside it."""

    detail = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.detail:
            yield Text(f"  {self.detail}", no_wrap=True, overflow="ellipsis")


class ConsoleProgress:
    """A ``core.progress.Progress`` for terminals; one bar per stage. On a pipe each stage is named once.

    Args:
        is_quiet: show nothing.
        is_beside_results: results are printed to stdout meanwhile; no bar where both are one terminal.
    """

    def __init__(self, *, is_quiet: bool, is_beside_results: bool = False) -> None:
        self._console = Console(stderr=True, quiet=is_quiet)
        is_shared = is_beside_results and sys.stdout.isatty()
        self._is_live = sys.stderr.isatty() and not is_quiet and not is_shared
        columns = (
            SpinnerColumn("dots" if self._console.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            Remaining(),
        )
        # Rich would send to its own console, which is stderr, whatever is printed to stdout meanwhile.
        self._bars = _Bars(*columns, console=self._console, redirect_stdout=False, disable=not self._is_live)
        self._tasks: dict[str, TaskID] = {}
        self._current = ""

    def __call__(self, stage: str, done: int, total: int, detail: str = "", /) -> None:
        """Show that ``stage`` stands at ``done`` of ``total`` (0: unknown), on a terminal with the detail below."""
        if not self._is_live:
            if stage != self._current:
                self._console.print(f"{stage} …", highlight=False)
            self._current = stage
            return
        if stage != self._current:
            self._tasks[stage] = self._bars.add_task(stage, total=total or None)
        self._current = stage
        self._bars.detail = detail
        self._bars.update(self._tasks[stage], completed=done, total=total or None)

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


@final
class Stream:
    """Values on stdout as they fall: JSON lines, or with --json one object that is complete when the block ends.

    Attributes:
        summary: what the object holds besides the values; not printed as lines.
    """

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._name = name
        self._as_json = as_json
        self._num_items = 0
        self.summary: dict[str, Any] = {}

    def item(self, value: Mapping[str, Any]) -> None:
        """Print a value, flushed."""
        before = ("" if self._num_items else f"{{{json.dumps(self._name)}: [\n") if self._as_json else ""
        comma = ",\n" if self._as_json and self._num_items else ""
        self._num_items += 1
        print(f"{before}{comma}{json.dumps(value)}", end="" if self._as_json else "\n", flush=True)  # noqa: T201

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the object; an error that came after the first value stands in it."""
        if not self._as_json or isinstance(error, BrokenPipeError) or (error and not self._num_items):
            return
        failure = failure_of(error, has_result=True) if error else None
        last = {**self.summary, **(failure.to_dict() if failure else {})}
        before = "\n], " if self._num_items else f"{{{json.dumps(self._name)}: [], "
        print(before + json.dumps(last)[1:], flush=True)  # noqa: T201


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C be asked for between two steps, so that none is lost; a second one ends the work at once.

    Where Ctrl-C is ignored (a job in the background) or the caller is no main thread it changes nothing.
    """
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_usual or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@final
class Ui:
    """What every command shares: one result on stdout, progress on stderr.

    Args:
        as_json: print one JSON object instead of lines.
        is_quiet: no progress.
        is_verbose: more than the short form where a result is long.
    """

    def __init__(self, *, as_json: bool, is_quiet: bool, is_verbose: bool) -> None:
        self._as_json = as_json
        self._is_quiet = is_quiet
        self.is_verbose = is_verbose

    def check_places(self, places: Mapping[str, Path | None]) -> None:
        """Ask before the work whether files named by options can be written.

        Args:
            places: option to path, or None where it was not given; the path may also be a folder.

        Raises:
            BadInputError: a folder above it is a file or cannot be written, or the file itself cannot.
        """
        for option, path in places.items():
            if path is None:
                continue
            place = next(item for item in (path, *path.absolute().parents) if item.exists())
            is_folder = place.is_dir()
            if place != path and not is_folder:
                raise BadInputError(f"{option} {path} cannot be written: {place} is a file. Name another place.")
            if not os.access(place, os.W_OK | os.X_OK if is_folder else os.W_OK):
                raise BadInputError(f"{option} {path} cannot be written: {place} is not writable. Name another place.")

    def progress(self, *, is_beside_results: bool = False) -> ConsoleProgress:
        """Progress on stderr, to be used in ``with``; ``is_beside_results`` where a stream is printed meanwhile."""
        return ConsoleProgress(is_quiet=self._is_quiet, is_beside_results=is_beside_results)

    def stream(self, name: str) -> Stream:
        """Values printed as they fall, to be used in ``with``; ``name`` is their key in the object of --json."""
        return Stream(name, as_json=self._as_json)

    def notice(self, sentences: Sequence[str]) -> None:
        """Print what a person should know besides the result to stderr, also with --quiet."""
        for sentence in sentences:
            print(f"note: {sentence}", file=sys.stderr)  # noqa: T201

    def data(self, *notes: DataNotes) -> None:
        """Print data sets in words to stderr: what they are, and also with --quiet what is odd about them."""
        for item in notes:
            head, *rest = item.lines(lists_all=self.is_verbose) or ("",)
            self.note(*filter(None, [head]))
            self.notice(rest)

    def say(self, lines: Sequence[str], value: Any) -> None:
        """Print the lines, or with --json the value, to stdout."""
        print(json.dumps(value, indent=2) if self._as_json else "\n".join(lines), flush=True)  # noqa: T201

    def note(self, *sentences: str) -> None:
        """Print what is worth knowing to stderr, not with --quiet."""
        for sentence in () if self._is_quiet else sentences:
            print(f"note: {sentence}", file=sys.stderr)  # noqa: T201

    def warn(self, *sentences: str) -> None:
        """Print warnings to stderr, also with --quiet; empty ones are none."""
        for sentence in filter(None, sentences):
            print(f"warning: {sentence}", file=sys.stderr)  # noqa: T201

    def conclude(
        self,
        report: Report,
        *,
        page: Path | None = None,
        keep: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Show a report, see ``show``, and raise what it says of itself where it is not good enough."""
        self.show(report, report=page, keep=keep)
        report.check()

    def show(
        self,
        result: Result,
        *,
        report: Path | None = None,
        state: str = "",
        keep: Callable[[], Sequence[str]] | None = None,
        lines: Sequence[str] | None = None,
    ) -> None:
        """Print a result; only then file it, also where its reader went away, and write it as a page where asked for.

        Args:
            result: the result.
            report: page to write, or None.
            state: the word that the page says on top, ``"passed"``; or "".
            keep: files the result, and returns warnings where that was not possible.
            lines: the result for people; None for its summary lines.
        """
        lines = result.summary_lines() if lines is None else lines
        try:
            self.say(lines, result.to_dict())
        finally:
            # `verify | head -1` shows what was found and closes the pipe: it must stand in the bundle all the same.
            if keep:
                self.warn(*keep())
        if report:
            write_report(report, f"lineproof {sys.argv[1]}", sentences=lines, state=state)
