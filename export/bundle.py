"""Export of a training run to a bundle, one self-contained artefact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from ..bundle.imported import ImportRecord
from ..bundle.manifest import Manifest
from ..bundle.runs.folder import CHECKPOINT, read_record
from ..bundle.runs.record import RunRecord
from ..bundle.store import GOLDEN, MODEL, REFERENCE, Bundle, check_place, now, write_bundle
from ..core.errors import UsageError
from ..core.inputs import InputSpec
from ..core.prediction import Prediction
from ..core.progress import Progress, silent
from ..core.size import size_text
from ..core.spec import Fit, FrameRule, Frames, Preprocessing, check_fit
from ..core.threshold import MAX_FALSE_REJECT, REFERENCE_ENGINE, Threshold, calibrate, stated_threshold
from ..core.tiles import MAX_TILES, Tiles
from ..data.decoding.conversions import Conversions
from ..data.held_out import held_out_images
from ..data.inputs.table import input_of
from ..detectors.base import AbstractDetector, DetectorConfig
from ..detectors.nn.graph import FrameGraph
from ..detectors.training.checkpoint import load_detector
from ..host.environment import package_versions
from .figures import count_figures, prove_precision
from .golden import apart_from, golden_frames
from .options import EXPORT_PRECISIONS, ExportOptions
from .passes.fp16 import to_half
from .to_onnx import export_onnx, output_specs

#: Larger models keep their weights in a file beside the graph: protobuf ends at 2 GB.
_EXTERNAL_ABOVE_BYTES = 1_800_000_000


def export_bundle(
    run: Path,
    out: Path,
    *,
    options: ExportOptions | None = None,
    conversions: list[str] | None = None,
    progress: Progress = silent,
) -> Bundle:
    """Export a finished run; an older bundle at ``out`` is replaced in one step, or stays.

    Args:
        run: folder of the run.
        out: folder of the bundle.
        options: options of the export; None takes the defaults.
        conversions: list that is extended by sentences on what was done to images to make frames of them.
        progress: called at every step.

    Returns:
        The bundle, not yet verified.

    Raises:
        UsageError: the precision or the batch is out of range; the fit is not the run's; or frames have another size
            and no fit was named.
        BadInputError: the run is unfinished, or its held-out images are gone or changed.
        ExportError: the detector does not trace, or the graph does not have the requested precision.
    """
    options = options or ExportOptions()
    options.check()
    check_place(out)
    record = read_record(run)
    detector = load_detector(record.detector, run / CHECKPOINT)
    spec = _preprocessing(detector, record, options, fit=check_frame(record, options))
    reference = FrameGraph(spec, detector, imported=record.imported).eval()
    holdout = held_out_images(record, run, data=options.data, progress=progress)
    converted = input_of(spec).conversions()
    scores = _holdout_scores(record, reference, holdout=holdout, spec=spec, conversions=converted, progress=progress)
    threshold = _threshold(record, scores, options, spec=spec)
    spread = float(np.std(scores, ddof=1))
    # By the widest tolerance there is, so that bundles of every precision carry the same frames.
    distance = spread * max(detector.tolerance(precision).score_spread for precision in EXPORT_PRECISIONS)
    # The detector's own scores decide, which after a second fit are not those that set the threshold.
    own = record.refit_scores or scores
    deciding = apart_from(holdout, own, threshold=threshold.value, distance=distance)
    frames, names = golden_frames(deciding, spec, conversions=converted, are_fitted=record.training.refit is not None)
    prediction = predict_reference(reference, frames)
    progress("export", 0, 0)
    model = _graph(detector, spec, options, imported=record.imported)
    manifest = _manifest(
        record, detector, spec, model=model, prediction=prediction, threshold=threshold, spread=spread, options=options
    )
    prove_precision(options.precision, manifest.figures.nodes_per_dtype)
    describe(model, manifest)

    def fill(folder: Path) -> None:
        save_model(model, folder)
        np.savez_compressed(
            folder / GOLDEN, frames=frames, names=names, score=prediction.score, anomaly_map=prediction.anomaly_map
        )
        if options.has_reference:
            (folder / REFERENCE).write_bytes((run / CHECKPOINT).read_bytes())

    if conversions is not None:
        conversions += [*_differences(spec, record), *converted.summary_lines()]
    return write_bundle(out, manifest, fill)


def _threshold(record: RunRecord, scores: Sequence[float], options: ExportOptions, *, spec: InputSpec) -> Threshold:
    """Return the threshold that an imported detector brought, or the one that held-out good images set.

    An imported one was set on whole images: for the largest score of many tiles it says nothing.
    """
    imported, is_tiled = record.imported, isinstance(spec, Preprocessing) and spec.tiles is not None
    if imported is None or imported.threshold is None or is_tiled:
        source = _source(record)
        return calibrate(scores, max_false_reject=options.max_false_reject, engine=REFERENCE_ENGINE, source=source)
    return stated_threshold(
        imported.threshold,
        engine=imported.library,
        source=f"{imported.library}'s own threshold in {imported.file}, moved by 1e-5 of the range of scores",
        max_false_reject=options.max_false_reject,
    )


def _differences(spec: InputSpec, record: RunRecord) -> tuple[str, ...]:
    """Return how frames differ from those that training saw, in sentences; scans are always alike."""
    return spec.differences(FrameRule.of(record.frame)) if isinstance(spec, Preprocessing) else ()


def _source(record: RunRecord) -> str:
    """Return where the scores behind the threshold come from, in words."""
    training = record.training
    if record.imported:
        words = f"{training.num_holdout} good images of {training.dataset} {training.category}".strip()
        return f"{words} ({record.imported.good_split} split)"
    words = f"{training.num_holdout} held-out good images of {training.dataset} {training.category}".strip()
    return f"{words}, on the scores of a first fit without them" if training.refit else words


def _graph(
    detector: AbstractDetector[Any], spec: InputSpec, options: ExportOptions, *, imported: ImportRecord | None
) -> ir.Model:
    """Return the graph in the requested precision."""
    model = export_onnx(detector, spec, max_batch=options.max_batch, imported=imported)
    if options.precision == "fp16":
        to_half(model, detector.half_scopes)
    return model


def predict_reference(reference: nn.Module, frames: Frames) -> Prediction:
    """Return the PyTorch reference's prediction for frames as in the specification, one frame at a time."""
    with torch.inference_mode():
        predictions = [reference(torch.from_numpy(frame[None])) for frame in frames]
    score, anomaly_map = (torch.cat(part).numpy() for part in zip(*predictions, strict=True))
    return Prediction(score, anomaly_map)


def check_frame(record: RunRecord, options: ExportOptions) -> Fit:
    """Return the fit by which images become frames in the bundle: the run's, or the requested one where it has none.

    Raises:
        UsageError: the fit is not the run's, or frames have another size than in training and no fit was named.
    """
    trained = f"The run was trained on frames of {record.frame[0]}x{record.frame[1]} (height x width)"
    learned = record.frame_fit or "none"
    if options.fit is not None and learned not in ("none", options.fit):
        raise UsageError(
            f"{trained} with fit {learned}, and fit (--fit) is {options.fit}: images would become other frames than in "
            f"training. Leave it out, or train again with --fit {options.fit}."
        )
    fit = learned if options.fit is None else check_fit(options.fit)
    if options.frame is not None and options.frame[:2] != record.frame and fit == "none":
        raise UsageError(
            f"{trained}; frame (--frame) is {options.frame[0]}x{options.frame[1]}, and images are never resized "
            "silently. Leave it out, say how images become such frames with --fit stretch, pad or crop, or train on "
            "images of the new camera."
        )
    return fit


def check_run(record: RunRecord, options: ExportOptions) -> None:
    """Raise UsageError where frames, tiles or a threshold are asked for that the run cannot give."""
    check_frame(record, options)
    tiles, imported = check_tiles(record, options), record.imported
    if imported and imported.threshold is not None and not tiles and options.max_false_reject != MAX_FALSE_REJECT:
        raise UsageError(
            f"max_false_reject (--max-false-reject) is {options.max_false_reject:g}, and the run was imported with "
            f"{imported.library}'s own threshold, which the bundle keeps: it would change nothing. Leave it out, and "
            "set another threshold on good parts afterwards: lineproof calibrate BUNDLE --max-false-reject."
        )


def check_tiles(record: RunRecord, options: ExportOptions) -> Tiles | None:
    """Return the tiles that the bundle's frames are cut into: the run's, the requested ones, or none.

    A run that learned tiles may be exported with another overlap. One that learned the centres of larger images (fit
    crop) knows what such a piece looks like, and its held-out images are whole frames, which set the threshold.

    Raises:
        UsageError: the run learned something else than such tiles, or a full batch of frames has too many of them.
    """
    tiles = record.tiles if options.tiles is None else options.tiles
    if tiles is None:
        return None
    seen = f"tiles (--tiles) are {size_text(tiles.size)}, and the run was trained on"
    if record.scans is not None:
        raise UsageError(f"{seen} scans, which are measured whole. Leave it out.")
    if record.tiles is not None and tiles.size != record.tiles.size:
        raise UsageError(f"{seen} tiles of {size_text(record.tiles.size)}. Leave it out, or train again with --tiles.")
    if record.tiles is None:
        _check_centres(record, options, tiles, seen=seen)
    num = tiles.num(options.frame[:2] if options.frame else record.frame)
    if options.max_batch * num > MAX_TILES:
        raise UsageError(
            f"max_batch (--batch) is {options.max_batch}, and a frame has {num} tiles: {options.max_batch * num} at "
            f"once, expected at most {MAX_TILES}. Give --batch {MAX_TILES // num}."
        )
    return tiles


def _check_centres(record: RunRecord, options: ExportOptions, tiles: Tiles, *, seen: str) -> None:
    """Refuse tiles of a run that learned no tiles, unless it learned centres of such a size and has whole frames."""
    if record.imported:
        raise UsageError(
            f"tiles (--tiles) are {size_text(tiles.size)}, and the run was imported for whole frames. Import the "
            "checkpoint again with --tiles, which scores good frames cut so."
        )
    if tiles.size != record.frame or record.frame_fit != "crop":
        raise UsageError(
            f"{seen} frames of {size_text(record.frame)} with fit {record.frame_fit or 'none'}. Pieces of a frame are "
            "something else to it than what it learned, and what the largest score of many good pieces may be is not "
            "known. Train with --tiles on the camera's frames; or leave it out."
        )
    if options.frame is None:
        raise UsageError(
            f"{seen} the centres of larger images (fit crop), in that size. Say with frame (--frame) how large the "
            "camera's frames are: the held-out images, cut to that size, set the threshold."
        )


def _preprocessing(
    detector: AbstractDetector[Any], record: RunRecord, options: ExportOptions, *, fit: Fit
) -> InputSpec:
    if record.scans:
        if options.frame is not None and options.frame[:2] != record.frame:
            raise UsageError(
                f"frame (--frame) is {size_text(options.frame[:2])}, the run was trained on scans of "
                f"{size_text(record.frame)} (height x width): their points were learned pixel by pixel. Leave it out, "
                "or train again with --frame and --fit."
            )
        return replace(record.scans.spec, fit=fit)
    frame_shape = options.frame or record.frame_shape
    config: DetectorConfig = detector.config
    imported = record.imported
    spec = Preprocessing.of(
        frame_shape,
        config.resize_px,
        config.crop_px,
        normalisation=(imported.mean, imported.std) if imported else detector.normalisation,
        fit=fit,
        bit_depth=record.bit_depth,
    )
    return replace(spec, tiles=check_tiles(record, options))


def _holdout_scores(
    record: RunRecord,
    reference: nn.Module,
    *,
    holdout: Sequence[Path],
    spec: InputSpec,
    conversions: Conversions,
    progress: Progress,
) -> list[float]:
    """Return the scores of the held-out good images as such frames: the run's own where its size is the same."""
    if record.saw(spec) and record.frame_fit is not None:
        return list(record.holdout_scores)
    if record.training.refit:
        raise UsageError(
            f"The run was trained on frames of {record.frame[0]}x{record.frame[1]} (height x width) in RGB, and fitted "
            "again to its held-out images: their scores as other frames, or as other tiles, would set no honest "
            "threshold. Leave --frame and --overlap out, or train with those of the camera, or without --refit."
        )
    reader = input_of(spec)
    scores: list[float] = []
    for number, path in enumerate(holdout):
        frames = reader.prepare(reader.read(path, conversions=conversions)[None])
        scores += predict_reference(reference, frames).score.tolist()
        progress("held-out scores", number + 1, len(holdout))
    return scores


def _manifest(  # noqa: PLR0913 (a manifest gathers everything)
    record: RunRecord,
    detector: AbstractDetector[Any],
    spec: InputSpec,
    *,
    model: ir.Model,
    prediction: Prediction,
    threshold: Threshold,
    spread: float,
    options: ExportOptions,
) -> Manifest:
    category = record.training.category or record.training.dataset
    return Manifest(
        name=f"{category}-{record.detector.name}",
        created=now(),
        detector=record.detector,
        precision=options.precision,
        inputs=(spec.frames,),
        outputs=output_specs(spec),
        preprocessing=spec,
        max_batch=options.max_batch,
        threshold=threshold,
        engine_thresholds={},
        tolerances={precision: detector.tolerance(precision) for precision in ("fp32", "fp16", "int8")},
        score_spread=spread,
        map_range=float(np.ptp(prediction.anomaly_map)),
        training=record.training,
        imported=record.imported,
        figures=count_figures(detector, model),
        tools=package_versions(),
        files={},
    )


def describe(model: ir.Model, manifest: Manifest) -> None:
    """Write metadata for readers of model.onnx without its bundle."""
    model.producer_name = "lineproof"
    model.producer_version = manifest.tools.get("lineproof", "")
    model.metadata_props.update(
        {
            "lineproof.detector": manifest.detector.name,
            "lineproof.precision": manifest.precision,
            "lineproof.input": f"{manifest.inputs[0].dtype} NHWC, {manifest.preprocessing.content}; everything after "
            "that is inside",
            "lineproof.threshold": repr(manifest.threshold.value),
        }
    )


def save_model(model: ir.Model, folder: Path) -> None:
    """Write model.onnx; the weights of a large model lie in a file beside it."""
    num_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    external = f"{MODEL}.data" if num_bytes > _EXTERNAL_ABOVE_BYTES else None
    if external is None:
        # Weights that lie beside an imported file would be looked for beside this one.
        ir.external_data.load_to_model(model)
    ir.save(model, folder / MODEL, external_data=external)
