"""anomalib's FastFlow on a ResNet: the same flows, with a learned gain and offset after each layer normalisation."""

from torch import Tensor

from ...core.errors import BadInputError
from .source import Converted, Source, take_backbone

_FORMER = {1: 0, 4: 2}
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
    flows = {_present_name(name): item for name, item in tensors.take_under("fast_flow_blocks").items()}
    for name, matrix in flows.items():
        if name.endswith(".w_perm") and not _is_permutation(matrix):
            raise BadInputError(
                f"The FastFlow in this checkpoint mixes channels by model.fast_flow_blocks.{name}, which is no "
                "permutation; expected one 1 in each row and column, as anomalib draws it."
            )
    gains = tensors.take_under("norms")
    state = take_backbone(source, "feature_extractor")
    state |= {f"flows.{name}": item for name, item in flows.items()}
    state |= {f"gains.{name}": item for name, item in gains.items()}
    return Converted(model="Fastflow", detector="fastflow", settings=chosen, state=state)


def _present_name(name: str) -> str:
    """The name of a subnet's convolution without the modules for padding that releases up to 2.6 have before each."""
    for former, present in _FORMER.items():
        name = name.replace(f".subnet.{former}.", f".subnet.{present}.")
    return name


def _is_permutation(matrix: Tensor) -> bool:
    """Whether a matrix (C, C, 1, 1) renumbers channels, as the flows here do."""
    ones = matrix.count_nonzero(0).eq(1).all() & matrix.count_nonzero(1).eq(1).all()
    return bool(ones & (matrix.eq(0) | matrix.eq(1)).all())
