"""From a training run to a bundle: one self-contained artefact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from ..bundle.manifest import Manifest
from ..bundle.store import GOLDEN, MODEL, REFERENCE, Bundle, check_place, now, write_bundle
from ..core.environment import package_versions
from ..core.errors import UsageError
from ..core.prediction import Prediction
from ..core.progress import Progress, silent
from ..core.spec import Preprocessing
from ..core.threshold import Threshold, calibrate
from ..detectors.base import AbstractDetector
from ..detectors.checkpoint import CHECKPOINT, CheckpointRecord, load_detector, read_record
from ..detectors.graph import FrameGraph
from .figures import count_figures, prove_precision
from .golden import frame_of, golden_frames
from .half import to_half
from .to_onnx import export_onnx, output_specs

#: Larger models keep their weights in a file beside the graph: protobuf ends at 2 GB.
_EXTERNAL_ABOVE_BYTES = 1_800_000_000
EXPORT_PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class ExportOptions:
    """What the bundle shall be.

    Attributes:
        frame: height, width and channels (3 RGB, 1 mono) of the camera frame in pixels; None takes the size of
            the training images, RGB.
        max_batch: largest batch.
        precision: ``fp32`` or ``fp16``.
        max_false_reject: share of good parts that may be rejected, for the threshold.
        has_reference: put the PyTorch weights into the bundle, so that the torch engine can run it.
    """

    frame: tuple[int, int, int] | None = None
    max_batch: int = 8
    precision: str = "fp32"
    max_false_reject: float = 0.01
    has_reference: bool = True


def export_bundle(run: Path, out: Path, *, options: ExportOptions | None = None, progress: Progress = silent) -> Bundle:
    """Export a finished run; an older bundle at ``out`` is replaced in one step, or stays.

    Raises:
        UsageError: a precision or batch that cannot be.
        BadInputError: the run is unfinished, or its held-out images are gone.
        ExportError: the detector does not trace, or the graph does not have the precision asked for.
    """
    options = options or ExportOptions()
    if options.precision not in EXPORT_PRECISIONS:
        raise UsageError(f"--precision {options.precision}: export writes {' or '.join(EXPORT_PRECISIONS)}.")
    if options.max_batch < 1:
        raise UsageError(f"--batch ends at {options.max_batch}; expected at least 1.")
    check_place(out)
    record = read_record(run)
    detector = load_detector(record.detector, run / CHECKPOINT)
    spec = _preprocessing(detector, record, options)
    reference = FrameGraph(spec, detector).eval()
    holdout = [Path(path) for path in record.holdout]
    frames, names = golden_frames(holdout, spec)
    answer = predict_reference(reference, frames)
    scores = _holdout_scores(record, reference, spec=spec, progress=progress)
    threshold = calibrate(
        scores,
        max_false_reject=options.max_false_reject,
        engine="torch",
        source=f"{len(scores)} held-out good images of {record.training.dataset} {record.training.category}".strip(),
    )
    progress("export", 0, 0)
    model = export_onnx(detector, spec, max_batch=options.max_batch)
    if options.precision == "fp16":
        to_half(model, detector.half_scopes)
    spread = float(np.std(scores, ddof=1))
    manifest = _manifest(
        record, detector, spec, model=model, answer=answer, threshold=threshold, spread=spread, options=options
    )
    prove_precision(options.precision, manifest.figures.nodes_per_dtype)
    _describe(model, manifest)

    def fill(folder: Path) -> None:
        _save_model(model, folder)
        np.savez_compressed(
            folder / GOLDEN, frames=frames, names=names, score=answer.score, anomaly_map=answer.anomaly_map
        )
        if options.has_reference:
            (folder / REFERENCE).write_bytes((run / CHECKPOINT).read_bytes())

    return write_bundle(out, manifest, fill)


def predict_reference(reference: nn.Module, frames: NDArray[np.uint8]) -> Prediction:
    """Score and map of each frame by the PyTorch reference, one frame at a time."""
    with torch.inference_mode():
        answers = [reference(torch.from_numpy(frame[None])) for frame in frames]
    score, anomaly_map = (torch.cat(part).numpy() for part in zip(*answers, strict=True))
    return Prediction(score, anomaly_map)


def _preprocessing(detector: AbstractDetector[Any], record: CheckpointRecord, options: ExportOptions) -> Preprocessing:
    height, width, channels = options.frame or (*record.frame, 3)
    resize, crop = detector.config.resize_px, detector.config.crop_px
    mean, std = detector.normalisation
    return Preprocessing(height, width, channels, resize, resize, crop, crop, mean, std)


def _holdout_scores(
    record: CheckpointRecord, reference: nn.Module, *, spec: Preprocessing, progress: Progress
) -> list[float]:
    """Scores of the held-out good images as frames of this size; the training run's own where they are such."""
    if spec.frames.shape[1:] == (*record.frame, 3):
        return list(record.holdout_scores)
    scores: list[float] = []
    for number, path in enumerate(record.holdout):
        frame = frame_of(Path(path), spec)
        scores += predict_reference(reference, frame[None]).score.tolist()
        progress("held-out scores", number + 1, len(record.holdout))
    return scores


def _manifest(
    record: CheckpointRecord,
    detector: AbstractDetector[Any],
    spec: Preprocessing,
    *,
    model: ir.Model,
    answer: Prediction,
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
        map_range=float(np.ptp(answer.anomaly_map)),
        training=record.training,
        figures=count_figures(detector, model),
        tools=package_versions(),
        files={},
    )


def _describe(model: ir.Model, manifest: Manifest) -> None:
    """Metadata for whoever finds the model.onnx alone."""
    model.producer_name = "lineproof"
    model.producer_version = manifest.tools.get("lineproof", "")
    model.metadata_props.update(
        {
            "lineproof.detector": manifest.detector.name,
            "lineproof.precision": manifest.precision,
            "lineproof.input": "uint8 NHWC frames as the camera gives them; resize, crop and normalisation are inside",
            "lineproof.threshold": repr(manifest.threshold.value),
        }
    )


def _save_model(model: ir.Model, folder: Path) -> None:
    num_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    external = f"{MODEL}.data" if num_bytes > _EXTERNAL_ABOVE_BYTES else None
    ir.save(model, folder / MODEL, external_data=external)
