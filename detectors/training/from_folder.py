"""Training on the images of a folder, with the operating table of the trained detector."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...bundle.lock import LOCK
from ...bundle.runs.folder import new_run_folder
from ...core.progress import Progress, silent
from ...core.registry import resolve
from ...core.threshold import MAX_FALSE_REJECT, REFERENCE_ENGINE, calibrate
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
    """Train a detector on a data set and score the data set's test images.

    Args:
        name: name of the detector.
        data: folder of the data set.
        category: category of the data set, or None where the folder holds one only.
        settings: values by parameter of the detector; a value of None leaves the default.
        out: run folder; an unfinished run there is resumed. None makes a new folder under ./runs.
        options: options of the training; None takes the defaults of ``TrainOptions``.
        say_data: called with the notes on the data set before the training begins.
        progress: called at every step.

    Returns:
        The finished run, with what its detector does to the test images.

    Raises:
        LineproofError: any error of ``train``, ``make_config`` or of reading the data set.
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
        record = train(name, config, dataset=dataset, run=run, options=options, progress=progress)
    finally:
        if out is None:
            _remove_empty(run)
    operation = _operation(run, dataset, record.holdout_scores, progress)
    return TrainingResult(run=run, record=record, data=notes, operation=operation)


def _operation(run: Path, dataset: Dataset, holdout_scores: Sequence[float], progress: Progress) -> RunOperation:
    """Return the operating table of the test images at the threshold that ``export`` sets by default."""
    test_scores = stored_scores(run) or score_test_split(run, dataset, progress=progress)
    if test_scores is None:
        return RunOperation(
            reason=f"{dataset.root} has no defective test image that can be read.", lacking=lacking_lines(dataset)
        )
    threshold = calibrate(holdout_scores, max_false_reject=MAX_FALSE_REJECT, engine=REFERENCE_ENGINE, source="held out")
    return test_scores.at(threshold.value)


def _remove_empty(run: Path) -> None:
    """Remove the folder of a run that was refused before it began."""
    with contextlib.suppress(OSError):
        if {item.name for item in run.iterdir()} <= {LOCK}:
            shutil.rmtree(run)


def train_on_sample(name: str, *, progress: Progress = silent, folder: Path = SAMPLE, run: Path | None = None) -> Path:
    """Train a detector with its quick settings on the built-in sample.

    Args:
        name: name of the detector.
        progress: called at every step.
        folder: folder of the sample, which is written first where it is absent.
        run: run folder; None makes a new one under ./runs.

    Returns:
        The run folder.
    """
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
