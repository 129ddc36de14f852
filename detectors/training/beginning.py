"""The beginning of a training run: a new run, a resumed one, or a refusal where the folder holds another."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ...bundle.atomic import file_sha256, write_json
from ...bundle.lock import LOCK
from ...bundle.runs.folder import REFIT, STARTED, epochs_kept_words, is_finished, read_started
from ...bundle.runs.record import StartedRun
from ...core.errors import BadInputError
from ..base import DetectorConfig
from .state import check_states

#: What must be the same for a run to go on, besides its images.
_COMPARED = (
    "bit_depth",
    "camera",
    "category",
    "detector",
    "fit",
    "frame",
    "holdout",
    "parameters",
    "refit",
    "seed",
    "tiles",
    "weights",
)
_PLURAL = ("parameters", "tiles", "weights")


def describe_run(name: str, config: DetectorConfig) -> StartedRun:
    """Describe a run without its images: the detector, its parameters, and the digest of its weights file."""
    parameters = dataclasses.asdict(config)
    source = str(parameters.pop("weights", ""))
    weights = file_sha256(Path(source)) if source and Path(source).is_file() else source
    # Through JSON, so that what is compared later is what a file gives back.
    return StartedRun(detector=name, parameters=json.loads(json.dumps(parameters)), weights=weights)


def backbone_of_former_release(run: Path, name: str, *, default: str) -> str | None:
    """Return the backbone of a run that was begun when the default named no tag; None for any other.

    The same command must go on with the same network, though what it leaves out has another default now.

    Args:
        run: run folder, which may be new.
        name: name of the detector.
        default: the detector's present default, with its tag.
    """
    started = read_started(run)
    network, _, tag = default.partition(".")
    was_default = started is not None and started.detector == name and started.parameters.get("backbone") == network
    return network if tag and was_default else None


def check_beginning(run: Path, planned: StartedRun) -> None:
    """Refuse a folder that holds a run with other parameters; ``begin`` compares the images.

    Args:
        run: run folder, which may be new.
        planned: description of the run that is about to begin.

    Raises:
        BadInputError: the run was begun with other parameters, or another release of lineproof wrote its state; the
            message names what differs.
    """
    if not _holds_work(run):
        return
    recorded = read_started(run)
    state = "a finished run" if is_finished(run) else "a run"
    if recorded is None or recorded.fitted is None:
        raise BadInputError(
            f"{run} holds {state} that does not say which images it was begun with (an older release wrote it, it was "
            f"imported, or its {STARTED} is gone), so that it cannot go on. Give another --out."
        )
    changed = [key for key in _COMPARED if getattr(recorded, key) != getattr(planned, key)]
    if changed:
        others = (f"{'other' if key in _PLURAL else 'another'} {key.replace('_', ' ')}" for key in changed)
        raise BadInputError(
            f"{run} holds {state} begun with {', '.join(others)}. Give another --out, or the same values."
        )
    if not is_finished(run):
        for folder in (run, run / REFIT):
            check_states(folder)


def begin(run: Path, planned: StartedRun, *, command: str) -> str:
    """Write the description of a new run, or check that a run already there learns from the same images.

    Args:
        run: an existing folder that nobody else trains in; see ``check_beginning``.
        planned: description of the run, with the hashes of its images.
        command: the command line that began it, without its ``--out``; "" where it was no command.

    Returns:
        A sentence on whether the run is resumed or finished already; "" for a new run.

    Raises:
        BadInputError: the run in this folder was begun with other images.
    """
    words = ""
    if _holds_work(run):
        _compare_images(run, read_started(run), planned)
        if is_finished(run):
            return f"{run} is finished already, with the same images and settings: nothing was trained."
        done = epochs_kept_words(run)
        words = f"goes on with run {run} after {done}" if done else f"begins run {run} again: nothing of it was kept"
    line = f"{command} --out {shlex.quote(os.path.abspath(run))}" if command else ""
    write_json(run / STARTED, dataclasses.asdict(dataclasses.replace(planned, command=line)))
    return words


def _holds_work(run: Path) -> bool:
    """Whether a folder holds results of a training; one with the description alone failed before its first epoch."""
    if not run.is_dir():
        return False
    return any(item.name not in (STARTED, LOCK) and not item.name.endswith(".tmp") for item in run.iterdir())


def _compare_images(run: Path, recorded: StartedRun | None, planned: StartedRun) -> None:
    if recorded and (recorded.fitted, recorded.held_out) == (planned.fitted, planned.held_out):
        return
    old, new = (set(_images(item)) for item in (recorded, planned))
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
