"""The results folder of a run: one line per verdict in verdicts.jsonl, and overlays beside it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundle.atomic import write_all
from ..bundle.lock import exclusive
from ..core.errors import BadInputError
from ..core.os_errors import os_error_words
from ..core.words import counted
from .images import OVERLAYS, VERDICTS, holds_results
from .verdict_line import Decided, VerdictLine, is_whole, read_verdicts

#: A folder holds verdicts of one decision: a run whose verdicts differ in one of these keys is refused.
SAME_DECISION: tuple[Literal["engine", "compute_dtype", "order", "threshold", "decision"], ...] = (
    "engine",
    "compute_dtype",
    "order",
    "threshold",
    "decision",
)
_SYNC_EVERY_S = 1.0
_STEM_BYTES = 100
_OVERLAY_NAME = re.compile(r"(\d{6,})-.*-(?:OK|NG)\.png")


def check_out(out: Path, *, append: bool) -> None:
    """Check before any work that a folder may take results.

    Args:
        out: the folder; it need not exist.
        append: whether results may be added to those that it holds.

    Raises:
        BadInputError: the folder holds results and ``append`` is False, or a verdicts.jsonl of another program.
    """
    verdicts, overlays = out / VERDICTS, out / OVERLAYS
    has_lines = verdicts.is_file() and verdicts.stat().st_size > 0
    if has_lines and not holds_results(out):
        raise BadInputError(f"{verdicts} was not written by `lineproof run`; it is left alone. Give another --out.")
    if not append and (has_lines or (overlays.is_dir() and any(overlays.iterdir()))):
        raise BadInputError(
            f"{out} holds results of another run; nothing was judged. Give another --out, or go on in this one with "
            "--append."
        )


def judged_before(out: Path) -> dict[str, float]:
    """Times of the verdicts in a results folder.

    Args:
        out: the folder.

    Returns:
        Seconds since 1970 by the absolute path of every file that has a verdict other than ERR.
    """
    return {
        entry.path: datetime.fromisoformat(entry.time).timestamp()
        for entry in read_verdicts(out / VERDICTS)
        if entry.verdict != "ERR" and entry.path and entry.time
    }


@final
class Filing:
    """An open results folder, as a context manager. One run at a time may write to a folder.

    When the disk is full or the folder cannot be written any more, filing stops and judging goes on.

    Attributes:
        out: the folder.
        notes: sentences about what was repaired when the folder was opened.
        num_before: number of verdicts that the folder held before.
        num_filed: number of this run's verdicts on disk.
        num_overlays: number of this run's overlays on disk.
        stopped: why no more verdicts are filed; "" while they are.
        overlays_stopped: why no more overlays are filed; "" while they are.
    """

    def __init__(self, out: Path, decision: Decided, *, append: bool = False) -> None:
        """Open the folder, create it where it is missing, and remove half-written results of a run that was killed.

        Args:
            out: the folder.
            decision: what decides this run's verdicts; every line of the folder must agree in ``SAME_DECISION``.
            append: whether to go on after the verdicts that the folder holds.

        Raises:
            BadInputError: the folder may not take results (``check_out``), or holds verdicts of another decision.
            BusyError: another run is writing to it.
            OSError: it cannot be created or opened.
        """
        self.out = out
        self.notes: list[str] = []
        self.num_filed = self.num_overlays = 0
        self.stopped = self.overlays_stopped = ""
        check_out(out, append=append)
        (out / OVERLAYS).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(exclusive(out, what="a run that files its verdicts there"))
            # A run that began between the first check and the lock has left its lines by now.
            check_out(out, append=append)
            self._handle = os.open(out / VERDICTS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            stack.callback(os.close, self._handle)
            self.num_before, self._end = self._mend()
            self._refuse_other(decision)
            self._remove_orphans()
            self._resources = stack.pop_all()
        self._synced = time.monotonic()
        self._reported = set[str]()

    def add_overlay(self, image: NDArray[np.uint8], entry: VerdictLine) -> str:
        """Write the overlay of a verdict.

        Args:
            image: overlay, uint8 (H, W, 3).
            entry: the verdict.

        Returns:
            Path of the overlay below the folder; "" where it could not be written.
        """
        if self.stopped or self.overlays_stopped:
            return ""
        number = self.num_before + self.num_filed
        name = f"{number:06d}-{_short(Path(entry['file']).stem)}-{entry['verdict']}.png"
        temporary = self.out / OVERLAYS / f".{number:06d}.tmp"
        content = io.BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        try:
            try:
                temporary.write_bytes(content.getvalue())
                os.replace(temporary, self.out / OVERLAYS / name)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            error.filename, error.filename2 = str(self.out / OVERLAYS / name), None
            self.overlays_stopped = f"overlays stopped at {entry['file']}. {os_error_words(error)}"
            return ""
        self.num_overlays += 1
        return f"{OVERLAYS}/{name}"

    def add(self, entry: VerdictLine) -> None:
        """Append a verdict. The system has it when this returns, the disk about a second later."""
        if self.stopped:
            return
        line = (json.dumps(entry) + "\n").encode()
        try:
            self._write(line)
            if time.monotonic() - self._synced >= _SYNC_EVERY_S:
                os.fsync(self._handle)
                self._synced = time.monotonic()
        except OSError as error:
            place = str(self.out / VERDICTS)
            self.stopped = f"filing stopped at {entry['file']}. {os_error_words(error, place=place)}"
            self._drop_overlay(entry)
            return
        self.num_filed += 1

    def sentence(self) -> str:
        """What is on disk, as the beginning of a sentence."""
        return (
            f"{counted(self.num_filed, 'verdict is', 'verdicts are')} in {self.out / VERDICTS}, with "
            f"{counted(self.num_overlays, 'overlay')}"
        )

    def news(self) -> tuple[str, ...]:
        """Sentences about what has stopped since the last call."""
        fresh = [reason for reason in (self.overlays_stopped, self.stopped) if reason and reason not in self._reported]
        self._reported.update(fresh)
        return tuple(f"{reason[:1].upper()}{reason[1:]}" for reason in fresh)

    def problems(self) -> str:
        """What is not filed any more, from which file on and why; "" where everything is filed."""
        parts = [f"{reason[:1].upper()}{reason[1:]}" for reason in (self.overlays_stopped, self.stopped) if reason]
        return " ".join(parts)

    def flush(self) -> None:
        """Write the filed verdicts through to the disk; where that fails, ``stopped`` says so."""
        try:
            if not self.stopped:
                os.fsync(self._handle)
        except OSError as error:
            self.stopped = f"the last verdicts may be lost. {os_error_words(error, place=str(self.out / VERDICTS))}"

    def close(self) -> None:
        """Flush, and release the folder for the next run."""
        self.flush()
        self._resources.close()

    def __enter__(self) -> Filing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_overlay(self, entry: VerdictLine) -> None:
        """Remove the overlay of a verdict that could not be filed."""
        if "overlay" in entry:
            self.num_overlays -= 1
            with contextlib.suppress(OSError):
                (self.out / entry["overlay"]).unlink()

    def _write(self, line: bytes) -> None:
        """Append a whole line, or nothing of it."""
        try:
            write_all(self._handle, line)
        except OSError:
            os.ftruncate(self._handle, self._end)
            raise
        self._end += len(line)

    def _mend(self) -> tuple[int, int]:
        """Cut a half-written line off the end; returns the number of verdicts and the bytes that they take."""
        num_lines = end = 0
        line = b""
        with (self.out / VERDICTS).open("rb") as stream:
            for line in stream:
                num_lines += 1
                end += len(line)
        if num_lines and not is_whole(line):
            num_lines, end = num_lines - 1, end - len(line)
            self.notes.append(f"The last line of {self.out / VERDICTS} was cut off in the middle; it was removed.")
            os.ftruncate(self._handle, end)
        return num_lines, end

    def _refuse_other(self, decision: Decided) -> None:
        first = next(read_verdicts(self.out / VERDICTS), None)
        if first is None:
            return
        here = {key: decision[key] for key in SAME_DECISION}
        other = [
            f"{key} {getattr(first, key)} there, {value} now"
            for key, value in here.items()
            if getattr(first, key) != value
        ]
        if other:
            raise BadInputError(
                f"{self.out} holds verdicts of another decision ({'; '.join(other)}). Give another --out: "
                "one file holds verdicts of one decision only."
            )

    def _remove_orphans(self) -> None:
        """Remove overlays that a killed run left without their verdict; their numbers are used again."""
        for item in os.scandir(self.out / OVERLAYS):
            name = _OVERLAY_NAME.fullmatch(item.name)
            if (name and int(name[1]) >= self.num_before) or re.fullmatch(r"\.\d{6,}\.tmp", item.name):
                os.unlink(item.path)


def _short(stem: str) -> str:
    """Cut a stem so that number and verdict fit into a name of 255 bytes (143 on some encrypted disks)."""
    whole = os.fsencode(stem)[:_STEM_BYTES].decode("utf-8", "ignore")
    return os.fsdecode(whole.encode()) or "image"
