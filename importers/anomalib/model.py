"""The model of a checkpoint: found by its tensors, converted, and built as the detector that it is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from ...bundle.imported import ImportRecord, ScoreScale
from ...core.errors import BadInputError, UsageError
from ...core.registry import resolve
from ...core.size import Size
from ...detectors.base import AbstractDetector, build_detector, make_config
from ...detectors.nn.graph import SmoothUpsample
from .checkpoint import Checkpoint, read_checkpoint
from .scores import import_record
from .source import BACKBONE, Converted, Settings, Source, Tensors
from .table import MODELS
from .transform import Transform, read_transform

_COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A checkpoint whose model is built.

    Attributes:
        checkpoint: what the file holds.
        transform: what is done to an image before the detector sees it, the model's own normalisation included.
        converted: its model in our form.
        imported: what it brings beside the model: thresholds and scale.
        detector: the detector, in evaluation mode.
    """

    checkpoint: Checkpoint
    transform: Transform
    converted: Converted
    imported: ImportRecord
    detector: AbstractDetector[Any]


def load_model(path: Path, *, crop: Size | None = None, score_scale: ScoreScale = "native") -> LoadedModel:
    """Read a checkpoint, and build its model.

    Args:
        path: the checkpoint.
        crop: height and width of the centre crop, where the checkpoint does not say it.
        score_scale: units in which scores are wanted.

    Raises:
        BadInputError: it cannot be read, or holds a model, a setting or a tensor that is not known.
        UsageError: ``crop`` is given, and the checkpoint says its crop itself or it does not fit.
    """
    checkpoint = read_checkpoint(path)
    transform = read_transform(checkpoint, model=model_name(checkpoint), crop=crop)
    converted = convert(checkpoint, transform)
    transform = transform.then(converted.normalisation)
    return LoadedModel(
        checkpoint=checkpoint,
        transform=transform,
        converted=converted,
        imported=import_record(checkpoint, model=converted.model, transform=transform, score_scale=score_scale),
        detector=build(converted, transform, checkpoint),
    )


def model_name(checkpoint: Checkpoint) -> str:
    """Return the name of a checkpoint's model, by which its converter is called.

    Raises:
        BadInputError: it is none of the known models.
    """
    return _name(MODELS[_mark(checkpoint)])


def _name(target: str) -> str:
    return target.rpartition("convert_")[2]


def _mark(checkpoint: Checkpoint) -> str:
    tensors = Tensors(checkpoint.model_tensors(), checkpoint.path)
    found = [mark for mark in MODELS if tensors.has(mark)]
    if len(found) != 1:
        first = list(checkpoint.tensors)[:3]
        raise BadInputError(
            f"{checkpoint.path} is none of the models of anomalib that are known here: no tensor, or several, of "
            f"{', '.join(f'model.{mark}' for mark in MODELS)} (its first are {', '.join(first)}). Known are "
            f"{', '.join(sorted(set(map(_name, MODELS.values()))))}."
        )
    return found[0]


def convert(checkpoint: Checkpoint, transform: Transform) -> Converted:
    """Convert the model of a checkpoint; everything in it must be known.

    Raises:
        BadInputError: it is none of the known models, or holds a setting or a tensor that is not known.
    """
    tensors = Tensors(checkpoint.model_tensors(), checkpoint.path)
    settings = Settings(checkpoint.settings, checkpoint.path)
    settings.leave(*_COMPONENTS)
    source = Source(tensors=tensors, settings=settings, size=transform.crop_px)
    converter = resolve(MODELS, _mark(checkpoint), kind="model")
    try:
        converted: Converted = converter(source)
    except (RuntimeError, IndexError, ValueError) as error:
        raise BadInputError(
            f"{checkpoint.path}: the tensors of its model do not fit one another "
            f"({' '.join(str(error).split())[:200]}). Give a checkpoint as anomalib saved it."
        ) from None
    tensors.check_all_taken()
    settings.check_all_taken()
    return converted


def build(converted: Converted, transform: Transform, checkpoint: Checkpoint) -> AbstractDetector[Any]:
    """Build our detector and load the converted tensors strictly.

    Raises:
        BadInputError: a tensor is missing or has another shape.
    """
    sizes = {"resize_px": transform.resize_px, "crop_px": transform.crop_px}
    try:
        config = make_config(converted.detector, {**sizes, "weights": "random", **converted.settings})
        detector = build_detector(converted.detector, config)
    except UsageError as error:
        raise BadInputError(f"{checkpoint.path}: its {converted.model} cannot be built here. {error}") from None
    kept = detector.state_dict()
    matrices = [name for name, module in detector.named_modules() if isinstance(module, SmoothUpsample)]
    built = {name for name in kept if any(f"{name}.".startswith(f"{top}.") for top in (*matrices, *converted.built))}
    # Of a backbone they may carry the stages behind the last tapped one, which compute nothing that is used.
    behind = {name for name in converted.state if name.startswith(f"{BACKBONE}.") and name not in kept}
    state = {name: tensor for name, tensor in converted.state.items() if name not in behind}
    try:
        detector.restore({name: kept[name] for name in built} | state)
        detector.eval()
        # Buffers take whatever size was saved: only a run shows that they fit one another.
        with torch.inference_mode():
            detector(torch.zeros(1, 3, *transform.crop_px))
    except (RuntimeError, IndexError, ValueError) as error:
        settings = ", ".join(f"{key} = {value!r}" for key, value in converted.settings.items())
        seen = " ".join(str(error).split())[:200]
        raise BadInputError(
            f"{checkpoint.path}: the tensors of its {converted.model} do not fit its settings ({settings}), or one "
            f"another: {seen} … Give a checkpoint as anomalib saved it."
        ) from None
    return detector
