"""Training of a detector on a data set, into a run folder."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...bundle.atomic import write_json
from ...bundle.imported import ImportRecord
from ...bundle.lock import exclusive
from ...bundle.manifest import DetectorRecord, RefitRecord, TrainingRecord
from ...bundle.runs.folder import CHECKPOINT, RECORD, is_finished, read_first_fit, read_record, stopped_words
from ...bundle.runs.record import FirstFit, PresetRecord, RunRecord, StartedRun
from ...bundle.store import now
from ...core.camera import DivisionCamera
from ...core.errors import BadInputError, LineproofError, StoppedError, UsageError
from ...core.inputs import ScanRule
from ...core.progress import Progress, silent
from ...core.registry import resolve
from ...core.size import NATIVE, size_text
from ...core.spec import FrameRule, Reads, check_bit_depth, check_fit, check_whole_tiles
from ...core.tiles import Tiles
from ...core.words import counted
from ...data.dataset import Dataset
from ...data.records import relative
from ...data.scans import camera_for, survey_scans
from ...data.sizes import choose_frame, frame_sentence, survey
from ...host.environment import describe_environment
from ..base import DETECTORS, AbstractDetector, DetectorConfig, FitContext, build_detector, stored_parameters
from ..volume.base import AbstractScanDetector, ScanConfig, native_resolved
from .beginning import begin, check_beginning, describe_run
from .checkpoint import save_weights, score_images
from .devices import current, describe_device, find_device
from .images import ImageSet
from .options import TrainOptions
from .refit import Job, keep_first_fit, refit_job, refit_report, refit_words
from .scans import ScanSet

#: Below it the coarsest feature maps of common backbones have no whole position left.
_MIN_SIZE_PX = 32


def train(
    name: str,
    config: DetectorConfig,
    *,
    dataset: Dataset,
    run: Path,
    options: TrainOptions | None = None,
    progress: Progress = silent,
) -> RunRecord:
    """Train a detector on the good images of a data set; a killed run is resumed after the step that was saved last.

    Args:
        name: name of the detector.
        config: parameters of the detector.
        dataset: data set; only the good images of its training and validation splits are used, never the test split.
        run: run folder, which one training at a time may use. A run that is there must have been begun with the same
            parameters, weights and images, compared by content. An unfinished one is resumed; of a finished one the
            record is returned.
        options: hold-out, seed, device and the rest; None takes the defaults.
        progress: called at every step.

    Returns:
        The record of the run; its ``beginning`` says whether it was resumed or finished already.

    Raises:
        BadInputError: there are too few good images, one cannot be decoded, images have several sizes and no fit was
            named, or the run was begun with other parameters or images.
        BusyError: another process trains in this folder.
        StoppedError: Ctrl-C was pressed; the message names what is saved and the command that resumes the run.
        UsageError: the image size is too small for any feature map, an option is out of its range, or the frames
            cannot be cut into the tiles.
        EnvironmentMissingError: CUDA was asked for, and torch has no CUDA GPU, or none with this index.
        LineproofError: the fit ended in weights, or in scores of held-out images, that are not finite.
    """
    options = options or TrainOptions()
    _check_size(config)
    if not options.time_limit_s >= 0:
        raise UsageError(f"time_limit_s (--time-limit) is {options.time_limit_s:g} s; expected 0 for none, or more.")
    if not options.save_every_s >= 0:
        raise UsageError(f"save_every_s (--save-every) is {options.save_every_s:g} s; expected 0 for never, or more.")
    if options.num_workers < 0:
        raise UsageError(f"num_workers (--workers) is {options.num_workers}; expected 0 for none, or more.")
    fitted, held_out = split_good(dataset, options)
    device = find_device(options.device)
    kind = resolve(DETECTORS, name, kind="detector")
    if issubclass(kind, AbstractScanDetector):
        frames, config = _look_at_scans(
            kind, config, fitted, held_out, dataset=dataset, options=options, progress=progress
        )
    else:
        frames = _look_at(config, fitted + held_out, options, progress)
    run.mkdir(parents=True, exist_ok=True)
    with exclusive(run, what="a training run"), current(device):
        hashes = frames.hashes[: len(fitted)], frames.hashes[len(fitted) :]
        described = dataclasses.replace(describe_run(name, config), camera=frames.calibrated)
        material = _begin(run, described, dataset=dataset, options=options, hashes=hashes, reads=config.reads)
        if is_finished(run):
            return dataclasses.replace(read_record(run), beginning=material.beginning)
        if material.beginning:
            progress(material.beginning, 0, 0)
        context = FitContext(
            seed=options.seed,
            device=device,
            progress=progress,
            run=run,
            save_every_s=options.save_every_s,
            time_limit_s=options.time_limit_s,
            num_workers=options.num_workers,
        )
        job = Job(config=config, fitted=fitted, held_out=held_out, context=context)
        try:
            first = _first_fit(name, job, run=run, frames=frames) if options.refit else None
            return _finish(run, name, job=job, first=first, material=material, frames=frames)
        except KeyboardInterrupt:
            raise StoppedError(stopped_words(run, command=options.command)) from None


def _check_size(config: DetectorConfig) -> None:
    if min(config.crop_px) < _MIN_SIZE_PX and config.crop_px != NATIVE:
        resize, crop = size_text(config.resize_px), size_text(config.crop_px)
        raise UsageError(f"crop_px is {crop}, resize_px {resize}; expected {_MIN_SIZE_PX} or more on each side.")


def _fit(name: str, job: Job, *, frames: _Frames) -> tuple[AbstractDetector[Any], dict[str, Any]]:
    """Build a detector and fit it; return it with the report of its fit."""
    _seed(job.context.seed)
    detector = build_detector(name, job.config)
    images, holdout = (frames.of(detector, paths) for paths in (job.fitted, job.held_out))
    fit = detector.fit(images, holdout, context=job.context)
    return detector, fit | describe_device(job.context.device)


def _first_fit(name: str, job: Job, *, run: Path, frames: _Frames) -> FirstFit:
    """Fit without the held-out images and score these, or read what a training came to that was interrupted later."""
    if done := read_first_fit(run):
        return done
    epochs: dict[str, int] = {}
    heard = dataclasses.replace(job, context=dataclasses.replace(job.context, trained=epochs.__setitem__))
    detector, report = _fit(name, heard, frames=frames)
    job.context.progress("scores", 0, 0)
    scores = _finite_scores(name, detector, frames.of(detector, job.held_out))
    return keep_first_fit(run, FirstFit(fit=report, holdout_scores=tuple(scores), epochs=epochs))


def _finite_scores(name: str, detector: AbstractDetector[Any], holdout: ImageSet) -> list[float]:
    scores = score_images(detector, holdout)
    bad = [path.name for path, score in zip(holdout.paths, scores, strict=True) if not math.isfinite(score)]
    if bad:
        raise LineproofError(
            f"The fitted {name} gives {len(bad)} of {len(scores)} held-out images a score that is not finite "
            f"({', '.join(bad[:3])}): the run is not finished. Train again with other settings, into a new --out."
        )
    return scores


@dataclass(frozen=True, kw_only=True)
class _Material:
    """The data of a run.

    Attributes:
        record: training data as the run's record and the manifest hold it.
        root: folder of the data set.
        beginning: a sentence on whether the run is resumed or finished already; "" for a new run.
        preset: preset that the detector's parameters began from, where there is one.
    """

    record: TrainingRecord
    root: Path
    beginning: str
    preset: PresetRecord | None


def _begin(
    run: Path,
    described: StartedRun,
    *,
    dataset: Dataset,
    options: TrainOptions,
    hashes: tuple[tuple[str, ...], tuple[str, ...]],
    reads: Reads,
) -> _Material:
    """Begin or resume a run; ``hashes`` holds those of the images to fit on, and of the held-out ones."""
    fitted, held_out = hashes
    planned = dataclasses.replace(
        described,
        category=dataset.category,
        holdout=options.holdout,
        refit=options.refit,
        seed=options.seed,
        fit=options.fit,
        frame=options.frame,
        tiles=options.tiles,
        bit_depth=options.bit_depth,
        data=str(dataset.root),
        fitted=fitted,
        held_out=held_out,
    )
    check_beginning(run, planned)
    data = TrainingRecord(
        dataset=dataset.name,
        category=dataset.category,
        fingerprint=dataset.fingerprint(reads),
        num_images=len(fitted),
        num_holdout=len(held_out),
        seed=options.seed,
        fitted=fitted,
        held_out=held_out,
    )
    beginning = begin(run, planned, command=options.command)
    return _Material(record=data, root=dataset.root, beginning=beginning, preset=options.preset)


def _finish(
    run: Path, name: str, *, job: Job, first: FirstFit | None, material: _Material, frames: _Frames
) -> RunRecord:
    """Fit, write the weights, score the held-out images, and last write the record, which makes the run a finished one.

    After a first fit this is the second one, and the threshold's scores are the first one's.
    """
    last = refit_job(job, first) if first else job
    if first:
        job.context.progress(refit_words(first, len(last.fitted)), 0, 0)
    detector, report = _fit(name, last, frames=frames)
    job.context.progress("scores", 0, 0)
    save_weights(detector, run / CHECKPOINT)
    scores = _finite_scores(name, detector, frames.of(detector, job.held_out))
    record = RunRecord(
        detector=DetectorRecord(name, stored_parameters(dataclasses.asdict(job.config)), detector.pretrained()),
        training=_refitted(material.record, first) if first else material.record,
        holdout=tuple(relative(path, material.root) for path in job.held_out),
        holdout_scores=first.holdout_scores if first else tuple(scores),
        frame=(frames.rule.frame_height_px, frames.rule.frame_width_px),
        fit=refit_report(report) if first else report,
        frame_fit=frames.rule.fit,
        bit_depth=frames.rule.bit_depth,
        frame_note=frames.note,
        conversions=frames.conversions,
        root=str(material.root),
        preset=material.preset,
        beginning=material.beginning,
        created=now(),
        environment=describe_environment(),
        first_fit=first.fit if first else {},
        refit_scores=tuple(scores) if first else (),
        scans=frames.scans,
        tiles=frames.tiles,
    )
    write_json(run / RECORD, dataclasses.asdict(record))
    return record


def _refitted(record: TrainingRecord, first: FirstFit) -> TrainingRecord:
    """Return the record of the data after the second fit: every image was fitted."""
    return dataclasses.replace(
        record,
        num_images=record.num_images + record.num_holdout,
        fitted=(*record.fitted, *record.held_out),
        refit=RefitRecord(num_first=record.num_images, epochs=first.epochs),
    )


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """The rule by which training images become frames, its notes for the user, and the hash of every image."""

    rule: FrameRule
    note: str
    conversions: tuple[str, ...]
    hashes: tuple[str, ...]
    scans: ScanRule | None = None
    tiles: Tiles | None = None

    @property
    def calibrated(self) -> DivisionCamera | None:
        """The camera where the data set says it; a fitted one follows from the clouds."""
        return self.scans.camera if self.scans and self.scans.is_calibrated else None

    def of(self, detector: AbstractDetector[Any], paths: list[Path]) -> Any:
        return image_set(detector, paths, rule=self.rule, scans=self.scans, tiles=self.tiles)


def _look_at(config: DetectorConfig, paths: list[Path], options: TrainOptions, progress: Progress) -> _Frames:
    """Decode every image once before any work, so that a broken file or a size without a rule costs no training."""
    fit = check_fit(options.fit)
    check_bit_depth(options.bit_depth)
    if options.tiles:
        check_whole_tiles(config.resize_px, config.crop_px)
    seen = survey(paths, bit_depth=options.bit_depth, progress=progress)
    frame = choose_frame(seen.sizes, fit=fit, frame=options.frame)
    if options.tiles:
        options.tiles.axes(frame)
    rule = FrameRule.of(frame, fit=fit, bit_depth=options.bit_depth)
    return _Frames(
        rule=rule,
        note=frame_sentence(seen.sizes, frame, fit=fit),
        conversions=seen.conversions.summary_lines(),
        hashes=seen.hashes,
        tiles=options.tiles,
    )


def _look_at_scans(  # noqa: PLR0913 (what a training has, by name)
    kind: type[AbstractScanDetector[Any]],
    config: DetectorConfig,
    fitted: list[Path],
    held_out: list[Path],
    *,
    dataset: Dataset,
    options: TrainOptions,
    progress: Progress = silent,
) -> tuple[_Frames, DetectorConfig]:
    """Read every scan once, measure those to fit on, and find the camera; return the sizes resolved too."""
    fit = check_fit(options.fit)
    if not isinstance(config, ScanConfig):
        raise TypeError(f"{kind.__name__} has parameters of {type(config).__name__}; expected those of scans.")
    if options.bit_depth is not None:
        raise UsageError(
            f"bit_depth (--bit-depth) is {options.bit_depth}; it says what 16-bit images hold, and this detector reads "
            "scans, of whose 16-bit colours the upper 8 bits are taken. Leave it out."
        )
    if options.tiles is not None:
        raise UsageError(
            f"tiles (--tiles) are {size_text(options.tiles.size)}; they cut images, and this detector reads scans, "
            "whose extent is measured on the whole part. Leave it out."
        )
    seen = survey_scans(fitted + held_out, has_rgb=config.rgb, trim=config.trim, progress=progress)
    frame = choose_frame(seen.sizes, fit=fit, frame=options.frame)
    resolved = native_resolved(config, frame)
    _check_size(resolved)
    spec = kind.scan_spec(resolved, frame=frame, extent=seen.extent(len(fitted)), fit=fit)
    size = max(seen.sizes, key=lambda item: (seen.sizes[item], item))
    camera, is_calibrated = camera_for(dataset.root, fitted, size=size, frame=frame, fit=fit)
    frames = _Frames(
        rule=FrameRule.of(frame, fit=fit),
        note=frame_sentence(seen.sizes, frame, fit=fit),
        conversions=seen.conversions.summary_lines(),
        hashes=seen.hashes,
        scans=ScanRule(spec=spec, camera=camera, is_calibrated=is_calibrated),
    )
    return frames, resolved


def image_set(
    detector: AbstractDetector[Any],
    paths: Sequence[Path],
    *,
    rule: FrameRule | None = None,
    scans: ScanRule | None = None,
    imported: ImportRecord | None = None,
    tiles: Tiles | None = None,
) -> Any:
    """Return what a detector takes of the files at these paths.

    Args:
        detector: the detector.
        paths: images, or scans.
        rule: rule by which each image becomes a frame; None keeps each at its own size.
        scans: how scans become what the detector takes; None where it takes images.
        imported: where an imported detector came from, which says its normalisation.
        tiles: how each frame is cut into tiles, each an image of the set; None leaves it whole.

    Returns:
        An ``ImageSet``, or for a detector of scans a ``ScanSet``: what its ``fit`` and its ``forward`` take.
    """
    if scans is not None:
        return ScanSet(paths, scans)
    mean, std = (imported.mean, imported.std) if imported else detector.normalisation
    config = detector.config
    return ImageSet(paths, config.resize_px, crop_px=config.crop_px, mean=mean, std=std, rule=rule, tiles=tiles)


def split_good(dataset: Dataset, options: TrainOptions) -> tuple[list[Path], list[Path]]:
    """Return the good images to fit on and the held-out ones: the validation split, or a seeded draw.

    Raises:
        BadInputError: fewer than two images would be left on either side; the message says how many are missing.
        UsageError: the share to hold out does not lie between 0 and 1.
    """
    good = [sample.path for sample in dataset.train if sample.label == 0]
    held_out = [sample.path for sample in dataset.validation if sample.label == 0]
    is_drawn = not held_out
    if is_drawn:
        if not 0.0 < options.holdout < 1.0:
            raise UsageError(f"holdout (--holdout) is {options.holdout}; expected a share between 0 and 1.")
        count = max(2, round(options.holdout * len(good)))
        drawn = set(random.Random(options.seed).sample(range(len(good)), min(count, len(good))))  # noqa: S311
        held_out = [path for i, path in enumerate(good) if i in drawn]
        good = [path for i, path in enumerate(good) if i not in drawn]
    if len(good) < 2 or len(held_out) < 2:
        raise BadInputError(
            f"{dataset.root}: {counted(len(good), 'good image')} to fit on and {len(held_out)} held out; at "
            f"least two of "
            f"each are needed. {_missing_words(len(good), len(held_out), is_drawn=is_drawn)}"
        )
    return good, held_out


def _missing_words(num_good: int, num_held_out: int, *, is_drawn: bool) -> str:
    """How many good images must be added so that two are fitted and two held out."""
    if not is_drawn:
        lacks = {"train": 2 - num_good, "validation": 2 - num_held_out}
        wanted = [f"{counted(num, 'more good image')} to {split}" for split, num in lacks.items() if num > 0]
        return f"Add {' and '.join(wanted)}."
    missing = 4 - num_good - num_held_out
    return f"Add {counted(missing, 'more good image')}." if missing > 0 else "Hold out a smaller share (--holdout)."


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    # FrEIA draws its permutations from NumPy's global generator.
    np.random.seed(seed)  # noqa: NPY002
