"""Good images that may set a threshold: a folder, the held-out images of a run, or a validation split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ..bundle.manifest import Manifest
from ..bundle.runs.folder import is_finished, read_record, refuse_unfinished
from ..bundle.store import Bundle
from ..core.errors import BadInputError, UsageError
from ..core.progress import Progress, silent
from ..core.spec import Reads
from ..core.table import first_few
from ..core.threshold import MAX_FALSE_REJECT
from ..core.used import MIN_USED
from ..data.content import content_hash
from ..data.dataset import Dataset, Sample, enclosing_dataset
from ..data.files import scan_files
from ..data.held_out import held_out_images
from ..data.notes import DataNotes
from ..data.records import is_image, visible
from ..runtime.engine import EngineOptions
from ..runtime.ranking import AUTO
from .calibrate import Calibration, calibrate_bundle, good_images, held_out
from .part import check_same_category, check_same_part, open_part_data


@final
@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """The good images of a calibration, the engine that scores them, and what is asked of the threshold.

    Attributes:
        data: a folder of good images, a training run (its held-out images), or a data set with a validation split.
        category: category, of a data set that holds several.
        root: folder in which the data set of a run lies now; None where it has not moved.
        engine: name of the engine whose scores count, or ``"auto"``.
        options: options of the engine.
        max_false_reject: share of good parts that may be rejected, 0 ≤ share < 1.
        min_used: share of the images that must be usable for the threshold to be set, 0 to 1.
        lists_all: whether the text names every image that was not used; the JSON always does.
        other_data: whether parts of another category than the bundle's are accepted.
    """

    data: Path
    category: str | None = None
    root: Path | None = None
    engine: str = AUTO
    options: EngineOptions = field(default_factory=EngineOptions)
    max_false_reject: float = MAX_FALSE_REJECT
    min_used: float = MIN_USED
    lists_all: bool = False
    other_data: bool = False


def calibration_samples(
    request: CalibrationRequest, manifest: Manifest, *, progress: Progress = silent
) -> tuple[tuple[Sample, ...], str, str, DataNotes]:
    """Good images that may set the threshold of a bundle.

    An image that the bundle was fitted to is recognised by its content, under whatever name and wherever it lies. All
    images are refused with it: which ones may be used is for people to say.

    Args:
        request: where the images lie.
        manifest: manifest of the bundle.
        progress: called after each image.

    Returns:
        The images; a description of them; one sentence on the difference between their part and the bundle's, or "";
        and a description of the data set whose validation split they are.

    Raises:
        BadInputError: the source holds no image that may set a threshold, or one that may not.
        UsageError: ``root`` is set, and ``data`` is no run.
    """
    refuse_unfinished(request.data)
    note, notes = "", DataNotes()
    if is_finished(request.data):
        samples, note = _of_run(request, manifest, progress)
        words = f"held-out images of {request.data}"
    elif request.root is not None:
        raise UsageError(
            f"root (--root) says where the data set of a run lies; {request.data} is no run. Leave it out."
        )
    elif request.data.is_dir() and any(is_image(item) for item in visible(request.data)):
        reads = manifest.preprocessing.reads
        samples = good_images(request.data, reads)
        _refuse_used(samples, manifest)
        listed = request.data if reads == "image" else scan_files(samples[0].path)[1].parent
        if enclosing := enclosing_dataset(listed):
            note = check_same_part(manifest, enclosing, other_data=request.other_data)
        words = f"good images of {request.data}"
    else:
        dataset = open_part_data(manifest, request.data, request.category)
        notes = DataNotes.of(dataset)
        samples = held_out(dataset, manifest)
        note = check_same_part(manifest, dataset, other_data=request.other_data)
        words = f"validation split of {dataset.name} {dataset.category}".strip()
    _refuse_fitted(samples, manifest, progress)
    return samples, words, note, notes


def _of_run(request: CalibrationRequest, manifest: Manifest, progress: Progress) -> tuple[tuple[Sample, ...], str]:
    record = read_record(request.data)
    if record.imported and record.imported.good_split != "validation":
        raise BadInputError(
            f"{request.data} was imported, and its good images are of the {record.imported.good_split} split of their "
            "data set: they may not set a threshold, since accuracy is reported on test images, and the detector may "
            "have been fitted to training images. Give a plain folder of good parts that training had no part in."
        )
    note = ""
    if record.training.fingerprint != manifest.training.fingerprint:
        where, other_data = str(request.data), request.other_data
        note = check_same_category(manifest, record.training.category, other_data=other_data, where=where)
    paths = held_out_images(record, request.data, data=request.root, option="--root", progress=progress)
    return tuple(Sample(path=path, label=0, defect="good", split="validation") for path in paths), note


def _refuse_fitted(samples: Sequence[Sample], manifest: Manifest, progress: Progress) -> None:
    """Refuse images whose content is among those that the detector was fitted to, and copies of one another."""
    fitted = frozenset(manifest.training.fitted)
    known, copies, seen = [], [], set[str]()
    for number, sample in enumerate(samples, 1):
        content = _hash(sample.path, manifest.preprocessing.reads)
        if content in fitted:
            known.append(str(sample.path))
        if content and content in seen:
            copies.append(str(sample.path))
        seen.add(content)
        progress("comparing images", number, len(samples))
    if known:
        advice = "Leave them out, or give the bundle's own run, which holds the images held out: --data RUN."
        if manifest.training.refit:
            advice = (
                "After its threshold was set it was fitted again to all good images of its run, those held out "
                "included. Give good parts that training had no part in."
            )
        raise BadInputError(
            f"{len(known)} of {len(samples)} images show what {manifest.name} was fitted to, pixel by pixel: "
            f"{first_few(known)}. A threshold set on them would reject too many parts on the line. "
            f"{advice}"
        )
    if copies:
        raise BadInputError(
            f"{len(copies)} of {len(samples)} images are copies of others among them, pixel by pixel: "
            f"{first_few(copies)}. Each would count as a part of its own, and the interval of the "
            "threshold would be too narrow. Leave them out."
        )


def _hash(path: Path, reads: Reads) -> str:
    """Content hash, or "" of a file that is no image: the calibration itself says what cannot be read."""
    try:
        return content_hash(path, reads)
    except BadInputError:
        return ""


def _refuse_used(samples: Sequence[Sample], manifest: Manifest) -> None:
    """Refuse defective images and test images of a data set, also where a link leads to them."""
    places = [path for sample in samples for path in (Path(os.path.abspath(sample.path)), sample.path.resolve())]
    # A data set lists its scans by their images.
    paths = set(places) if manifest.preprocessing.reads == "image" else {scan_files(path)[1] for path in places}
    for folder in sorted({path.parent for path in paths}):
        dataset = enclosing_dataset(folder)
        inside = [sample for sample in dataset.samples if sample.path in paths] if dataset else []
        reason = ""
        if any(sample.label for sample in inside):
            reason = "they are defective parts"
        elif any(sample.split == "test" for sample in inside):
            reason = "they are test images, and the accuracy that is reported on them would be too good"
        elif not manifest.training.is_known and any(sample.split == "train" for sample in inside):
            reason = f"{manifest.name} was imported, and may have been fitted to them"
        elif dataset and not manifest.training.fitted and _was_fitted(dataset, inside, manifest):
            reason = f"{manifest.name} was fitted to them; its run holds the ones held out: --data RUN"
        if dataset and reason:
            raise BadInputError(
                f"{folder}: these images of {dataset.root} may not set a threshold: {reason}. Give good parts that "
                "were held out."
            )


def _was_fitted(dataset: Dataset, inside: Sequence[Sample], manifest: Manifest) -> bool:
    """Whether images are of the very split that a bundle without content hashes was trained on."""
    return (
        any(s.split == "train" for s in inside)
        and dataset.fingerprint(manifest.preprocessing.reads) == manifest.training.fingerprint
    )


def calibrate_on(bundle: Bundle, request: CalibrationRequest, *, progress: Progress = silent) -> Calibration:
    """Find the good images and calibrate the engine's threshold on them. Nothing is written.

    Args:
        bundle: bundle to run.
        request: where the good images lie, whose scores count, and what is asked of the threshold.
        progress: called after each image.

    Raises:
        BadInputError: an image may not set a threshold, or fewer than two fit.
        UsageError: the share is not in [0, 1), or there is no such engine.
    """
    samples, words, part_note, data = calibration_samples(request, bundle.manifest, progress=progress)
    calibration = calibrate_bundle(
        bundle,
        samples,
        engine=request.engine,
        source=words,
        max_false_reject=request.max_false_reject,
        options=request.options,
        progress=progress,
    )
    warning = calibration.warning
    if not bundle.manifest.training.fitted:
        why = "was imported, and what it was fitted to is not recorded"
        if bundle.manifest.training.is_known:
            why = "was exported by an older release, which did not record what it was fitted to"
        unknown = f"{bundle.path} {why}: whether these images are among that could not be checked by content."
        warning = " ".join(filter(None, (warning, unknown)))
    return dataclasses.replace(
        calibration,
        warning=warning,
        part_note=part_note,
        data=data,
        min_used=request.min_used,
        lists_all=request.lists_all,
    )
