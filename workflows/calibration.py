"""Which good pictures may set a threshold."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from ..bundle.manifest import Manifest
from ..bundle.store import Bundle
from ..core.errors import BadInputError
from ..core.progress import Progress, silent
from ..data.dataset import Sample, enclosing_dataset, open_dataset
from ..data.records import is_image, visible
from ..eval.calibrate import Calibration, calibrate_bundle, good_pictures, held_out
from ..eval.part import check_same_category, check_same_part
from ..runtime.engine import EngineOptions
from .find import CHECKPOINT_RECORD, is_run


def calibration_samples(data: Path, manifest: Manifest, *, category: str | None) -> tuple[tuple[Sample, ...], str]:
    """Good pictures from a folder of good pictures, a training run's held-out images, or a validation split.

    Returns:
        The pictures, and what they are, in words.

    Raises:
        BadInputError: nothing there may set a threshold.
    """
    if is_run(data):
        record = json.loads((data / CHECKPOINT_RECORD).read_text())
        paths = [Path(path) for path in record["holdout"]]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise BadInputError(f"{data}: {len(missing)} of {len(paths)} held-out images are gone, first {missing[0]}.")
        samples = tuple(Sample(path=path, label=0, defect="good", split="validation") for path in paths)
        return samples, f"held-out images of {data}"
    if data.is_dir() and any(is_image(item) for item in visible(data)):
        _refuse_used(data, manifest)
        return good_pictures(data), f"good pictures of {data}"
    dataset = open_dataset(data, category=category)
    return held_out(dataset, manifest), f"validation split of {dataset.name} {dataset.category}".strip()


def _refuse_used(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder inside a data set whose pictures are defective, were fitted to, or judge the accuracy."""
    dataset = enclosing_dataset(folder)
    if dataset is None:
        return
    inside = [sample for sample in dataset.samples if sample.path.parent == Path(os.path.abspath(folder))]
    reason = ""
    if any(sample.label for sample in inside):
        reason = "they are defective parts"
    elif any(sample.split == "test" for sample in inside):
        reason = "they are test pictures, and the accuracy that is reported on them would be too good"
    elif any(s.split == "train" for s in inside) and dataset.fingerprint() == manifest.training.fingerprint:
        reason = f"{manifest.name} was fitted to them; its run holds the ones held out: --data RUN"
    if reason:
        raise BadInputError(
            f"{folder}: these pictures of {dataset.root} may not set a threshold: {reason}. Give good parts that were "
            "held out."
        )


def calibrate_on(
    bundle: Bundle,
    data: Path,
    *,
    category: str | None,
    engine: str,
    max_false_reject: float,
    options: EngineOptions,
    other_data: bool = False,
    progress: Progress = silent,
) -> Calibration:
    """Find the good pictures under ``data`` and set the engine's threshold by them; see ``calibrate_bundle``."""
    samples, source = calibration_samples(data, bundle.manifest, category=category)
    part_note = _check_part(data, bundle.manifest, category=category, other_data=other_data)
    found = calibrate_bundle(
        bundle,
        samples,
        engine=engine,
        source=source,
        max_false_reject=max_false_reject,
        options=options,
        progress=progress,
    )
    return dataclasses.replace(found, part_note=part_note)


def _check_part(data: Path, manifest: Manifest, *, category: str | None, other_data: bool) -> str:
    """Whether the pictures are of the bundle's part; nothing is known of a folder that belongs to no data set.

    Raises:
        BadInputError: they are of another part, and ``other_data`` is False.
    """
    if is_run(data):
        training = json.loads((data / CHECKPOINT_RECORD).read_text())["training"]
        if training["fingerprint"] == manifest.training.fingerprint:
            return ""
        return check_same_category(manifest, training["category"], other_data=other_data, where=str(data))
    if data.is_dir() and any(is_image(item) for item in visible(data)):
        enclosing = enclosing_dataset(data)
        return check_same_part(manifest, enclosing, other_data=other_data) if enclosing else ""
    return check_same_part(manifest, open_dataset(data, category=category), other_data=other_data)
