"""anomalib's CS-Flow, whose features are those of torchvision's EfficientNet-B5.

timm's ``efficientnet_b5`` is the same network but for the epsilon of its batch normalisations, which goes into their
variances. The permutations are no tensors: anomalib draws them from NumPy's generator, seeded by the number of the
block, one for all scales. Its map is the product of the scales' mean squares. It cuts to ±10⁶ what
leaves a block.
"""

import numpy as np
import torch
from torch import Tensor

from .source import BACKBONE, Converted, Source, Tensors

_CHANNELS = 304
_NUM_SCALES = 3
#: Epsilon of the normalisations, in torchvision's network and in timm's.
_EPSILON, _EPSILON_HERE = 1e-3, 1e-5
_EXTRACTOR = "feature_extractor.feature_extractor"
#: Places of the modules of a block in torchvision, and their names in timm: in the first stage, which does not widen
#: its maps first, and in the others.
_FIRST = {
    "0.0": "conv_dw",
    "0.1": "bn1",
    "1.fc1": "se.conv_reduce",
    "1.fc2": "se.conv_expand",
    "2.0": "conv_pw",
    "2.1": "bn2",
}
_OTHERS = {
    "0.0": "conv_pw",
    "0.1": "bn1",
    "1.0": "conv_dw",
    "1.1": "bn2",
    "2.fc1": "se.conv_reduce",
    "2.fc2": "se.conv_expand",
    "3.0": "conv_pwl",
    "3.1": "bn3",
}
_STEM = {"0": "conv_stem", "1": "bn1"}


def convert_csflow(source: Source) -> Converted:
    """Convert a CS-Flow model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    settings.require("num_channels", 3)
    steps = settings.take("n_coupling_blocks", 4)
    chosen = {
        "backbone": "efficientnet_b5",
        "steps": steps,
        "clamp": settings.take("clamp", 3.0),
        "largest": 1e6,
        "hidden_channels": settings.take("cross_conv_hidden_channels", 1024),
        "combination": "product",
    }
    state = _backbone(tensors) | {
        "standardise.mean": torch.zeros(_CHANNELS),
        "standardise.rate": torch.ones(_CHANNELS),
    }
    for step in range(steps):
        order = torch.from_numpy(np.random.default_rng(step).permutation(_CHANNELS))
        state[f"flow.module_list.{2 * step}.perm"] = order
        state[f"flow.module_list.{2 * step}.perm_inv"] = order.argsort()
        for net in (1, 2):
            theirs = f"graph.graph.module_list.{2 * step + 1}.cross_convolution{net}"
            state |= _subnet(tensors, theirs, ours=f"flow.module_list.{2 * step + 1}.subnet{net}")
    return Converted(model="Csflow", detector="csflow", settings=chosen, state=state)


def _backbone(tensors: Tensors) -> dict[str, Tensor]:
    """The network under timm's names. From 2.x on the checkpoint holds it twice, with its last stages in the copy."""
    tensors.leave(f"{_EXTRACTOR}.backbone")
    state = {}
    for name, tensor in tensors.take_under(f"{_EXTRACTOR}.feature_extractor.features").items():
        value = tensor + (_EPSILON - _EPSILON_HERE) if name.endswith("running_var") else tensor
        state[f"{BACKBONE}.{_timm_name(name)}"] = value
    return state


def _timm_name(name: str) -> str:
    """A tensor's name below ``features`` in torchvision → its name in timm."""
    module, _, leaf = name.rpartition(".")
    stage, _, rest = module.partition(".")
    if stage == "0":
        return f"{_STEM[rest]}.{leaf}"
    block, _, place = rest.partition(".block.")
    names = _FIRST if stage == "1" else _OTHERS
    return f"blocks.{int(stage) - 1}.{block}.{names[place]}.{leaf}"


def _subnet(tensors: Tensors, theirs: str, *, ours: str) -> dict[str, Tensor]:
    """The convolutions of one subnet, by scale, and the gains of its outputs."""
    scales = range(_NUM_SCALES)
    places = {f"first.{scale}": f"conv_scale{scale}_0" for scale in scales}
    places |= {f"same.{scale}": f"conv_scale{scale}_1" for scale in scales}
    places |= {f"up.{scale}": f"up_conv{scale + 1}{scale}" for scale in scales[:-1]}
    places |= {f"down.{scale}": f"down_conv{scale}{scale + 1}" for scale in scales[:-1]}
    state = {
        f"{ours}.{here}.{leaf}": tensors.take(f"{theirs}.{there}.{leaf}")
        for here, there in places.items()
        for leaf in ("weight", "bias")
    }
    return state | {f"{ours}.gamma": torch.cat([tensors.take(f"{theirs}.gamma{scale}") for scale in scales])}
