"""What a checkpoint says of its scores: thresholds, the numbers that normalise them, sensitivities.

Releases keep them in three places. 1.x has metrics among its tensors. 2.0 to 2.6 have tensors of a post-processor,
whose switches stand among the model's arguments where it was given; 2.7 has the same tensors, and the switches as plain
data. 1.x calls a score that equals the threshold NG, 2.x does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...bundle.imported import ImportRecord, Normalisation, ScoreScale
from ...core.errors import BadInputError
from .checkpoint import Checkpoint, Inert
from .transform import Transform

LIBRARY = "anomalib"
_CONFIG = "anomalib_post_processor_config"
_NUMBERS = tuple(
    f"post_processor.{name}"
    for name in ("_image_threshold", "_pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")
)
_PARTS = ("image", "pixel")
#: What 1.x calls the scores of images and the maps.
_FORMER = {"image": "pred_scores", "pixel": "anomaly_maps"}
_SWITCHES = {
    "enable_normalization", "enable_thresholding", "enable_threshold_matching", "image_sensitivity",
    "pixel_sensitivity",
}  # fmt: skip
_POST_PROCESSORS = ("PostProcessor", "OneClassPostProcessor")


def import_record(checkpoint: Checkpoint, *, model: str, transform: Transform, score_scale: ScoreScale) -> ImportRecord:
    """Return the record of an import.

    Args:
        checkpoint: the checkpoint.
        model: name of the method in anomalib.
        transform: what is done to an image before the model sees it.
        score_scale: units in which the bundle shall give scores.

    Raises:
        BadInputError: scores are normalised or thresholded in a way that is not known, or ``score_scale`` is
            anomalib's and the file does not say what that is.
    """
    _check_components(checkpoint)
    switches = _switches(checkpoint)
    found: list[float | None] = [
        checkpoint.number(f"post_processor._{part}_threshold", f"{part}_threshold.value") for part in _PARTS
    ]
    if _was_not_validated(checkpoint):
        found = [None, None]
    if _switch(switches, "enable_threshold_matching", checkpoint):
        # What one side lacks it takes from the other.
        found = [found[1] if found[0] is None else found[0], found[0] if found[1] is None else found[1]]
    is_normalised, is_judged = (
        _switch(switches, name, checkpoint) for name in ("enable_normalization", "enable_thresholding")
    )
    if not (is_normalised and is_judged):
        # Without one of both anomalib gives no verdict by these numbers.
        found = [None, None]
    image, pixel = (
        _normalisation(checkpoint, part, value) if is_normalised else None
        for part, value in zip(_PARTS, found, strict=True)
    )
    record = ImportRecord(
        library=LIBRARY,
        library_version=_version(checkpoint),
        model=model,
        file=checkpoint.path.name,
        sha256=checkpoint.sha256,
        mean=transform.mean,
        std=transform.std,
        image=image,
        pixel=pixel,
        image_sensitivity=_share(switches, "image_sensitivity", checkpoint),
        pixel_sensitivity=_share(switches, "pixel_sensitivity", checkpoint),
        score_scale=score_scale,
        has_threshold=found[0] is not None,
        is_inclusive=_is_former(checkpoint),
    )
    record.check_scale()
    return record


def _check_components(checkpoint: Checkpoint) -> None:
    """Refuse a model without its pre-processor, and one whose numbers are missing rather than not set."""
    enabled = checkpoint.entries.get("anomalib_components_enabled")
    if isinstance(enabled, Mapping) and enabled.get("pre_processor") is False:
        raise BadInputError(
            f"{checkpoint.path} was made with pre_processor=False: what was done to its images stands outside of it. "
            "Make it with the PreProcessor that does the same, load the weights and save it again."
        )
    if isinstance(enabled, Mapping) and enabled.get("post_processor") is False:
        return
    missing = [name for name in _NUMBERS if name not in checkpoint.tensors]
    if not _is_former(checkpoint) and missing:
        raise BadInputError(
            f"{checkpoint.path} lacks {', '.join(missing)}, which every release from 2.0 on writes. The file "
            "was changed."
        )


def _is_former(checkpoint: Checkpoint) -> bool:
    """Whether a release before 2.0 wrote it, which keeps the names of its metrics' classes."""
    return bool(checkpoint.classes)


def _was_not_validated(checkpoint: Checkpoint) -> bool:
    """Whether 1.x saved the model before its first validation: the threshold is a constant then, extremes infinite."""
    return any(
        name in checkpoint.tensors and not math.isfinite(float(checkpoint.tensors[name].flatten()[0]))
        for name in (f"normalization_metrics.{_FORMER['image']}.{end}" for end in ("min", "max"))
    )


def _version(checkpoint: Checkpoint) -> str:
    """The release as far as its format tells it."""
    if _CONFIG in checkpoint.entries:
        return "2.7 or later"
    return "1.x" if _is_former(checkpoint) else "2.0 to 2.6"


def _normalisation(checkpoint: Checkpoint, part: str, threshold: float | None) -> Normalisation | None:
    kind = checkpoint.classes.get(f"{_FORMER[part]}_normalization_class", "MinMax")
    if kind.rpartition(".")[2] != "MinMax":
        raise BadInputError(
            f"{checkpoint.path} normalises its scores by {kind} ({_FORMER[part]}_normalization_class); expected MinMax."
        )
    low, high = (
        checkpoint.number(f"post_processor.{part}_{end}", f"normalization_metrics.{_FORMER[part]}.{end}")
        for end in ("min", "max")
    )
    numbers = {"threshold": threshold, "min": low, "max": high}
    wrong = {name: value for name, value in numbers.items() if value is not None and not math.isfinite(value)}
    if wrong and not _was_not_validated(checkpoint):
        raise BadInputError(
            f"{checkpoint.path}: {', '.join(f'{part} {name} is {value}' for name, value in wrong.items())}; expected "
            "finite numbers. Run anomalib's validation again, and save it again."
        )
    if low is not None and high is not None and low > high:
        raise BadInputError(
            f"{checkpoint.path}: {part} min {low:g} is above {part} max {high:g}; expected a range. The file was "
            "changed."
        )
    if low is None or high is None or wrong:
        return None if threshold is None else Normalisation(threshold=threshold, low=threshold, high=threshold)
    return Normalisation(threshold=0.5 * (low + high) if threshold is None else threshold, low=low, high=high)


def _switches(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The post-processor's settings that are not the defaults, or all of them."""
    config = checkpoint.entries.get(_CONFIG)
    if isinstance(config, Mapping):
        if unknown := sorted(set(map(str, config)) - _SWITCHES):
            raise BadInputError(
                f"{checkpoint.path}: its post-processor has settings that are not known here: {', '.join(unknown)}. "
                "They might change its scores, and nothing is dropped silently."
            )
        return config
    given = checkpoint.settings.get("post_processor")
    if not isinstance(given, Inert):
        return {}
    if given.name.rpartition(".")[2] not in _POST_PROCESSORS or not isinstance(given.state, Mapping):
        raise BadInputError(
            f"{checkpoint.path} was made with post_processor = {given.name}; expected anomalib's own "
            f"{_POST_PROCESSORS[0]}. What another one does to scores is not known here."
        )
    return given.state


def _switch(switches: Mapping[str, Any], name: str, checkpoint: Checkpoint) -> bool:
    value = switches.get(name, True)
    if isinstance(value, bool):
        return value
    raise BadInputError(f"{checkpoint.path}: {name} of its post-processor is {value!r}; expected True or False.")


def _share(switches: Mapping[str, Any], name: str, checkpoint: Checkpoint) -> float:
    value = switches.get(name, 0.5)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0:
        return float(value)
    raise BadInputError(f"{checkpoint.path}: {name} of its post-processor is {value!r}; expected a share from 0 to 1.")
