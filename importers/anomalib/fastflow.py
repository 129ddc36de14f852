"""anomalib's FastFlow on a ResNet: the same flows, with a learned gain and offset after each layer normalisation."""

from ...core.errors import BadInputError
from .source import Converted, Source, take_backbone

_RESNETS = ("resnet18", "wide_resnet50_2")


def convert_fastflow(source: Source) -> Converted:
    """Convert a FastFlow model.

    Raises:
        BadInputError: its backbone is a transformer, it was made with other settings, or holds other tensors, that ours
            cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "resnet18")
    if backbone not in _RESNETS:
        raise BadInputError(
            f"The FastFlow in this checkpoint has the backbone {backbone}; expected one of {', '.join(_RESNETS)}: a "
            "transformer's single map has no counterpart here."
        )
    settings.leave("pre_trained")
    chosen = {
        "backbone": backbone,
        "steps": settings.take("flow_steps", 8),
        "only_3x3": settings.take("conv3x3_only", False),
        "hidden_ratio": settings.take("hidden_ratio", 1.0),
        "gains": "learned",
    }
    flows = tensors.take_under("fast_flow_blocks")
    gains = tensors.take_under("norms")
    state = take_backbone(source, "feature_extractor")
    state |= {f"flows.{name}": item for name, item in flows.items()}
    state |= {f"gains.{name}": item for name, item in gains.items()}
    return Converted(model="Fastflow", detector="fastflow", settings=chosen, state=state)
