"""The convolutions of torchvision's AlexNet, which timm does not have, used like a ``features.Backbone``."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...bundle.manifest import WeightsRecord
from ...core.errors import BadInputError
from ..backbones.frozen import FrozenNetwork
from ..backbones.hub import cached_url, reach_url
from ..backbones.weights import hub_missing, record_of, refuse_not_finite

ALEXNET = "alexnet"
#: Smaller images leave nothing after the third pooling.
SMALLEST_PX = 63


class AlexNet(FrozenNetwork):
    """The frozen ``features`` part of torchvision's AlexNet: five convolutions, the last pooling included.

    Args:
        weights: ``"imagenet"`` (torchvision's own, from its hub), ``"random"`` (for figures and tests only), or a
            ``.safetensors`` or ``.pth`` file of torchvision's whole network.

    Attributes:
        channels: number of channels of its one map, (256,).

    Raises:
        EnvironmentMissingError: the hub cannot be reached.
        BadInputError: the file is missing, unreadable, holds another network, or values that are not finite.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.layers = _create(weights).features.eval().requires_grad_(False)
        self.channels = (256,)
        self.mean = (0.485, 0.456, 0.406)
        self.std = (0.229, 0.224, 0.225)
        self.pretrained = _record(weights)

    def late_stages(self) -> tuple[str, ...]:
        """Return the paths of the modules after the first convolution and its pooling; see ``Backbone.late_stages``."""
        return tuple(f"layers.{index}" for index in range(3, len(self.layers)))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Normalised images float32 (N, 3, H, W), H, W ≥ 63 → one map float32 (N, 256, about H / 32, W / 32)."""
        return (self.layers(images),)


def _create(weights: str) -> Any:
    from torchvision.models import AlexNet_Weights, alexnet

    if weights == "imagenet":
        trained = AlexNet_Weights.IMAGENET1K_V1
        try:
            reach_url(trained.url)
            network = alexnet(weights=trained)
        except (OSError, RuntimeError) as error:
            raise hub_missing(ALEXNET, hub="torchvision's", error=error) from error
    else:
        network = alexnet(weights=None)
        if weights == "random":
            return network
        _load(network, Path(weights))
    refuse_not_finite(network, weights=weights, name=ALEXNET)
    return network


def _record(weights: str) -> WeightsRecord | None:
    from torchvision.models import AlexNet_Weights

    if weights == "random":
        return None
    if weights != "imagenet":
        return record_of(Path(weights), network=ALEXNET, source="file")
    trained = AlexNet_Weights.IMAGENET1K_V1
    return record_of(cached_url(trained.url), network=ALEXNET, source=weights, tag=trained.name)


def _load(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise BadInputError(
            f"weights (--weights) is {path}: no such file. For alexnet give 'imagenet', or a .safetensors or .pth file."
        )
    expectation = "Expected torchvision's whole state dict, classifier included, as .safetensors or .pth."
    try:
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state, strict=True)
    except UnpicklingError as error:
        # Its own words advise to load without weights_only, which would run what the file says.
        raise BadInputError(f"{path} holds something else than tensors, which is never run. {expectation}") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} does not hold alexnet ({str(error)[:200]}). {expectation}") from error
