"""The folder of a training run: its files, its progress, and its records; read without PyTorch.

================================  =================================================================================
file                              what
================================  =================================================================================
``train.json``                    written first: what the run was begun with, and the command that began it
``trainer.safetensors``           the trainer's state after its last whole epoch, where a detector learns in epochs
``trainer-NAME.safetensors``      the same of a further training of the same fit
``first_fit.json``                after the first of two fits: its report, and its scores of the held-out images
``refit/trainer….safetensors``    states of the second fit
``checkpoint.safetensors``        the trained detector
``checkpoint.json``               written last: what was trained on what; a folder that holds it is a finished run
================================  =================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...core.errors import BadInputError
from ...core.strict import read_as
from ...core.words import clause, counted
from .record import FirstFit, RunRecord, StartedRun

#: Where runs lie that nobody named a folder for.
RUNS = Path("runs")
STARTED = "train.json"
STATE = "trainer.safetensors"
#: Of a fit that trains several things, one after the other, each has a state of its own.
STATES = "trainer*.safetensors"
FIRST_FIT = "first_fit.json"
REFIT = "refit"
CHECKPOINT = "checkpoint.safetensors"
RECORD = "checkpoint.json"
#: A safetensors file begins with the length of its JSON header in so many bytes, little endian.
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000


def is_finished(run: Path) -> bool:
    """Whether a folder holds a finished training run."""
    return (run / RECORD).is_file()


def is_unfinished(run: Path) -> bool:
    """Whether a folder holds a training run that was begun and not finished."""
    return not is_finished(run) and read_started(run) is not None


def read_started(run: Path) -> StartedRun | None:
    """What ``train.json`` says; None where there is none, or something else under its name.

    Raises:
        BadInputError: it is a run's, and holds a value of another type than the field has.
    """
    path = run / STARTED
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict) or not {"detector", "parameters"} <= set(raw):
        return None
    try:
        return read_as(StartedRun, raw, refuses_unknown=False)
    except ValueError as error:
        raise BadInputError(
            f"{path} does not say how a run was begun: {clause(error)}. Train again, into a new --out, or put "
            "the file back."
        ) from None


def read_record(run: Path) -> RunRecord:
    """What ``checkpoint.json`` says of a finished run.

    Raises:
        BadInputError: the run is unfinished, or there is none, or the file is not what this or an older release writes.
    """
    path = run / RECORD
    if not path.is_file():
        refuse_unfinished(run)
        raise BadInputError(f"{run} holds no {RECORD}: it is no finished run. See lineproof train --help")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        record = read_as(RunRecord, raw, refuses_unknown=False)
    except ValueError as error:
        raise BadInputError(f"{path} is not a checkpoint record of this release ({error}). Train again.") from None
    return record if "root" in raw else _with_root(record, run)


def _with_root(record: RunRecord, run: Path) -> RunRecord:
    """A record that holds absolute paths, with root and relative ones where the root is known."""
    started = read_started(run)
    if (
        started is None
        or not started.data
        or not all(Path(path).is_relative_to(started.data) for path in record.holdout)
    ):
        return record
    holdout = tuple(Path(path).relative_to(started.data).as_posix() for path in record.holdout)
    return dataclasses.replace(record, root=started.data, holdout=holdout)


def read_first_fit(run: Path) -> FirstFit | None:
    """What the first of two fits came to; None where it is not finished, or where there is one fit only.

    Raises:
        BadInputError: the file is not what a first fit writes.
    """
    path = run / FIRST_FIT
    if not path.is_file():
        return None
    try:
        return read_as(FirstFit, json.loads(path.read_text(encoding="utf-8")), refuses_unknown=False)
    except ValueError as error:
        raise BadInputError(f"{path} cannot be gone on from: {clause(error)}. Train again, into a new --out.") from None


def newest_state(run: Path) -> Path:
    """The trainer's state that was written last; where there is none, the place of the first."""
    states = (*run.glob(STATES), *(run / REFIT).glob(STATES))
    return max(states, key=lambda path: path.stat().st_mtime_ns, default=run / STATE)


def epochs_kept(run: Path) -> tuple[int, int, int]:
    """Whole epochs in the newest state, steps of the next one, and epochs in all (0: unknown); zeros without one."""
    try:
        with newest_state(run).open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            header = json.loads(stream.read(min(length, _MAX_HEADER_BYTES)))
        metadata = header["__metadata__"]
        progress = json.loads(metadata["progress"])
        return int(progress["epoch"]), int(progress.get("step", 0)), int(metadata.get("epochs", 0))
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0, 0


def epochs_kept_words(run: Path) -> str:
    """``"epoch 12 of 30"``, ``"step 5 of epoch 13 of 30"``, ``"… of its encoder"`` of a later training, or "".

    Of the second of two fits it is ``"… of its refit"``, and between both ``"its first fit"``.
    """
    state = newest_state(run)
    is_refit = state.parent != run
    if (run / FIRST_FIT).is_file() and not is_refit:
        return "its first fit"
    done, steps, total = epochs_kept(run)
    if not done and not steps:
        return ""
    _, _, name = state.stem.partition("-")
    epoch = f"step {steps} of epoch {done + 1}" if steps else f"epoch {done}"
    ofs = (f" of {total}" if total else "", f" of its {name}" if name else "", " of its refit" if is_refit else "")
    return f"{epoch}{''.join(ofs)}"


def finish_command(run: Path) -> str:
    """The command that finishes a run, for its present folder; "" where it was not begun by a command."""
    started = read_started(run)
    words = shlex.split(started.command if started else "")
    if words[-2:-1] != ["--out"]:
        return ""
    return shlex.join([*words[:-1], os.path.abspath(run)])


def unfinished_words(run: Path) -> str:
    """A sentence about an unfinished run: its detector, the last epoch that is kept, and how to finish it."""
    command, started = finish_command(run), read_started(run)
    epoch = epochs_kept_words(run)
    return (
        f"{run} is an unfinished training run of {started.detector if started else 'no known detector'} "
        f"({f'kept up to {epoch}' if epoch else 'nothing of it is kept yet'}). Finish it: "
        f"{command or f'train it again as it was begun, into {run}'}"
    )


def stopped_words(run: Path | None, *, command: str) -> str:
    """Sentences about a training that was stopped: what is saved, and the command that goes on from there.

    Args:
        run: run folder, which may hold nothing yet; None where it was not made.
        command: the command line, without its ``--out``; "" where it was no command.
    """
    again = " ".join([command, *(["--out", shlex.quote(os.path.abspath(run))] if run else [])]) if command else ""
    if run and is_finished(run):
        return (
            f"Stopped. {run} is a finished run and stays as it is. Score its test images: {again or 'train it again'}"
        )
    if run and is_unfinished(run):
        return f"Stopped. {unfinished_words(run)}"
    return f"Stopped before the training began: nothing was saved. Begin it: {again or 'train again'}"


@dataclass(frozen=True)
class _Name:
    """The part of a detector's record that names it."""

    name: str


@dataclass(frozen=True)
class _Named:
    """The part of a run's record that names its detector: folders are listed by it, whatever else they hold."""

    detector: _Name


def run_detector(run: Path) -> str:
    """Name of the detector that a finished run holds, or "" where it is none."""
    try:
        raw = json.loads((run / RECORD).read_text(encoding="utf-8"))
        return read_as(_Named, raw, refuses_unknown=False).detector.name
    except (OSError, ValueError):
        return ""


def refuse_unfinished(path: Path) -> None:
    """Raise BadInputError where a path holds a run that was not finished; the message holds the command that does."""
    if is_unfinished(path):
        raise BadInputError(unfinished_words(path))


def refuse_run(path: Path) -> None:
    """Raise BadInputError where a path that shall be a bundle holds a training run; the message says what to do."""
    refuse_unfinished(path)
    if is_finished(path):
        raise BadInputError(
            f"{path} is a training run ({run_detector(path)}), not a bundle; {path / RECORD} says all about it. Make a "
            f"bundle of it: lineproof export {shlex.quote(str(path))}"
        )


def new_run_folder(detector: str, category: str) -> Path:
    """Make ``runs/DETECTOR-CATEGORY-TIME`` for a run that starts now; of two that start at once each gets its own."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (detector, category, stamp) if part)
    RUNS.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        run = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            run.mkdir()
        except FileExistsError:
            number += 1
        else:
            return run


def newest_run(detector: str, root: Path = RUNS) -> Path:
    """The newest finished run of a detector under ``root``.

    Raises:
        BadInputError: there is none; the message holds the command that makes one.
    """
    records = sorted(root.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for record in records:
        if run_detector(record.parent) == detector:
            return record.parent
    unfinished = [run for run in sorted(root.glob(f"{detector}-*")) if is_unfinished(run)]
    if unfinished:
        raise BadInputError(f"There is no finished {detector} under ./{root}. {unfinished_words(unfinished[-1])}")
    raise BadInputError(
        f"There is no trained {detector} under ./{root} ({counted(len(records), 'finished run')} of other "
        f"detectors). Train one: "
        f"lineproof train {detector} --data DIR --category NAME; or let it be made from the built-in sample: "
        f"lineproof export {detector} --sample"
    )
