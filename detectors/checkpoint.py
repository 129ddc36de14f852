"""A trained detector on disk: safetensors for tensors, JSON for everything else, no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..bundle.manifest import DetectorRecord, TrainingRecord
from ..core.errors import BadInputError, LineproofError
from ..core.spec import Fit, Preprocessing, check_fit
from .base import AbstractDetector, build_detector, make_config
from .finite import describe_not_finite
from .graph import FrameGraph

CHECKPOINT = "checkpoint.safetensors"
RECORD = "checkpoint.json"


@dataclass(frozen=True)
class CheckpointRecord:
    """What a run folder says about its checkpoint.

    Attributes:
        detector: name and parameters.
        training: data, seed.
        holdout: held-out good images, absolute paths.
        holdout_scores: the reference's score of each, at its own frame size.
        frame: height, width of the frames that training saw.
        fit: what the fit reported.
        frame_fit: how pictures of another size became frames, see ``data.frames``; None in a run of an earlier release,
            which took each picture at its own size and ``frame`` from the first.
        bit_depth: bits that the camera used in 16-bit pictures; None for all.
        frame_note: what became of the pictures' sizes, in words; "" where all were the frame's.
        conversions: what decoding did to the training pictures, in sentences.
    """

    detector: DetectorRecord
    training: TrainingRecord
    holdout: tuple[str, ...]
    holdout_scores: tuple[float, ...]
    frame: tuple[int, int]
    fit: dict[str, Any]
    frame_fit: Fit | None = None
    bit_depth: int | None = None
    frame_note: str = ""
    conversions: tuple[str, ...] = ()


def save_weights(detector: AbstractDetector[Any], path: Path) -> None:
    """Write every tensor of the detector; shared ones are written once per name.

    Raises:
        LineproofError: a tensor holds NaN or infinite values; nothing is written.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in detector.state_dict().items()}
    found = describe_not_finite(state)
    if found:
        raise LineproofError(
            f"The fit ended in weights that are not finite, and was not saved: {found}. Look for pictures that are "
            "all of one value, lower the learning rate where the method has one, and train again, into a new --out."
        )
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(state, temporary)
    temporary.replace(path)


def read_record(run: Path) -> CheckpointRecord:
    """Read ``checkpoint.json`` of a run folder.

    Raises:
        BadInputError: it is missing or not what this release writes.
    """
    path = run / RECORD
    if not path.is_file():
        raise BadInputError(f"{run} holds no {RECORD}: it is no finished run. See lineproof train --help")
    try:
        raw = json.loads(path.read_text())
        return CheckpointRecord(
            detector=DetectorRecord(**raw["detector"]),
            training=TrainingRecord(**raw["training"]),
            holdout=tuple(raw["holdout"]),
            holdout_scores=tuple(raw["holdout_scores"]),
            frame=(raw["frame"][0], raw["frame"][1]),
            fit=raw["fit"],
            frame_fit=check_fit(raw["frame_fit"]) if "frame_fit" in raw else None,
            bit_depth=raw.get("bit_depth"),
            frame_note=raw.get("frame_note", ""),
            conversions=tuple(raw.get("conversions", ())),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path} is not a checkpoint record of this release ({error!r}). Train again.") from None


def load_detector(record: DetectorRecord, weights: Path) -> AbstractDetector[Any]:
    """Rebuild a detector and load its tensors strictly.

    Raises:
        BadInputError: the file is unreadable, holds the tensors of another detector, or values that are not finite.
    """
    settings = {**record.parameters, "weights": "random"} if "weights" in record.parameters else record.parameters
    detector = build_detector(record.name, make_config(record.name, settings))
    try:
        state = load_file(weights)
        detector.restore(state)
    except (OSError, SafetensorError) as error:
        raise BadInputError(f"{weights} cannot be read ({error}). Copy it again, or train again.") from None
    except RuntimeError as error:
        raise BadInputError(f"{weights} does not fit {record.name}: {str(error)[:300]}. Train again.") from None
    if found := describe_not_finite(state):
        raise BadInputError(f"{weights} cannot be used: {found}. Copy it again, or train again.")
    return detector.eval()


def load_reference(record: DetectorRecord, preprocessing: Preprocessing, *, weights: Path) -> nn.Module:
    """The PyTorch reference: preprocessing and the detector in its training form, before any lowering.

    Returns:
        A module from uint8 frames (N, H, W, C) to score float32 (N,) and anomaly_map float32 (N, h, w).
    """
    return FrameGraph(preprocessing, load_detector(record, weights)).eval()


def score_images(detector: AbstractDetector[Any], images: Any, *, batch_size: int = 8) -> list[float]:
    """Scores of an ImageSet by the detector in its training form."""
    scores: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = images.batch(range(start, min(start + batch_size, len(images))))
            scores += detector(batch)[0].tolist()
    return scores
