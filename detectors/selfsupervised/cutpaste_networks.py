"""The networks of CutPaste: one over images, one over patches, and the classifier that trains either."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ..backbones.features import Backbone
from ..nn.blocks import ConvNorm, conv_norm

#: Pixels from one patch to the next, along either axis.
STRIDE = 4
_DEEPEST = 4
_PROJECTION = 128


@final
class TrainedBackbone(Backbone):
    """A timm network whose every parameter is trained, cut after one of its maps.

    Args:
        name: name of the network in timm.
        weights: weights that it begins with; see ``weights.create_network``.
        stride: down-scale factor of its last map.
    """

    def __init__(self, name: str, weights: str, *, stride: int) -> None:
        super().__init__(name, weights, strides=(stride,))
        self.network.requires_grad_(True)

    def train(self, mode: bool = True) -> TrainedBackbone:
        """Train as any module does, unlike a frozen backbone."""
        nn.Module.train(self, mode)
        return self


@final
class OwnStem(nn.Module):
    """Two convolutions without padding, trained from scratch: images → maps at stride 4.

    Args:
        width: channels of the first one; the second has twice as many.
        patch_px: side of a patch in pixels.

    Attributes:
        channels: channels C of the maps.
        side: positions of a patch, along either axis.
    """

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.channels = 2 * width
        self.side = patch_px // STRIDE - 1
        self.first = ConvNorm(nn.Conv2d(3, width, 4, stride=2, bias=False), relu=True)
        self.second = ConvNorm(nn.Conv2d(width, 2 * width, 3, stride=2, bias=False), relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (N, 3, H, W) → float32 (N, C, H / 4 − 1, W / 4 − 1)."""
        maps: Tensor = self.second(self.first(images))
        return maps


@final
class BackboneStem(nn.Module):
    """The beginning of a timm network, without the positions at the border that its padding touches.

    What is left of a patch is then the same, whether the network runs on the patch or on the image around it.

    Args:
        name: name of the network in timm.
        weights: weights that it begins with; see ``weights.create_network``.
        patch_px: side P of a patch in pixels.

    Attributes:
        channels: channels C of its map at stride 4.
        side: positions of a patch that are left, along either axis.

    Raises:
        UsageError: fewer than three are left, or none, as where a stage sees the whole image.
    """

    def __init__(self, name: str, weights: str, patch_px: int) -> None:
        super().__init__()
        self.network = TrainedBackbone(name, weights, stride=STRIDE)
        self.channels = self.network.channels[0]
        self._before, self._after = self._margins(patch_px)
        self.side = patch_px // STRIDE - self._before - self._after
        if self.side < 3:
            raise UsageError(
                f"cutpaste: of a patch of {patch_px} px, {name} leaves {max(self.side, 0)} positions a side at stride "
                f"{STRIDE} that do not depend on what is around the patch; expected at least 3. Take larger patches "
                "(patch_px), another backbone, or patch_stem 'own'."
            )

    def _margins(self, patch_px: int) -> tuple[int, int]:
        """Return how many positions of a patch depend on what lies before it, and after it, along an axis."""
        surrounded = torch.full((1, 3, 3 * patch_px, 3 * patch_px), torch.nan)
        middle = slice(patch_px, 2 * patch_px)
        surrounded[:, :, middle, middle] = 0.0
        with torch.no_grad():
            (maps,) = self.network.eval()(surrounded)
        positions = slice(patch_px // STRIDE, 2 * patch_px // STRIDE)
        free = maps[0, :, positions, positions].isfinite().all(0).any(1).tolist()
        return (free.index(True), free[::-1].index(True)) if any(free) else (len(free), 0)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (N, 3, H, W) → float32 (N, C, h, w), for a patch ``side`` positions high and wide."""
        (maps,) = self.network(images)
        height, width = maps.shape[-2:]
        kept: Tensor = maps[:, :, self._before : height - self._after, self._before : width - self._after]
        return kept


@final
class PatchNetwork(nn.Module):
    """A network that nothing outside a patch reaches: on a patch it gives one embedding, on an image all, four apart.

    A stem up to stride 4, up to four convolutions of 3×3 without padding, and the mean over what is left. It depends
    on nothing but the patch, so one pass over an image gives the same numbers as one over each of its patches.

    Args:
        stem: the stem.
        width: an eighth of the channels of an embedding.

    Attributes:
        dim: channels D of an embedding.
    """

    def __init__(self, stem: OwnStem | BackboneStem, width: int) -> None:
        super().__init__()
        self.dim = 8 * width
        self.stem = stem
        depth = min(_DEEPEST, (stem.side - 1) // 2)
        channels = [stem.channels, *(factor * width for factor in (2, 4, 4, 8)[-depth:])]
        layers = [ConvNorm(nn.Conv2d(a, b, 3, bias=False), relu=True) for a, b in pairwise(channels)]
        self.body = nn.Sequential(*layers, nn.AvgPool2d(stem.side - 2 * depth, stride=1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float32 (N, 3, H, W) → embeddings float32 (N, D, (H − P) / 4 + 1, (W − P) / 4 + 1)."""
        embeddings: Tensor = self.body(self.stem(images))
        return embeddings


@final
class Pretext(nn.Module):
    """A network, and the projection and classifier that train it; at test time they are not needed.

    Args:
        network: maps images to feature maps, float32 (N, D, h, w), or to a tuple of one.
        dim: channels D of its maps.
        num_kinds: number of kinds of images K.
        depth: hidden layers of the projection, of 512 channels each; one of 128 follows.
        hidden: channels of the hidden layers.
    """

    def __init__(self, network: nn.Module, *, dim: int, num_kinds: int, depth: int, hidden: int = 512) -> None:
        super().__init__()
        self.network = network
        widths = [dim, *[hidden] * depth, _PROJECTION]
        self.projection = nn.Sequential(*(conv_norm(a, b, 1) for a, b in pairwise(widths)))
        self.classifier = nn.Conv2d(_PROJECTION, num_kinds, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float32 (N, 3, H, W) → logits float32 (N, K)."""
        embeddings = pooled(self.network(images))[:, :, None, None]
        logits: Tensor = self.classifier(self.projection(embeddings))
        return logits.flatten(1)


def pooled(maps: Any) -> Tensor:
    """Mean over positions of feature maps float32 (N, D, h, w), or of a tuple of one: float32 (N, D)."""
    (features,) = maps if isinstance(maps, tuple) else (maps,)
    means: Tensor = torch.as_tensor(features).mean((2, 3))
    return means
