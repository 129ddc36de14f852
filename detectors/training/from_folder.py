"""Training on the images of a folder, with the operating table of the trained detector."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ...bundle.lock import LOCK
from ...bundle.runs.folder import new_run_folder, stopped_words
from ...bundle.runs.record import PresetRecord
from ...core.errors import StoppedError
from ...core.progress import Progress, silent
from ...core.registry import resolve
from ...core.threshold import MAX_FALSE_REJECT, REFERENCE_ENGINE, calibrate
from ...data.dataset import Dataset, check_contents, open_dataset
from ...data.notes import DataNotes
from ...data.sample.write import write_sample
from ...data.sample.write_3d import write_sample_3d
from ...metrics.operating import RunOperation
from ..presets import PAPER, QUICK
from ..table import DETECTORS
from .operating import lacking_lines, score_test_split, stored_scores
from .options import TrainOptions
from .trained import TrainingResult

if TYPE_CHECKING:
    from ..base import DetectorConfig

_SAMPLE = "lineproof-sample"


@final
@dataclass(frozen=True)
class BuiltInSample:
    """The built-in sample that a detector is shown with.

    Attributes:
        category: the category that it is trained on.
        suffix: end of the name of the sample's folder, which keeps images and scans apart.
        write: writes the sample.
    """

    category: str
    suffix: str
    write: Callable[..., tuple[str, ...]]


def built_in_sample(name: str) -> BuiltInSample:
    """Return the built-in sample for a detector: images, or scans."""
    if resolve(DETECTORS, name, kind="detector").input_kind == "image":
        return BuiltInSample("flange", "", write_sample)
    return BuiltInSample("bracket", "-3d", write_sample_3d)


def train_detector(  # noqa: PLR0913 (the choices of the command, by name)
    name: str,
    data: Path,
    *,
    category: str | None,
    settings: Mapping[str, Any],
    out: Path | None,
    preset: str = PAPER,
    options: TrainOptions | None = None,
    say_data: Callable[[DataNotes], None] | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train a detector on a data set and score the data set's test images.

    Args:
        name: name of the detector.
        data: folder of the data set.
        category: category of the data set, or None where the folder holds one only.
        settings: values by parameter of the detector, which win over those of the preset; a value of None leaves it.
        out: run folder; an unfinished run there is resumed. None makes a new folder under ./runs.
        preset: preset that the parameters begin from, see ``AbstractDetector.presets``.
        options: options of the training; None takes the defaults of ``TrainOptions``.
        say_data: called with the notes on the data set before the training begins.
        progress: called at every step.

    Returns:
        The finished run, with what its detector does to the test images.

    Raises:
        StoppedError: Ctrl-C was pressed; the message says what is saved and names the command that goes on.
        LineproofError: any error of ``train``, ``find_preset``, ``make_config`` or of reading the data set.
    """
    from ..base import find_preset, typed_settings
    from .beginning import backbone_of_former_release
    from .train import train

    given = {key: value for key, value in settings.items() if value is not None}
    # What was mistyped is said before anything is read; which sizes fit one another may depend on the category.
    find_preset(name, preset)
    typed_settings(name, given)
    options = options or TrainOptions()
    with _stopped_in_words(out, command=options.command):
        dataset = open_dataset(data, category=category)
        config, chosen = _from_preset(name, preset, category=dataset.category, given=given)
        dataset = check_contents(dataset, config.reads)
    notes = DataNotes.of(dataset)
    if say_data:
        say_data(notes)
    if out and "backbone" not in given and (former := backbone_of_former_release(out, name, default=config.backbone)):
        config, chosen = _from_preset(name, preset, category=dataset.category, given={**given, "backbone": former})
        progress(f"keeps the backbone {former} that {out} was begun with by a former release", 0, 0)
    progress(chosen.sentence(), 0, 0)
    options = replace(options, preset=chosen)
    run = out or new_run_folder(name, dataset.category)
    with _stopped_in_words(run, command=options.command):
        try:
            record = train(name, config, dataset=dataset, run=run, options=options, progress=progress)
        finally:
            if out is None:
                _remove_empty(run)
        operation = _operation(run, dataset, record.holdout_scores, progress)
    return TrainingResult(run=run, record=record, data=notes, operation=operation)


@contextlib.contextmanager
def _stopped_in_words(run: Path | None, *, command: str) -> Iterator[None]:
    """Turn Ctrl-C into an error that says what the run folder holds; within a fit ``train`` does so itself."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(stopped_words(run, command=command)) from None


def _from_preset(
    name: str, preset: str, *, category: str, given: Mapping[str, Any]
) -> tuple[DetectorConfig, PresetRecord]:
    """Return the parameters of a preset for a category, with values given beside it, and the record of both."""
    from ..base import find_preset, make_config, stored_parameters

    chosen = find_preset(name, preset)
    by_category = chosen.of_category(category)
    plain = make_config(name, {**chosen.settings, **by_category})
    config = make_config(name, {**chosen.settings, **by_category, **given})

    def stored(keys: Iterable[str]) -> dict[str, Any]:
        return stored_parameters({key: getattr(config, key) for key in keys})

    changed = {key for key in given if getattr(config, key) != getattr(plain, key)}
    record = PresetRecord(
        name=preset,
        source=chosen.source,
        settings=stored(key for key in chosen.settings if key not in by_category and key not in changed),
        by_category=stored(key for key in by_category if key not in changed),
        given=stored(sorted(changed)),
        lacks=category if chosen.by_category and category not in chosen.by_category else "",
    )
    return config, record


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


def train_on_sample(
    name: str, *, progress: Progress = silent, folder: Path | None = None, run: Path | None = None
) -> Path:
    """Train a detector with its quick settings on the built-in sample.

    Args:
        name: name of the detector.
        progress: called at every step.
        folder: folder of the sample, which is written first where it is absent; None for one in the current folder.
        run: run folder; None makes a new one under ./runs.

    Returns:
        The run folder.
    """
    sample = built_in_sample(name)
    folder, category = folder or Path(f"{_SAMPLE}{sample.suffix}"), sample.category
    if not (folder / category).is_dir():
        sample.write(folder, progress=progress)
    words = ["lineproof", "train", name, "--data", os.path.abspath(folder), "--category", category, "--preset", QUICK]
    options = TrainOptions(command=shlex.join(words))
    return train_detector(
        name, folder, category=category, settings={}, out=run, preset=QUICK, options=options, progress=progress
    ).run
