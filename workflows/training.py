"""Training and export from the command line's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..bundle.store import open_bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..data.dataset import open_dataset
from ..data.sample import write_sample
from .find import CHECKPOINT_RECORD, bundle_folder, is_run, new_run_folder, newest_run, run_detector
from .prove import Proof, is_bundle, prove

SAMPLE = Path("lineproof-sample")
SAMPLE_CATEGORY = "flange"


def train_detector(
    name: str,
    data: Path,
    *,
    category: str | None,
    settings: dict[str, Any],
    out: Path | None,
    options: dict[str, Any],
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train, and say what came of it.

    Args:
        name: detector.
        data: data set folder.
        category: its category, or None where the folder holds one only.
        settings: parameters of the detector that differ from the paper's.
        out: run folder; an unfinished run there is resumed. None makes a new one under ./runs.
        options: fields of ``TrainOptions``.
        progress: told about every step.

    Returns:
        JSON values: run, detector, parameters, training, fit, seconds and more, as checkpoint.json holds them.
    """
    from ..detectors.base import make_config
    from ..detectors.train import TrainOptions, train

    dataset = open_dataset(data, category=category)
    run = out or new_run_folder(name, dataset.category)
    train(
        name,
        make_config(name, settings),
        dataset=dataset,
        run=run,
        options=TrainOptions(**options),
        progress=progress,
    )
    record: dict[str, Any] = json.loads((run / CHECKPOINT_RECORD).read_text())
    return {"run": str(run), **record, "problems": list(dataset.problems)}


def train_on_sample(name: str, *, progress: Progress = silent, folder: Path = SAMPLE, run: Path | None = None) -> Path:
    """Train a detector with its quick settings on the built-in sample; write the sample first where it is absent."""
    from ..core.registry import resolve
    from ..detectors.base import DETECTORS

    quick = resolve(DETECTORS, name, kind="detector").quick_settings()
    if not (folder / SAMPLE_CATEGORY).is_dir():
        write_sample(folder, progress=progress)
    done = train_detector(
        name, folder, category=SAMPLE_CATEGORY, settings=quick, out=run, options={}, progress=progress
    )
    return Path(done["run"])


def export_and_prove(
    source: str,
    *,
    checkpoint: Path | None,
    is_sample: bool,
    out: Path | None,
    engine: str,
    targets: tuple[str, ...],
    options: dict[str, Any],
    is_verified: bool = True,
    progress: Progress = silent,
) -> Proof:
    """Export a run and prove the bundle, or build a plan into a bundle that exists.

    Args:
        source: a detector's name, a run folder or a bundle.
        checkpoint: run folder, where ``source`` is a detector's name; None takes the newest.
        is_sample: train the detector on the built-in sample first.
        out: the bundle's folder; None names it after category and detector.
        engine: what it is meant for, see ``prove``.
        targets: see ``prove``.
        options: fields of ``ExportOptions``.
        is_verified: False leaves out the verification.
        progress: told about every step.
    """
    if is_bundle(Path(source)):
        bundle = open_bundle(source)
        return prove(bundle, engine=engine, targets=targets, is_verified=is_verified, progress=progress)
    from ..export.bundle import ExportOptions, export_bundle

    run = _run(source, checkpoint, is_sample=is_sample, progress=progress)
    record = json.loads((run / CHECKPOINT_RECORD).read_text())
    training, choice = record["training"], ExportOptions(**options)
    out = out or bundle_folder(training["category"], record["detector"]["name"], choice.precision)
    bundle = export_bundle(run, out, options=choice, progress=progress)
    return prove(bundle, engine=engine, targets=targets, is_verified=is_verified, progress=progress)


def _run(source: str, checkpoint: Path | None, *, is_sample: bool, progress: Progress) -> Path:
    if checkpoint is not None:
        if is_sample:
            raise UsageError("--sample trains a detector anew; it does not go with --checkpoint.")
        found = run_detector(checkpoint)
        if found and not is_run(Path(source)) and found != source:
            raise UsageError(f"{checkpoint} holds {found}, not {source}.")
        return checkpoint
    if is_run(Path(source)):
        return Path(source)
    from ..core.registry import resolve
    from ..detectors.base import DETECTORS

    resolve(DETECTORS, source, kind="detector")
    return train_on_sample(source, progress=progress) if is_sample else newest_run(source)
