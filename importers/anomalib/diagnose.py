"""Looks for the reasons why a file that anomalib exported gives other verdicts than the checkpoint it came from.

The reference is the checkpoint's model in lineproof's form, on images resized with antialias: what anomalib's
Engine.predict computes (``lineproof verify --against anomalib`` proves that). Each cause is isolated by running the
exported file again with that one thing taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import BadInputError
from ...core.progress import Progress, silent
from ...data.dataset import Dataset
from ...data.decoding.decode import decode_image
from ...data.records import relative
from ...detectors.training.images import ImageSet
from ...host.environment import describe_environment
from ...runtime.exported import OrtFile
from .causes import (
    Case,
    Scores,
    antialias,
    arithmetic,
    calibration,
    frozen_batch,
    is_free_size,
    run_file,
    scale,
    threshold,
    ties,
    unexplained,
)
from .diagnosis import Diagnosis
from .model import LoadedModel, load_model
from .transform import Transform


def diagnose_anomalib(path: Path, *, exported: Path, dataset: Dataset, progress: Progress = silent) -> Diagnosis:
    """Compare an exported file with its checkpoint on the test images of a data set, and look for the reasons.

    Args:
        path: the checkpoint.
        exported: the ONNX file that anomalib exported of it.
        dataset: data set whose test images are judged.
        progress: called after each image.

    Raises:
        BadInputError: the checkpoint cannot be imported or says no scale, or the exported file cannot be run.
        EnvironmentMissingError: ONNX Runtime is not installed.
    """
    file = OrtFile(exported)
    loaded = load_model(path)
    case = _case(loaded, dataset, progress)
    own_size = is_free_size(file)
    images = case.own_size if own_size else case.resized
    seen = run_file(file, case, images, "exported file", progress)
    outside = run_file(file, case, case.resized, "exported file, resized outside", progress) if own_size else seen
    of_scale = scale(case, outside)
    findings = [
        antialias(case, seen, outside, is_free=own_size),
        frozen_batch(file, case),
        arithmetic(exported, case, images, progress),
        ties(case),
        of_scale,
        threshold(case, outside),
        unexplained(case, outside, is_raw=of_scale.is_present),
        calibration(case),
    ]
    verdicts, good = case.verdicts, case.labels == 0
    return Diagnosis(
        checkpoint=path.name,
        exported=exported.name,
        model=loaded.converted.model,
        num_images=len(case.names),
        num_defective=int(case.labels.sum()),
        rejected=(int(verdicts.sum()), int(seen.verdicts.sum())),
        good_rejected=(int(verdicts[good].sum()), int(seen.verdicts[good].sum())),
        differ=tuple(np.array(case.names)[verdicts != seen.verdicts].tolist()),
        score_error=float(np.abs(seen.scores - case.reference).max()),
        findings=tuple(findings),
        environment=describe_environment(),
    )


def _case(loaded: LoadedModel, dataset: Dataset, progress: Progress) -> Case:
    imported, transform = loaded.imported, loaded.transform
    imported.check_normalisation()
    if not dataset.test:
        raise BadInputError(f"{dataset.root} holds no test image. Expected some good and some defective ones.")
    paths = [sample.path for sample in dataset.test]
    plain = _set(paths, transform).plain()
    raw = _reference(loaded.detector, _set(paths, transform), progress)
    item = imported.image
    assert item is not None  # noqa: S101 (check_normalisation has seen it)
    return Case(
        imported=imported,
        labels=np.array([int(bool(sample.label)) for sample in dataset.test]),
        reference=item.apply(raw).astype(np.float64),
        raw=raw,
        names=tuple(relative(path, dataset.root) for path in paths),
        own_size=lambda index: np.ascontiguousarray(
            np.transpose(decode_image(paths[index]), (2, 0, 1)).astype(np.float32) / np.float32(255.0)
        ),
        resized=lambda index: plain.batch([index])[0].numpy(),
    )


def _set(paths: Sequence[Path], transform: Transform) -> ImageSet:
    return ImageSet(paths, transform.resize_px, crop_px=transform.crop_px, mean=transform.mean, std=transform.std)


def _reference(detector: torch.nn.Module, images: ImageSet, progress: Progress) -> Scores:
    scores = []
    with torch.inference_mode():
        for index in range(len(images)):
            scores.append(float(detector(images.batch([index]))[0]))
            progress("checkpoint's model", index + 1, len(images))
    return np.array(scores)
