"""anomalib's CFlow, as it scores one image at a time.

It takes the likeliest vector of the whole batch for probability 1, and subtracts the sum of the levels' probabilities
from its largest value in the whole batch: there the score of an image depends on its neighbours. A batch of one has
none, and that is what ours computes, whatever the batch: the scores are those of ``Engine.predict`` with a loader of
``eval_batch_size`` 1. The threshold and the extremes of a checkpoint were found with the batches of its validation.

Its permutations only renumber the channels; ours take any.
"""

import torch
from torch import Tensor

from .source import Converted, Source, take_backbone

_LAYERS = ["layer2", "layer3", "layer4"]
_NOTE = (
    "anomalib's CFlow compares an image with all others of its batch; here every image is judged alone, as by anomalib "
    "with eval_batch_size 1. The checkpoint's threshold and extremes were found with the batches of its validation."
)


def convert_cflow(source: Source) -> Converted:
    """Convert a CFlow model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "wide_resnet50_2")
    settings.require("layers", _LAYERS, _LAYERS[:2], _LAYERS[:1])
    settings.require("decoder", "freia-cflow")
    settings.require("condition_vector", 128)
    # The permutations themselves, dense or not, are tensors; vectors are scored in parts, each by itself.
    settings.require("permute_soft", False)
    settings.leave("pre_trained", "fiber_batch_size", "lr")
    num_levels = sum(tensors.has(f"decoders.{level}") for level in range(len(_LAYERS)))
    state = take_backbone(source, "encoder.feature_extractor") | {"ceilings": torch.zeros(num_levels)}
    state |= _flows(tensors.take_under("decoders"))
    chosen = {
        "backbone": backbone,
        "num_levels": num_levels,
        "steps": settings.take("coupling_blocks", 8),
        "clamp": settings.take("clamp_alpha", 1.9),
        "likeliest": "image",
    }
    return Converted(model="Cflow", detector="cflow", settings=chosen, state=state, notes=(_NOTE,))


def _flows(decoders: dict[str, Tensor]) -> dict[str, Tensor]:
    """FrEIA's blocks as they are, but for the inverse permutations, which only sampling needs."""
    return {f"flows.{name}": tensor for name, tensor in decoders.items() if not name.endswith(".w_perm_inv")}
