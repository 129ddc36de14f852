"""Encoders of patches, dense over whole images, and the classifier of directions that serves their training."""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

#: Sides in pixels of the patches that the small and the big encoder embed, and their strides over an image.
SMALL_PX, BIG_PX = 32, 64
SMALL_STRIDE, BIG_STRIDE = 4, 16
#: Length of an embedding.
DIM = 64
#: Number of directions in which the second patch of a pair may lie.
NUM_DIRECTIONS = 8

_SLOPE = 0.1
_SMALL_CHANNELS = (3, 32, 64, 128, 128, 64, 32, 32, DIM)
_BIG_CHANNELS = 128
_CLASSIFIER_CHANNELS = 128
#: The small encoder's own stride; every second of its positions is used.
_OWN_STRIDE = 2
#: Quarters of a big patch lie 32 px apart, which is eight positions at stride 4.
_QUARTER_STEP = SMALL_PX // SMALL_STRIDE


class PatchEncoder(nn.Module):
    """The hierarchical encoder: one network for patches of 32 px, and one of 64 px made of four of the former.

    No convolution is padded, so that an embedding depends on its patch alone, and over a whole image the convolutions
    give the embeddings of all patches at once.

    Args:
        keeps_variance: True for He's initial weights, which keep the variance from layer to layer, False for PyTorch's.
    """

    def __init__(self, *, keeps_variance: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, channels in enumerate(_SMALL_CHANNELS[1:]):
            stride = _OWN_STRIDE if number == 0 else 1
            layers += [nn.Conv2d(_SMALL_CHANNELS[number], channels, 3, stride), nn.LeakyReLU(_SLOPE)]
        self.small = nn.Sequential(*layers[:-1], nn.Tanh())
        self.big = nn.Sequential(
            nn.Conv2d(DIM, _BIG_CHANNELS, 2), nn.LeakyReLU(_SLOPE), nn.Conv2d(_BIG_CHANNELS, DIM, 1), nn.Tanh()
        )
        for module in self.modules():
            if keeps_variance and isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, a=_SLOPE)
                nn.init.zeros_(module.bias)

    def embed(self, patches: Tensor) -> Tensor:
        """Patches float32 (B, 3, side, side), side 32 or 64 → embeddings float32 (B, 64) in (−1, 1)."""
        if patches.shape[-1] == SMALL_PX:
            small: Tensor = self.small(patches)
            return small.flatten(1)
        quarters = patches.unflatten(3, (2, SMALL_PX)).unflatten(2, (2, SMALL_PX)).permute(0, 2, 4, 1, 3, 5)
        embedded = self.small(quarters.flatten(0, 2)).view(-1, 2, 2, DIM).permute(0, 3, 1, 2)
        big: Tensor = self.big(embedded)
        return big.flatten(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embed all patches of images.

        Args:
            images: float32 (N, 3, H, W), H and W multiples of 16, at least 64.

        Returns:
            Embeddings of the small patches at stride 4, float32 (N, 64, (H − 32) / 4 + 1, (W − 32) / 4 + 1), and of
            the big ones at stride 16, float32 (N, 64, (H − 64) / 16 + 1, (W − 64) / 16 + 1).
        """
        step = SMALL_STRIDE // _OWN_STRIDE
        small = self.small(images)[:, :, ::step, ::step]
        merge: Any = self.big[0]
        stride = BIG_STRIDE // SMALL_STRIDE
        big = self.big[1:](F.conv2d(small, merge.weight, merge.bias, stride=stride, dilation=_QUARTER_STEP))
        return small, big


class DenseEncoder(nn.Module):
    """The same function as ``PatchEncoder.forward`` for export: no position is computed that is not used.

    Args:
        encoder: encoder whose weights are copied.
    """

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        copied = copy.deepcopy(encoder).requires_grad_(False)
        self.small, self.big = copied.small, copied.big
        _set_steps(self.small[-2], stride=SMALL_STRIDE // _OWN_STRIDE, dilation=1)
        _set_steps(self.big[0], stride=BIG_STRIDE // SMALL_STRIDE, dilation=_QUARTER_STEP)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``PatchEncoder.forward``."""
        small = self.small(images)
        return small, self.big(small)


def _set_steps(conv: nn.Module, *, stride: int, dilation: int) -> None:
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"{type(conv).__name__} is no convolution.")
    conv.stride, conv.dilation = (stride, stride), (dilation, dilation)


class DirectionClassifier(nn.Module):
    """Tells from the difference of two embeddings in which of eight directions the second patch lies.

    As in the authors' code the weights of the last layer stay as they were drawn, each column scaled to length 1; its
    bias is trained.
    """

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(DIM, _CLASSIFIER_CHANNELS),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(_CLASSIFIER_CHANNELS, _CLASSIFIER_CHANNELS),
            nn.LeakyReLU(_SLOPE),
        )
        drawn = nn.Linear(_CLASSIFIER_CHANNELS, NUM_DIRECTIONS)
        self.register_buffer("last", F.normalize(drawn.weight.detach(), dim=0))
        self.bias = drawn.bias

    def forward(self, differences: Tensor) -> Tensor:
        """Differences float32 (B, 64) → logits float32 (B, 8)."""
        return F.linear(self.body(differences), self.last, self.bias)
