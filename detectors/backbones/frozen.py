"""What every frozen, pretrained network of a detector says of itself."""

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn

from ...bundle.manifest import WeightsRecord


class FrozenNetwork(nn.Module, ABC):
    """A pretrained network that gives feature maps and is never trained.

    Attributes:
        pretrained: which weights it was given; None for random ones.
        mean: normalisation mean that the network was trained with, RGB in [0, 1].
        std: normalisation standard deviation, RGB in [0, 1].
    """

    pretrained: WeightsRecord | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in evaluation mode: the statistics of the pretrained network are frozen."""
        return super().train(False)

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images float32 (N, 3, H, W) → feature maps float32 (N, C, h, w)."""
