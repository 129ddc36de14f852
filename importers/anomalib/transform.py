"""What a checkpoint's transform does to an image: resize, centre crop, normalise.

1.x and 2.7 keep it. 2.0 to 2.6 keep it only where it was given to the model; a model that was made with
``pre_processor=True`` has its release's default, which stands in no file: 256x256 and ImageNet's normalisation for most
models, no normalisation for EfficientAD. PatchCore's default had a centre crop in 2.0 and has none since 2.1, DRAEM's a
normalisation in 2.0 and none since 2.1, and the files of these releases look alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from ...core.errors import BadInputError, UsageError
from ...core.size import Size, size_text
from .checkpoint import Checkpoint, Inert

#: A value per RGB channel.
Channels = tuple[float, float, float]

_CONFIG = "anomalib_pre_processor_config"
_WHY = "Only Resize to a height and a width (bilinear, antialias), CenterCrop and Normalize stand in a bundle's graph."
_NO_NORMALISATION = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DEFAULT_PX = (256, 256)
_DEFAULTS = {
    "padim": _IMAGENET,
    "patchcore": _IMAGENET,
    "fastflow": _IMAGENET,
    "reverse_distillation": _IMAGENET,
    "cflow": _IMAGENET,
    "csflow": _IMAGENET,
    "dfm": _IMAGENET,
    "stfpm": _IMAGENET,
    "efficient_ad": _NO_NORMALISATION,
}
#: The model whose default crop depends on the release, and a setting that only releases without a crop have.
_CROPPED, _UNCROPPED_HAVE = "patchcore", "precision"


@final
@dataclass(frozen=True, kw_only=True)
class Transform:
    """A transform.

    Attributes:
        resize_px: height and width after the antialiased resize.
        crop_px: height and width of the centre crop; ``resize_px`` for none.
        mean: mean per RGB channel of values in [0, 1].
        std: standard deviation likewise.
        notes: sentences about what the checkpoint does not say itself.
    """

    resize_px: Size
    crop_px: Size
    mean: Channels
    std: Channels
    notes: tuple[str, ...] = ()

    def then(self, normalisation: tuple[Channels, Channels] | None) -> Transform:
        """Return this transform with another mean and standard deviation after its own; None leaves it as it is."""
        if normalisation is None:
            return self
        offsets, scales = normalisation
        mean = [m + s * offset for m, s, offset in zip(self.mean, self.std, offsets, strict=True)]
        std = [s * scale for s, scale in zip(self.std, scales, strict=True)]
        return replace(self, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


@final
@dataclass(frozen=True)
class _Step:
    """One step of a transform: the name of its class without the package, and its values by name."""

    name: str
    values: Mapping[str, Any]


def read_transform(checkpoint: Checkpoint, *, model: str = "", crop: Size | None = None) -> Transform:
    """Return the transform that a checkpoint's model was trained and validated with.

    Args:
        checkpoint: the checkpoint.
        model: name of its model, such as ``padim``, whose default stands in for a transform that is not stored.
        crop: height and width of the centre crop, where the checkpoint does not say it.

    Raises:
        BadInputError: the checkpoint holds none and the default is not known, or it holds one with another step than
            those that a graph can hold.
        UsageError: ``crop`` is given, and the checkpoint says its crop itself or it does not fit.
    """
    stored = _stored(checkpoint)
    if stored is None and model in _DEFAULTS and checkpoint.settings.get("pre_processor") is True:
        return _default(checkpoint, model, crop)
    if crop is not None:
        raise UsageError(
            f"crop (--crop) is {size_text(crop)}; {checkpoint.path} says its crop itself, or was not made with the "
            "default transform. Leave it out."
        )
    steps = _steps(stored, checkpoint)
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


def _default(checkpoint: Checkpoint, model: str, crop: Size | None) -> Transform:
    """The default of the releases that keep none in the file."""
    can_crop = model == _CROPPED and _UNCROPPED_HAVE not in checkpoint.settings
    if can_crop and crop is None:
        raise BadInputError(
            f"{checkpoint.path} does not say how its images were cropped: PatchCore's default was a crop of 224x224 in "
            "anomalib 2.0 and none in 2.1 and 2.2, and their files look alike. Say it: --crop 224x224 for 2.0, --crop "
            "256x256 (no crop) for 2.1 and 2.2."
        )
    if crop is not None and (
        not can_crop or not all(0 < side <= most for side, most in zip(crop, _DEFAULT_PX, strict=True))
    ):
        raise UsageError(
            f"crop (--crop) is {size_text(crop)}; expected "
            + (f"at most {size_text(_DEFAULT_PX)}." if can_crop else "none: this model's default has no crop.")
        )
    mean, std = _DEFAULTS[model]
    cropped = f", cropped to {size_text(crop)} (--crop)" if crop and crop != _DEFAULT_PX else ""
    note = (
        f"The checkpoint was made with its release's default transform and does not hold it: {size_text(_DEFAULT_PX)}"
        f"{cropped}, {'not normalised' if _DEFAULTS[model] == _NO_NORMALISATION else 'ImageNet normalisation'}, as in "
        "anomalib 2.0 to 2.6."
    )
    return Transform(resize_px=_DEFAULT_PX, crop_px=crop or _DEFAULT_PX, mean=mean, std=std, notes=(note,))


def _stored(checkpoint: Checkpoint) -> Any:
    """The transform as the checkpoint's release stores it."""
    config = checkpoint.entries.get(_CONFIG)
    if isinstance(config, Mapping):
        return config.get("transform")
    given = checkpoint.settings.get("pre_processor")
    if isinstance(given, Inert):
        return _field(given, "transform")
    return checkpoint.entries.get("transform")


def _steps(stored: Any, checkpoint: Checkpoint) -> list[_Step]:
    if stored is None or isinstance(stored, bool):
        raise BadInputError(
            f"{checkpoint.path} does not say how its images were resized and normalised, and what its release does by "
            "default is not known of this model. Make the model with pre_processor=PreProcessor(transform=…) in that "
            "release, load the weights and save it again."
        )
    step = _step(stored, checkpoint)
    if step.name != "Compose":
        return [step]
    return [inner for item in step.values.get("transforms", ()) for inner in _steps(item, checkpoint)]


def _step(stored: Any, checkpoint: Checkpoint) -> _Step:
    if isinstance(stored, Mapping) and isinstance(stored.get("class_path"), str):
        return _Step(_own_name(stored["class_path"], checkpoint), stored.get("init_args") or {})
    if isinstance(stored, Inert):
        state = stored.state if isinstance(stored.state, Mapping) else {}
        values = {key: value for key, value in state.items() if not key.startswith("_") and key != "training"}
        return _Step(_own_name(stored.name, checkpoint), values | dict(state.get("_modules") or {}))
    raise BadInputError(f"{checkpoint.path}: a step of its transform is {stored!r:.80}; {_WHY}")


def _own_name(path: str, checkpoint: Checkpoint) -> str:
    """The name of torchvision's class; that of another package may do something else under the same name."""
    if not path.startswith("torchvision.transforms."):
        raise BadInputError(
            f"{checkpoint.path}: a step of its transform is {path}; expected one of torchvision. {_WHY}"
        )
    return path.rpartition(".")[2]


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
