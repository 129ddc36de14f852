"""anomalib's EfficientAD.

Its transform does not normalise; its networks do so themselves, with ImageNet's mean and standard deviation. What it
holds zeros for, statistics of the teacher or quantiles, was not computed, and nothing is scaled by it.
"""

import torch
from torch import Tensor

from ...core.spec import IMAGENET_MEAN, IMAGENET_STD
from .source import Converted, Source, Tensors

#: Their names of the autoencoder's convolutions → ours.
_AUTOENCODER = {
    **{f"encoder.enconv{number}": f"encoder.{number - 1}" for number in range(1, 6)},
    "encoder.enconv6": "latent",
    **{f"decoder.deconv{number}": f"decoder.{number - 1}" for number in range(1, 8)},
    "decoder.deconv8": "last",
}
#: With these quantiles a map stays as it is.
_UNSCALED = ((0.0, 0.1), (0.0, 0.1))


def convert_efficient_ad(source: Source) -> Converted:
    """Convert an EfficientAD model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    settings.leave("imagenet_dir", "lr", "weight_decay", "batch_size")
    channels = settings.take("teacher_out_channels", 384)
    kind, count = ("pdn_medium", 6) if tensors.has("teacher.conv6") else ("pdn_small", 4)
    settings.require("model_size", kind.removeprefix("pdn_"))
    state = {f"backbone.network.{name}": item for name, item in _convolutions(tensors, "teacher", count).items()}
    state |= {f"student.{name}": item for name, item in _convolutions(tensors, "student", count).items()}
    for theirs, ours in _AUTOENCODER.items():
        for part in ("weight", "bias"):
            state[f"autoencoder.{ours}.{part}"] = tensors.take(f"ae.{theirs}.{part}")
    mean, std = (tensors.take(f"mean_std.{name}").flatten() for name in ("mean", "std"))
    is_known = bool(mean.sum() != 0) or bool(std.sum() != 0)
    quantiles = torch.stack(
        [torch.stack([tensors.take(f"quantiles.q{end}_{name}") for end in "ab"]) for name in ("st", "ae")]
    )
    state |= {
        "feature_mean": mean,
        "feature_std": std if is_known else torch.ones_like(std),
        "quantiles": quantiles if bool((quantiles != 0).any()) else torch.tensor(_UNSCALED),
    }
    chosen = {
        "backbone": kind,
        "width": len(state["backbone.network.convs.0.bias"]),
        "channels": channels,
        "padding": settings.take("padding", False),
        "pad_maps": settings.take("pad_maps", True),
    }
    return Converted(
        model="EfficientAd",
        detector="efficient_ad",
        settings=chosen,
        state=state,
        normalisation=(IMAGENET_MEAN, IMAGENET_STD),
    )


def _convolutions(tensors: Tensors, network: str, count: int) -> dict[str, Tensor]:
    """A patch description network's tensors by the names that they have in ours; theirs count from 1."""
    return {
        f"convs.{number}.{part}": tensors.take(f"{network}.conv{number + 1}.{part}")
        for number in range(count)
        for part in ("weight", "bias")
    }
