"""Train on the images of a folder, and say what the detector is good for."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...bundle.lock import LOCK
from ...bundle.runs.folder import new_run_folder, read_record
from ...core.progress import Progress, silent
from ...core.registry import resolve
from ...core.threshold import MAX_FALSE_REJECT, calibrate
from ...data.dataset import Dataset, check_contents, open_dataset
from ...data.notes import DataNotes
from ...data.sample.write import write_sample
from ...metrics.operating import RunOperation
from .operating import lacking_lines, score_test_split, stored_scores
from .options import TrainOptions
from .trained import TrainingResult

SAMPLE = Path("lineproof-sample")


SAMPLE_CATEGORY = "flange"


def train_detector(  # noqa: PLR0913 (the choices of the command, by name)
    name: str,
    data: Path,
    *,
    category: str | None,
    settings: Mapping[str, Any],
    out: Path | None,
    options: TrainOptions | None = None,
    say_data: Callable[[DataNotes], None] | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train, and say what came of it.

    Args:
        name: detector.
        data: data set folder.
        category: its category, or None where the folder holds one only.
        settings: parameters of the detector; None leaves the paper's.
        out: run folder; an unfinished run there goes on. None makes a new one under ./runs.
        options: how; see ``TrainOptions`` for what is taken where nothing is said.
        say_data: told about the data set before the training begins.
        progress: told about every step.
    """
    from ..base import make_config
    from .train import train

    config = make_config(name, {key: value for key, value in settings.items() if value is not None})
    dataset = check_contents(open_dataset(data, category=category))
    notes = DataNotes.of(dataset)
    if say_data:
        say_data(notes)
    run = out or new_run_folder(name, dataset.category)
    try:
        made = train(name, config, dataset=dataset, run=run, options=options, progress=progress)
    finally:
        if out is None:
            _remove_empty(run)
    record = read_record(run)
    operation = _operation(run, dataset, record.holdout_scores, progress)
    return TrainingResult(run=run, record=record, data=notes, operation=operation, beginning=made.beginning)


def _operation(run: Path, dataset: Dataset, holdout_scores: Sequence[float], progress: Progress) -> RunOperation:
    """What the detector does to the test images at the threshold that ``export`` sets by default."""
    found = stored_scores(run) or score_test_split(run, dataset, progress=progress)
    if found is None:
        return RunOperation(
            reason=f"{dataset.root} has no defective test image that can be read.", lacking=lacking_lines(dataset)
        )
    threshold = calibrate(holdout_scores, max_false_reject=MAX_FALSE_REJECT, engine="torch", source="held out")
    return found.at(threshold.value)


def _remove_empty(run: Path) -> None:
    """Remove a folder that was made for a run which was refused before it began."""
    with contextlib.suppress(OSError):
        if {item.name for item in run.iterdir()} <= {LOCK}:
            shutil.rmtree(run)


def train_on_sample(name: str, *, progress: Progress = silent, folder: Path = SAMPLE, run: Path | None = None) -> Path:
    """Train a detector with its quick settings on the built-in sample; write the sample first where it is absent."""
    from ..table import DETECTORS

    quick = resolve(DETECTORS, name, kind="detector").quick_settings()
    if not (folder / SAMPLE_CATEGORY).is_dir():
        write_sample(folder, progress=progress)
    category = SAMPLE_CATEGORY
    words = ["lineproof", "train", name, "--data", os.path.abspath(folder), "--category", category]
    for key, value in quick.items():
        words += ["--set", f"{key}={value}"]
    options = TrainOptions(command=shlex.join(words))
    return train_detector(
        name, folder, category=category, settings=quick, out=run, options=options, progress=progress
    ).run
