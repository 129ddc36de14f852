"""Progress on stderr: a bar with elapsed time and time left, or a heartbeat where the length is unknown."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining


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
