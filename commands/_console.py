"""What a command says: one result on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining

from ..workflows.page import write_report


class Result(Protocol):
    """What a command shows."""

    def sentences(self) -> Sequence[str]:
        """The result for people, a line each."""
        ...

    def to_dict(self) -> Any:
        """Plain JSON values."""
        ...


class ConsoleProgress:
    """A ``core.progress.Progress`` for terminals; one bar per stage. On a pipe each stage is named once.

    Args:
        is_quiet: show nothing.
    """

    def __init__(self, *, is_quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=is_quiet)
        self._is_live = sys.stderr.isatty() and not is_quiet
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            Remaining(),
        )
        self._bars = Progress(*columns, console=self._console, transient=False, disable=not self._is_live)
        self._tasks: dict[str, TaskID] = {}
        self._current = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``stage`` stands at ``done`` of ``total`` (0: unknown)."""
        if not self._is_live:
            if stage != self._current:
                self._console.print(f"{stage} …", highlight=False)
            self._current = stage
            return
        if stage != self._current:
            self._tasks[stage] = self._bars.add_task(stage, total=total or None)
        self._current = stage
        self._bars.update(self._tasks[stage], completed=done, total=total or None)

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


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

    def progress(self) -> ConsoleProgress:
        """Progress on stderr, to be used in ``with``."""
        return ConsoleProgress(is_quiet=self._is_quiet)

    def say(self, lines: Sequence[str], value: Any) -> None:
        """Print the lines, or with --json the value, to stdout."""
        print(json.dumps(value, indent=2) if self._as_json else "\n".join(lines), flush=True)  # noqa: T201

    def warn(self, *sentences: str) -> None:
        """Print warnings to stderr, also with --quiet; empty ones are none."""
        for sentence in filter(None, sentences):
            print(f"warning: {sentence}", file=sys.stderr)  # noqa: T201

    def show(
        self,
        found: Result,
        *,
        report: Path | None = None,
        passed: bool | None = None,
        keep: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Print a result; only then file it, and write it as a page where asked for.

        Args:
            found: the result.
            report: page to write, or None.
            passed: what the page says on top.
            keep: files the result, and returns warnings where that was not possible.
        """
        self.say(found.sentences(), found.to_dict())
        if keep:
            self.warn(*keep())
        if report:
            write_report(report, f"lineproof {sys.argv[1]}", sentences=found.sentences(), passed=passed)
