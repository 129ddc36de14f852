"""Checkpoints of trained detectors: safetensors for tensors, JSON for everything else, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...bundle.atomic import new_file
from ...bundle.imported import ImportRecord
from ...bundle.manifest import DetectorRecord
from ...core.errors import BadInputError, LineproofError
from ...core.inputs import InputSpec
from ..base import AbstractDetector, build_detector, make_config
from ..nn.finite import describe_not_finite
from ..nn.graph import FrameGraph
from .state import unshared


def save_weights(detector: AbstractDetector[Any], path: Path) -> None:
    """Write every tensor of the detector's state dict; a shared tensor is written once per name.

    Args:
        detector: fitted detector.
        path: the checkpoint, a .safetensors file.

    Raises:
        LineproofError: a tensor holds NaN or infinite values; nothing is written.
    """
    state = unshared(detector.state_dict())
    not_finite = describe_not_finite(state)
    if not_finite:
        raise LineproofError(
            f"The fit ended in weights that are not finite, and was not saved: {not_finite}. Look for images that are "
            "all of one value, lower the learning rate where the method has one, and train again, into a new --out."
        )
    with new_file(path) as file:
        save_file(state, file)


def load_detector(record: DetectorRecord, weights: Path) -> AbstractDetector[Any]:
    """Rebuild a detector from its record and load its tensors strictly.

    Args:
        record: name and parameters of the detector.
        weights: the checkpoint, a .safetensors file.

    Returns:
        The detector in evaluation mode, on the CPU.

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
    if not_finite := describe_not_finite(state):
        raise BadInputError(f"{weights} cannot be used: {not_finite}. Copy it again, or train again.")
    return detector.eval()


def load_reference(
    record: DetectorRecord, preprocessing: InputSpec, *, weights: Path, imported: ImportRecord | None = None
) -> nn.Module:
    """Load the PyTorch reference: the preprocessing and the detector in its training form, not lowered.

    Args:
        record: name and parameters of the detector.
        preprocessing: specification of the frames and of what is done to them.
        weights: the checkpoint, a .safetensors file.
        imported: where an imported detector came from; None where lineproof trained it.

    Returns:
        A module from uint8 frames (N, H, W, C) to score float32 (N,) and anomaly_map float32 (N, h, w).
    """
    return FrameGraph(preprocessing, load_detector(record, weights), imported=imported).eval()


def score_images(detector: nn.Module, images: Any, *, batch_size: int = 8) -> list[float]:
    """Score the files of an ImageSet or a ScanSet with the detector in its training form.

    Args:
        detector: fitted detector.
        images: what its ``forward`` takes.
        batch_size: images, or tiles of images, at a time.

    Returns:
        The score of each file: where it was cut into tiles the largest of theirs.
    """
    scores: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = images.batch(range(start, min(start + batch_size, len(images))))
            scores += detector(batch)[0].tolist()
    # NumPy's maximum keeps what is no number, which must not be lost.
    largest: list[float] = np.reshape(scores, (-1, images.num_tiles)).max(axis=1).tolist()
    return largest
