"""VGG's feature maps after each ReLU, not only at the end of a stage."""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size
from ..backbones.frozen import FrozenNetwork
from ..backbones.weights import create_network, weights_record

_NUM_STAGES = 4


class VggBackbone(FrozenNetwork):
    """A frozen, pretrained VGG cut after its fourth stage: relu1_1, relu1_2, … of stages 1 to 4.

    Args:
        name: name of a VGG network in timm.
        weights: see ``detectors.backbones.weights.create_network``.

    Attributes:
        channels: number C of channels of each map.

    Raises:
        UsageError: the network is no VGG.
    """

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        if not name.startswith("vgg"):
            raise UsageError(f"{name} is no VGG. Use vgg19, or another of timm's VGG networks.")
        network: Any = create_network(name, weights)
        kinds = [type(layer) for layer in network.features]
        pools = [index for index, kind in enumerate(kinds) if kind is nn.MaxPool2d]
        end = pools[_NUM_STAGES - 1]
        self.layers: nn.Sequential = network.features[:end].eval().requires_grad_(False)
        self.taps = tuple(index for index, kind in enumerate(kinds[:end]) if kind is nn.ReLU)
        self.channels = tuple(layer.out_channels for layer in self.layers if isinstance(layer, nn.Conv2d))
        self.mean = tuple(network.pretrained_cfg["mean"])
        self.std = tuple(network.pretrained_cfg["std"])
        self.pretrained = weights_record(name, weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of normalised images.

        Args:
            images: float32 (N, 3, H, W), normalised.

        Returns:
            One float32 (N, C, H / 2ⁱ, W / 2ⁱ) per ReLU of stage i = 0 … 3.
        """
        maps = []
        item = images
        for index, layer in enumerate(self.layers):
            item = layer(item)
            if index in self.taps:
                maps.append(item)
        return tuple(maps)

    def map_sizes(self, image_px: Size) -> tuple[Size, ...]:
        """Height and width of each map, for images of this height and width."""
        probe = next(self.parameters())
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, *image_px, device=probe.device))
        return tuple((int(item.shape[-2]), int(item.shape[-1])) for item in maps)
