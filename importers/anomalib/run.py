"""A checkpoint of anomalib → a run folder, from which ``export`` goes on as from a training of lineproof's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ...bundle.atomic import write_json
from ...bundle.imported import SCORE_SCALES, ImportRecord, ScoreScale
from ...bundle.lock import exclusive
from ...bundle.manifest import DetectorRecord, TrainingRecord
from ...bundle.runs.folder import CHECKPOINT, RECORD, is_finished, new_run_folder, read_started
from ...bundle.runs.record import RunRecord
from ...bundle.store import now
from ...core.errors import BadInputError, UsageError
from ...core.progress import Progress, silent
from ...core.size import Size
from ...core.spec import Fit, FrameRule, check_whole_tiles
from ...core.tiles import Tiles
from ...core.words import counted
from ...data.dataset import Dataset
from ...data.decoding.conversions import Conversions
from ...data.notes import DataNotes
from ...data.records import relative
from ...data.sizes import choose_frame, frame_sentence, survey
from ...detectors.base import DetectorConfig, stored_parameters
from ...detectors.nn.graph import Scaled
from ...detectors.training.checkpoint import save_weights, score_images
from ...detectors.training.train import image_set
from ...host.environment import describe_environment
from .checkpoint import Checkpoint
from .model import load_model
from .result import ImportResult

_MIN_GOOD = 2


@final
@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        score_scale: units of the scores: the detector's own, or anomalib's normalised ones.
        fit: rule by which images of several sizes become frames of one size.
        frame: height and width of the frames in pixels; None chooses them by the images.
        bit_depth: bits that the camera used in 16-bit images; None for all 16.
        crop: height and width of the centre crop after the resize, for a checkpoint that does not say it; None
            otherwise.
        tiles: how frames are cut into tiles, where the detector was trained on pieces of frames of that size; None
            where it was trained on whole ones.
    """

    score_scale: ScoreScale = "native"
    fit: Fit = "none"
    frame: tuple[int, int] | None = None
    bit_depth: int | None = None
    crop: Size | None = None
    tiles: Tiles | None = None


def check_score_scale(text: str) -> ScoreScale:
    """Return the scale of this name, or raise UsageError."""
    for known in SCORE_SCALES:
        if text == known:
            return known
    raise UsageError(f"score_scale (--score-scale) is {text!r}; expected {' or '.join(SCORE_SCALES)}.")


def import_anomalib(
    path: Path,
    *,
    dataset: Dataset,
    out: Path | None = None,
    options: ImportOptions | None = None,
    progress: Progress = silent,
) -> ImportResult:
    """Make a run folder of a checkpoint.

    Args:
        path: the checkpoint.
        dataset: data set with good images of the part, for the size of the frames and for golden frames. Those of its
            validation split serve, else its test split's, else its training split's.
        out: run folder, which must hold no run yet; None makes a new one under ./runs.
        options: options of the import; None takes the defaults.
        progress: called at every step.

    Raises:
        BadInputError: the checkpoint cannot be read or holds a model, a setting or a tensor that is not known; or
            there are fewer than two good images.
        UsageError: ``out`` holds a run already; or the frames cannot be cut into the tiles, or nothing can set the
            threshold of frames that are.
    """
    options = options or ImportOptions()
    if out:
        _check_out(out)
    progress("reading the checkpoint", 0, 0)
    loaded = load_model(path, crop=options.crop, score_scale=options.score_scale)
    detector = loaded.detector
    good, split = _good_images(dataset)
    imported = dataclasses.replace(loaded.imported, good_split=split)
    seen = survey(good, bit_depth=options.bit_depth, progress=progress)
    frame = choose_frame(seen.sizes, fit=options.fit, frame=options.frame, what="good images")
    rule = FrameRule.of(frame, fit=options.fit, bit_depth=options.bit_depth)
    if options.tiles:
        _check_tiles(options.tiles, detector.config, frame=frame, split=split)
    progress("scores", 0, 0)
    scores = score_images(
        Scaled(detector, imported).eval(),
        image_set(detector, good, rule=rule, tiles=options.tiles, imported=imported),
    )
    _check_scores(scores, good)
    config: DetectorConfig = detector.config
    record = RunRecord(
        detector=DetectorRecord(loaded.converted.detector, stored_parameters(dataclasses.asdict(config))),
        training=TrainingRecord(
            dataset=dataset.name,
            category=dataset.category,
            fingerprint="",
            num_images=0,
            num_holdout=len(good),
            seed=0,
            held_out=seen.hashes,
        ),
        holdout=tuple(relative(item, dataset.root) for item in good),
        holdout_scores=tuple(scores),
        frame=frame,
        fit={"good_images": split},
        frame_fit=options.fit,
        bit_depth=options.bit_depth,
        frame_note=frame_sentence(seen.sizes, frame, fit=options.fit),
        conversions=seen.conversions.summary_lines(),
        root=str(dataset.root),
        created=now(),
        environment=describe_environment(),
        imported=imported,
        tiles=options.tiles,
    )
    run = out or new_run_folder(loaded.converted.detector, dataset.category)
    run.mkdir(parents=True, exist_ok=True)
    with exclusive(run, what="an import"):
        # Another import may have finished here since.
        _check_out(run)
        save_weights(detector, run / CHECKPOINT)
        write_json(run / RECORD, dataclasses.asdict(record))
    notes = (*loaded.transform.notes, *loaded.converted.notes, *_threshold_notes(loaded.checkpoint, imported))
    return ImportResult(
        run=run, record=record, data=DataNotes.of(dataset), notes=(*notes, *_reading_notes(seen.conversions))
    )


def _reading_notes(conversions: Conversions) -> tuple[str, ...]:
    """A sentence where anomalib reads such files otherwise."""
    counts = conversions.to_dict()
    if not any(counts[kind] for kind in ("turned_upright", "reduced_to_8_bits", "float_scaled")):
        return ()
    return (
        "anomalib reads such files otherwise: it turns no image upright, and has another rule for values deeper than 8 "
        "bits. On them the bundle's scores are not those of its Engine.predict; on 8-bit frames of a camera they are.",
    )


def _threshold_notes(checkpoint: Checkpoint, imported: ImportRecord) -> tuple[str, ...]:
    """A sentence where the threshold of image scores is that of anomaly maps."""
    own = checkpoint.number("post_processor._image_threshold", "image_threshold.value")
    if own is not None or not imported.has_threshold:
        return ()
    return (
        "The checkpoint has no threshold of image scores: anomalib judges images by that of anomaly maps then, and so "
        "does the run.",
    )


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} (--out) is a file; expected a folder for the run. Name another one.")
    if is_finished(out) or read_started(out) is not None:
        raise UsageError(f"{out} holds a run already. Name another --out, or remove it.")


def _check_tiles(tiles: Tiles, config: DetectorConfig, *, frame: Size, split: str) -> None:
    tiles.axes(frame)
    check_whole_tiles(config.resize_px, config.crop_px)
    if split == "train":
        raise UsageError(
            "tiles (--tiles) need a threshold of their own: the checkpoint's is one of single images, and a frame has "
            "the largest score of many tiles. The data set's only good images are those of its training split, which "
            "the detector may have learned from. Add others under validation/good or test/good."
        )


def _good_images(dataset: Dataset) -> tuple[list[Path], str]:
    """Return good images of the data set, and the name of the split that they are from."""
    splits = (("validation", dataset.validation), ("test", dataset.test), ("train", dataset.train))
    for name, samples in splits:
        good = [sample.path for sample in samples if sample.label == 0]
        if len(good) >= _MIN_GOOD:
            return good, name
    raise BadInputError(
        f"{dataset.root} holds fewer than {_MIN_GOOD} good images in every split. They are needed for golden frames, "
        "with which every engine is proved: add good images under test/good."
    )


def _check_scores(scores: Sequence[float], paths: Sequence[Path]) -> None:
    bad = [path.name for path, score in zip(paths, scores, strict=True) if not math.isfinite(score)]
    if bad:
        raise BadInputError(
            f"The imported detector gives {counted(len(bad), 'good image')} a score that is not finite "
            f"({', '.join(bad[:3])}): the checkpoint cannot be used."
        )
