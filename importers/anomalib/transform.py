"""What a checkpoint's transform does to an image: resize, centre crop, normalise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from ...core.errors import BadInputError
from ...core.size import Size
from .checkpoint import Checkpoint, Inert

_CONFIG = "anomalib_pre_processor_config"
_WHY = "Only Resize to a height and a width (bilinear, antialias), CenterCrop and Normalize stand in a bundle's graph."
_NO_NORMALISATION = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@final
@dataclass(frozen=True, kw_only=True)
class Transform:
    """A transform.

    Attributes:
        resize_px: height and width after the antialiased resize.
        crop_px: height and width of the centre crop; ``resize_px`` for none.
        mean: mean per RGB channel of values in [0, 1].
        std: standard deviation likewise.
    """

    resize_px: Size
    crop_px: Size
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@final
@dataclass(frozen=True)
class _Step:
    """One step of a transform: the name of its class without the package, and its values by name."""

    name: str
    values: Mapping[str, Any]


def read_transform(checkpoint: Checkpoint) -> Transform:
    """Return the transform that a checkpoint's model was trained and validated with.

    Raises:
        BadInputError: the checkpoint holds none, or one with another step than those that a graph can hold.
    """
    steps = _steps(_stored(checkpoint), checkpoint)
    resize = crop = None
    mean, std = _NO_NORMALISATION
    for index, step in enumerate(steps):
        if step.name == "Resize" and index == 0:
            resize = _size(step, checkpoint)
            _check_resize(step, checkpoint)
        elif step.name == "CenterCrop" and index == 1:
            crop = _size(step, checkpoint)
        elif step.name == "Normalize" and index == len(steps) - 1:
            mean, std = (_triple(step, name, checkpoint) for name in ("mean", "std"))
        else:
            raise BadInputError(
                f"{checkpoint.path}: step {index + 1} of {len(steps)} of its transform is {step.name} "
                f"({dict(step.values)}), which cannot be imported. {_WHY}"
            )
    if resize is None:
        raise BadInputError(
            f"{checkpoint.path}: its transform resizes nothing, so that it takes images of any size; expected a "
            f"Resize. {_WHY}"
        )
    return Transform(resize_px=resize, crop_px=crop or resize, mean=mean, std=std)


def _stored(checkpoint: Checkpoint) -> Any:
    """The transform as the checkpoint's release stores it."""
    config = checkpoint.entries.get(_CONFIG)
    if isinstance(config, Mapping):
        return config.get("transform")
    settings = checkpoint.entries.get("hyper_parameters")
    given = settings.get("pre_processor") if isinstance(settings, Mapping) else None
    if isinstance(given, Inert):
        return _field(given, "transform")
    return checkpoint.entries.get("transform")


def _steps(stored: Any, checkpoint: Checkpoint) -> list[_Step]:
    if stored is None or isinstance(stored, bool):
        raise BadInputError(
            f"{checkpoint.path} does not say how its images were resized and normalised: a release before 2.7 of "
            "anomalib saved a model that was made with the defaults. Load it with that release, and save it again with "
            "pre_processor=PreProcessor(transform) given, or import it with a release from 2.7 on."
        )
    step = _step(stored, checkpoint)
    if step.name != "Compose":
        return [step]
    return [inner for item in step.values.get("transforms", ()) for inner in _steps(item, checkpoint)]


def _step(stored: Any, checkpoint: Checkpoint) -> _Step:
    if isinstance(stored, Mapping) and isinstance(stored.get("class_path"), str):
        return _Step(stored["class_path"].rpartition(".")[2], stored.get("init_args") or {})
    if isinstance(stored, Inert):
        state = stored.state if isinstance(stored.state, Mapping) else {}
        values = {key: value for key, value in state.items() if not key.startswith("_") and key != "training"}
        return _Step(stored.name.rpartition(".")[2], values | dict(state.get("_modules") or {}))
    raise BadInputError(f"{checkpoint.path}: a step of its transform is {stored!r:.80}; {_WHY}")


def _field(module: Inert, name: str) -> Any:
    """A field of a pickled module, which may be one of its submodules."""
    state = module.state if isinstance(module.state, Mapping) else {}
    modules = state.get("_modules") or {}
    return modules.get(name, state.get(name))


def _size(step: _Step, checkpoint: Checkpoint) -> Size:
    size = step.values.get("size")
    if isinstance(size, Sequence) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
        return int(size[0]), int(size[1])
    raise BadInputError(
        f"{checkpoint.path}: {step.name} of its transform has size {size!r}; expected height and width. One number "
        "alone keeps the proportions of each image, which a graph of one size cannot do."
    )


def _check_resize(step: _Step, checkpoint: Checkpoint) -> None:
    interpolation = step.values.get("interpolation", "bilinear")
    if isinstance(interpolation, Inert):
        interpolation = interpolation.arguments[0] if interpolation.arguments else "unknown"
    antialias, longest = step.values.get("antialias", True), step.values.get("max_size")
    if str(interpolation).lower() != "bilinear" or antialias is not True or longest is not None:
        raise BadInputError(
            f"{checkpoint.path}: Resize of its transform has interpolation {interpolation}, antialias {antialias}, "
            f"max_size {longest}; expected bilinear, True, None. {_WHY}"
        )


def _triple(step: _Step, name: str, checkpoint: Checkpoint) -> tuple[float, float, float]:
    values = step.values.get(name)
    if isinstance(values, Sequence) and len(values) == 3 and all(isinstance(item, int | float) for item in values):
        return float(values[0]), float(values[1]), float(values[2])
    raise BadInputError(f"{checkpoint.path}: Normalize of its transform has {name} {values!r}; expected three numbers.")
