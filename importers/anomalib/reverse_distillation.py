"""anomalib's Reverse Distillation.

Its decoder has the teacher's blocks, its embedding narrower bottlenecks than the authors' code, and its smoothing
reflects the map at the border without repeating the last pixel. The levels may be multiplied instead of added.
"""

from torch import Tensor

from ...core.errors import BadInputError
from .source import Converted, Source, Tensors, take_backbone

_STAGES = ("layer1", "layer2", "layer3")
_COMBINATIONS = {"add": "sum", "multiply": "product"}
#: Where each of ours finds its convolution and its normalisation, by number, in anomalib's bottleneck.
_FUSION = {"0.0": 1, "0.1": 2, "1.0": 3}


def convert_reverse_distillation(source: Source) -> Converted:
    """Convert a Reverse Distillation model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "wide_resnet50_2")
    settings.require("layers", list(_STAGES))
    settings.leave("pre_trained")
    mode = settings.take("anomaly_map_mode", "add")
    if mode not in _COMBINATIONS:
        raise BadInputError(
            f"The Reverse Distillation in this checkpoint has anomaly_map_mode {mode!r}; expected add or multiply."
        )
    # Built by anomalib, never run.
    tensors.leave("bottleneck.conv4")
    tensors.leave("bottleneck.bn4")
    state = take_backbone(source, "encoder.feature_extractor")
    for ours, number in _FUSION.items():
        state |= _under(f"student.fusion.{ours}.conv", tensors.take_under(f"bottleneck.conv{number}"))
        state |= _under(f"student.fusion.{ours}.norm", tensors.take_under(f"bottleneck.bn{number}"))
    state |= _stage(tensors, "bottleneck.bn_layer", shortcut="downsample", ours="student.embedding")
    for number, stage in enumerate(_STAGES):
        state |= _stage(tensors, f"decoder.{stage}", shortcut="upsample", ours=f"student.decoder.{number}")
    chosen = {"backbone": backbone, "blocks": "teacher", "combination": _COMBINATIONS[mode], "border": "reflect"}
    return Converted(model="ReverseDistillation", detector="reverse_distillation", settings=chosen, state=state)


def _stage(tensors: Tensors, theirs: str, *, shortcut: str, ours: str) -> dict[str, Tensor]:
    """The blocks of one stage: two or three convolutions each, and a shortcut in the first."""
    state: dict[str, Tensor] = {}
    block = 0
    while tensors.has(f"{theirs}.{block}"):
        here, there = f"{ours}.{block}", f"{theirs}.{block}"
        number = 1
        while tensors.has(f"{there}.conv{number}"):
            state |= _under(f"{here}.body.{number - 1}.conv", tensors.take_under(f"{there}.conv{number}"))
            state |= _under(f"{here}.body.{number - 1}.norm", tensors.take_under(f"{there}.bn{number}"))
            number += 1
        if tensors.has(f"{there}.{shortcut}"):
            state |= _under(f"{here}.shortcut.conv", tensors.take_under(f"{there}.{shortcut}.0"))
            state |= _under(f"{here}.shortcut.norm", tensors.take_under(f"{there}.{shortcut}.1"))
        block += 1
    return state


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
