"""Output of the commands: one result on stdout, progress, notes and warnings on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from ..core.errors import BadInputError
from ..core.report import Report, Result
from ..data.notes import DataNotes
from ..report.page import Section, write_report
from ._status import failure_of


@final
class _Bars(Progress):
    """Progress bars with the detail on a line of its own below them, since beside a bar it would leave no room."""

    detail = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.detail:
            yield Text(f"  {self.detail}", no_wrap=True, overflow="ellipsis")


class ConsoleProgress:
    """A ``core.progress.Progress`` for terminals; one bar per stage. On a pipe each stage is named once.

    Args:
        is_quiet: whether nothing is shown.
        is_beside_results: whether results are printed to stdout meanwhile. Then there is no bar where stdout and
            stderr are both terminals.
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
        """Show progress of a stage.

        Args:
            stage: name of the stage.
            done: number of steps that are done.
            total: number of steps in all; 0 where it is unknown.
            detail: text below the bar, on a terminal only.
        """
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
    """Values that are printed to stdout one by one: JSON lines, or with --json one object, complete at the end.

    Attributes:
        summary: entries of that object besides the values. Without --json they are not printed.
    """

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._name = name
        self._as_json = as_json
        self._num_items = 0
        self.summary: dict[str, Any] = {}

    def item(self, value: Mapping[str, Any]) -> None:
        """Print one value and flush stdout, so that a reader gets it at once."""
        before = ("" if self._num_items else f"{{{json.dumps(self._name)}: [\n") if self._as_json else ""
        comma = ",\n" if self._as_json and self._num_items else ""
        self._num_items += 1
        print(f"{before}{comma}{json.dumps(value)}", end="" if self._as_json else "\n", flush=True)  # noqa: T201

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the object of --json; it also holds the error, where one came after the first value."""
        if not self._as_json or isinstance(error, BrokenPipeError) or (error and not self._num_items):
            return
        failure = failure_of(error, has_result=True) if error else None
        last = {**self.summary, **(failure.to_dict() if failure else {})}
        before = "\n], " if self._num_items else f"{{{json.dumps(self._name)}: [], "
        print(before + json.dumps(last)[1:], flush=True)  # noqa: T201


@final
class Ui:
    """Output of one command, by the options that all commands share: its result on stdout, all else on stderr.

    Args:
        as_json: whether results are printed as one JSON object instead of lines.
        is_quiet: whether progress and notes are left out.
        is_verbose: whether long lists are shown in full.
    """

    def __init__(self, *, as_json: bool, is_quiet: bool, is_verbose: bool) -> None:
        self._as_json = as_json
        self._is_quiet = is_quiet
        self.is_verbose = is_verbose

    def check_places(self, places: Mapping[str, Path | None]) -> None:
        """Check before the work that the files and folders named by options can be written.

        Args:
            places: path of a file or folder by the option that names it; None where the option was left out.

        Raises:
            BadInputError: A path or the folder that it would be made in cannot be written, or a folder above it is a
                file.
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
        """Progress on stderr, as a context manager.

        Args:
            is_beside_results: whether a stream is printed to stdout meanwhile.
        """
        return ConsoleProgress(is_quiet=self._is_quiet, is_beside_results=is_beside_results)

    def stream(self, name: str) -> Stream:
        """Values that are printed one by one, as a context manager.

        Args:
            name: key of the values in the object of --json.
        """
        return Stream(name, as_json=self._as_json)

    def notice(self, sentences: Sequence[str]) -> None:
        """Print sentences that must be read beside the result to stderr, also with --quiet."""
        for sentence in sentences:
            print(f"note: {sentence}", file=sys.stderr)  # noqa: T201

    def data(self, *notes: DataNotes) -> None:
        """Describe data sets on stderr; what is unusual about them is printed also with --quiet."""
        for item in notes:
            head, *rest = item.lines(lists_all=self.is_verbose) or ("",)
            self.note(*filter(None, [head]))
            self.notice(rest)

    def say(self, lines: Sequence[str], value: Any) -> None:
        """Print a result to stdout.

        Args:
            lines: the result for people.
            value: the result as JSON values, printed instead with --json.
        """
        print(json.dumps(value, indent=2) if self._as_json else "\n".join(lines), flush=True)  # noqa: T201

    def note(self, *sentences: str) -> None:
        """Print sentences that are worth knowing to stderr; with --quiet they are left out."""
        for sentence in () if self._is_quiet else sentences:
            print(f"note: {sentence}", file=sys.stderr)  # noqa: T201

    def warn(self, *sentences: str) -> None:
        """Print warnings to stderr, also with --quiet; empty sentences are skipped."""
        for sentence in filter(None, sentences):
            print(f"warning: {sentence}", file=sys.stderr)  # noqa: T201

    def conclude(
        self,
        report: Report,
        *,
        page: Path | None = None,
        keep: Callable[[], Sequence[str]] | None = None,
        sections: Sequence[Section] = (),
    ) -> None:
        """Show a report as ``show`` does, then raise its own error where the report is not good enough.

        Args:
            report: the report.
            page: HTML file that gets the report as well, or None.
            keep: files the report, and returns warnings where that was not possible.
            sections: images for that page.

        Raises:
            LineproofError: the report's ``check`` failed.
        """
        self.show(report, report=page, keep=keep, sections=sections)
        report.check()

    def show(
        self,
        result: Result,
        *,
        report: Path | None = None,
        state: str = "",
        keep: Callable[[], Sequence[str]] | None = None,
        lines: Sequence[str] | None = None,
        sections: Sequence[Section] = (),
    ) -> None:
        """Print a result, then file it, then write it as a page. It is filed also where stdout's reader went away.

        Args:
            result: the result.
            report: HTML file that gets the result as well, or None.
            state: word at the top of that page, such as ``"passed"``; "" for none.
            keep: files the result, and returns warnings where that was not possible.
            lines: the result for people; None takes its summary lines.
            sections: images for that page.
        """
        lines = result.summary_lines() if lines is None else lines
        try:
            self.say(lines, result.to_dict())
        finally:
            # `verify | head -1` prints one line and closes the pipe: the report must stand in the bundle all the same.
            if keep:
                self.warn(*keep())
        if report:
            write_report(report, f"lineproof {sys.argv[1]}", sentences=lines, state=state, sections=sections)
