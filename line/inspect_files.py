"""Inspection of image files: one verdict per file as JSON, shown and filed at once, and heat-map overlays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..core.errors import BadInputError, LineproofError, StoppedError
from ..core.progress import Progress, silent
from ..core.spec import Frames, Reads
from ..core.words import counted
from ..data.decoding.conversions import Conversions
from ..data.files import files_read
from .filing import Filing, judged_before
from .inspector import Line, Verdict
from .sinks.base import Outlet
from .verdict_line import Decided, VerdictLine

#: Called with each verdict as soon as there is one.
Show = Callable[[VerdictLine], None]
#: Draws a verdict on its frame: (H, W, C) and the verdict → uint8 (H, W, 3).
Painter = Callable[[Frames, Verdict], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Summary of a run over files. The verdicts themselves were shown one by one and are not held.

    Attributes:
        num_files: number of files that were to be judged.
        num_judged: number of files that were processed, with or without a verdict.
        num_errors: number of those that gave no verdict.
        num_skipped: number of files left out because they were judged before.
        is_stopped: whether the run was stopped before the end.
        next_file: the first file that was not judged; "" where all were.
        out: results folder; "" for none.
        filed: what is on disk, in words; "" without a results folder.
        unfiled: which verdicts the results folder or a sink did not take, and why; "" where all were taken.
        conversions: sentences about what was done to the images to turn them into frames.
    """

    num_files: int
    num_judged: int
    num_errors: int
    num_skipped: int
    is_stopped: bool
    next_file: str
    out: str
    filed: str
    unfiled: str
    conversions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the verdicts."""
        return {
            "num_files": self.num_files,
            "num_judged": self.num_judged,
            "num_errors": self.num_errors,
            "num_skipped": self.num_skipped,
            "conversions": list(self.conversions),
        }

    def check(self) -> None:
        """Check that every file gave a verdict and that every verdict is on disk.

        Raises:
            StoppedError: the run was stopped before the end.
            BadInputError: files gave no verdict, or verdicts could not be filed.
        """
        if self.is_stopped:
            done = f"What was judged is printed, and {self.filed}." if self.out else "What was judged is printed."
            go_on = (
                f" To go on with the rest: the same command with --out {self.out} --append --skip-judged."
                if self.out
                else f" The first one not judged is {self.next_file}; --out would keep the verdicts on disk."
            )
            raise StoppedError(f"Stopped after {self.num_judged} of {counted(self.num_files, 'file')}. {done}{go_on}")
        parts = []
        if self.num_errors:
            parts.append(f"{self.num_errors} of {counted(self.num_judged, 'file')} gave no verdict; see the ERR lines.")
        if self.unfiled:
            filed = f"{self.filed}; all" if self.filed else "All"
            parts.append(f"Not every verdict was taken: {self.unfiled} {filed} are printed.")
        if parts:
            raise BadInputError(" ".join(parts))


def never() -> bool:
    """The default of ``should_stop``: no stop was requested."""
    return False


def not_judged_yet(files: Sequence[str], out: Path, reads: Reads) -> tuple[str, ...]:
    """The files that have no verdict in a results folder, or have changed since.

    A file counts as judged where its absolute path has a verdict (not ERR) that is younger than the content of all
    that is read of it, and than its entry in the folder. A scan has one verdict, whether its cloud or its image names
    it.

    Args:
        files: paths of image files.
        out: the results folder.
        reads: what the bundle reads of each.
    """
    before = dict[Path, float]()
    for path, when in judged_before(out).items():
        first = files_read(Path(path), reads)[0]
        before[first] = max(when, before.get(first, when))
    return tuple(file for file in files if not _is_judged(files_read(Path(os.path.abspath(file)), reads), before))


def _is_judged(read: tuple[Path, ...], before: Mapping[Path, float]) -> bool:
    when = before.get(read[0])
    if when is None:
        return False
    try:
        states = [os.stat(file) for file in read]
    except FileNotFoundError:
        # A scan that has lost a part is judged again, so that its verdict says so.
        return False
    return all(max(state.st_mtime, state.st_ctime) < when for state in states)


def inspect_files(  # noqa: PLR0913 (the caller's choices, by name)
    line: Line,
    files: Sequence[str],
    *,
    show: Show,
    filing: Filing | None = None,
    paint: Painter | None = None,
    sinks: Sequence[Outlet] = (),
    num_skipped: int = 0,
    should_stop: Callable[[], bool] = never,
    warn: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
) -> Inspection:
    """Inspect files one by one; each verdict is shown, then filed, before the next file is read.

    A file that cannot be judged gets an ERR entry and the others are judged; they are also where filing fails. No
    verdict is held in memory.

    Args:
        line: open line.
        files: paths of image files, as ``images.find_images`` collects them.
        show: called with each verdict; ``docs/run.md`` lists its keys.
        filing: open results folder; None files nothing.
        paint: draws the overlays that are filed; None files none.
        sinks: open sinks, which take each verdict as well.
        num_skipped: number of files that the caller left out, for the summary.
        should_stop: asked between two files whether to stop.
        warn: called with a sentence when filing or a sink stops.
        progress: called after each file.
    """
    conversions = line.input.conversions()
    takers = (*((filing,) if filing else ()), *sinks)
    num_judged = num_errors = 0
    for file in files:
        if should_stop():
            break
        entry, drawn = _inspect(line, file, paint=paint if filing else None, conversions=conversions)
        if filing and drawn is not None:
            overlay = filing.add_overlay(drawn, entry)
            if overlay:
                entry["overlay"] = overlay
        try:
            show(entry)
        finally:
            # What was judged is filed also where nobody reads it any more.
            if filing:
                filing.add(entry)
            for sink in sinks:
                sink.add(entry)
        num_judged += 1
        num_errors += entry["verdict"] == "ERR"
        for problem in [problem for taker in takers for problem in taker.news()]:
            warn(problem)
        progress("inspecting", num_judged, len(files))
    is_stopped = num_judged < len(files)
    if filing:
        filing.flush()
    return Inspection(
        num_files=len(files),
        num_judged=num_judged,
        num_errors=num_errors,
        num_skipped=num_skipped,
        is_stopped=is_stopped,
        next_file=files[num_judged] if is_stopped else "",
        out=str(filing.out) if filing else "",
        filed=filing.sentence() if filing else "",
        unfiled=" ".join(filter(None, (taker.problems() for taker in takers))),
        conversions=conversions.summary_lines(),
    )


def decision_of(line: Line) -> Decided:
    """What decides a line's verdicts besides the image: engine, bundle, threshold, and the state of the proof."""
    return {
        "threshold": line.threshold,
        "engine": line.engine_name,
        "compute_dtype": line.options.compute_dtype,
        "order": line.order,
        "bundle": line.bundle.manifest.name,
        "model_sha256": line.bundle.model_sha256,
        "decision": line.decision,
        "parity": line.parity,
    }


def _inspect(
    line: Line, file: str, *, paint: Painter | None, conversions: Conversions
) -> tuple[VerdictLine, NDArray[np.uint8] | None]:
    decided = decision_of(line)
    entry: VerdictLine = {
        "file": file,
        "verdict": "ERR",
        "score": None,
        "threshold": decided["threshold"],
        "engine": decided["engine"],
        "compute_dtype": decided["compute_dtype"],
        "order": decided["order"],
        "bundle": decided["bundle"],
        "model_sha256": decided["model_sha256"],
        "decision": decided["decision"],
        "parity": decided["parity"],
        "lineproof": __version__,
        "path": os.path.abspath(file),
        # Before the file is read: whatever changes it afterwards is younger than its verdict.
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "time_ms": 0.0,
    }
    began = time.perf_counter_ns()
    try:
        frame = line.input.read(file, conversions=conversions)
        verdict = line.inspect(frame)
    except LineproofError as error:
        entry["time_ms"] = (time.perf_counter_ns() - began) / 1e6
        entry["error"], entry["kind"] = str(error), type(error).__name__
        return entry, None
    entry["verdict"], entry["score"], entry["time_ms"] = verdict.verdict, verdict.score, verdict.time_ns / 1e6
    return entry, paint(frame, verdict) if paint else None
