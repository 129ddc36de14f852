"""How a training run begins: anew, where an interrupted one ended, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ...bundle.atomic import file_sha256, write_json
from ...bundle.lock import LOCK
from ...bundle.runs.folder import STARTED, is_finished, kept_words, read_started
from ...bundle.runs.record import StartedRun
from ...core.errors import BadInputError
from ..base import DetectorConfig
from .state import check_states

#: What must be the same for a run to go on, besides its images.
_COMPARED = ("bit_depth", "category", "detector", "fit", "frame", "holdout", "parameters", "seed", "weights")


def describe_run(name: str, config: DetectorConfig) -> StartedRun:
    """What a run is begun with besides its images: the detector, its parameters, and the content of its weights."""
    parameters = dataclasses.asdict(config)
    given = str(parameters.pop("weights", ""))
    weights = file_sha256(Path(given)) if given and Path(given).is_file() else given
    # Through JSON, so that what is compared later is what a file gives back.
    return StartedRun(detector=name, parameters=json.loads(json.dumps(parameters)), weights=weights)


def check_beginning(run: Path, wanted: StartedRun) -> None:
    """Refuse a folder that holds a run begun with anything else; images are compared by ``begin``.

    Raises:
        BadInputError: it does, or another release left its state; the message says what differs.
    """
    if not _holds_work(run):
        return
    found = read_started(run)
    state = "a finished run" if is_finished(run) else "a run"
    if found is None or found.fitted is None:
        raise BadInputError(
            f"{run} holds {state} that does not say which images it was begun with (an older release wrote it, or its "
            f"{STARTED} is gone), so that it cannot go on. Give another --out."
        )
    changed = [key for key in _COMPARED if getattr(found, key) != getattr(wanted, key)]
    if changed:
        raise BadInputError(
            f"{run} holds {state} begun with another {', '.join(changed)}. Give another --out, or the same values."
        )
    if not is_finished(run):
        check_states(run)


def begin(run: Path, wanted: StartedRun, *, command: str) -> str:
    """Write what this run is, or check that the run found here learns from the same images.

    Args:
        run: an existing folder that nobody else trains in; see ``check_beginning``.
        wanted: all that describes the run, its images among it.
        command: the command line that began it, without its ``--out``; "" where it was no command.

    Returns:
        How it begins, in a sentence; "" for a new run.

    Raises:
        BadInputError: the run found here was begun with other images.
    """
    words = ""
    if _holds_work(run):
        _compare_images(run, read_started(run), wanted)
        if is_finished(run):
            return f"{run} is finished already, with the same images and settings: nothing was trained."
        kept = kept_words(run)
        words = f"goes on with run {run} after {kept}" if kept else f"begins run {run} again: no epoch was kept"
    line = f"{command} --out {shlex.quote(os.path.abspath(run))}" if command else ""
    write_json(run / STARTED, dataclasses.asdict(dataclasses.replace(wanted, command=line)))
    return words


def _holds_work(run: Path) -> bool:
    """Whether anything was made here: a folder that holds only how it began failed at its first step."""
    if not run.is_dir():
        return False
    return any(item.name not in (STARTED, LOCK) and not item.name.endswith(".tmp") for item in run.iterdir())


def _compare_images(run: Path, found: StartedRun | None, wanted: StartedRun) -> None:
    if found and (found.fitted, found.held_out) == (wanted.fitted, wanted.held_out):
        return
    old, new = (set(_images(item)) for item in (found, wanted))
    if old == new:
        seen = "the same ones in another order, so that others are held out"
    else:
        seen = f"{len(new - old)} of {len(new)} are not among the {len(old)} it was begun with"
    raise BadInputError(
        f"{run} holds {'a finished run' if is_finished(run) else 'a run'} begun with other images: {seen} (compared by "
        "their pixels). Give another --out, or the images it was begun with."
    )


def _images(record: StartedRun | None) -> Sequence[str]:
    return [*(record.fitted or ()), *(record.held_out or ())] if record else []
