"""The networks of Glance (doi 10.1109/CVPR46437.2021.00032), and where the patches lie that they are compared on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Side of a patch in pixels.
PATCH_PX = 33
#: Local-Net halves its maps twice: positions that far apart share every convolution.
LOCAL_STRIDE = 4


@dataclass(frozen=True)
class PatchGrid:
    """Positions of the patches, in rows and columns, in the middle of a square image.

    Attributes:
        image_px: side of the image in pixels, at least ``PATCH_PX``.
        step_px: distance of neighbouring patches in pixels.
    """

    image_px: int
    step_px: int

    @property
    def num(self) -> int:
        """Number n of rows, and of columns."""
        return (self.image_px - PATCH_PX) // self.step_px + 1

    @property
    def span_px(self) -> int:
        """Side of the square that the patches cover together."""
        return (self.num - 1) * self.step_px + PATCH_PX

    @property
    def starts(self) -> range:
        """First pixel of the patches of each row, or column."""
        first = (self.image_px - self.span_px) // 2
        return range(first, first + self.span_px - PATCH_PX + 1, self.step_px)

    def positions(self) -> Iterator[tuple[int, int]]:
        """First row and column of each patch, row by row."""
        return product(self.starts, self.starts)

    def covered(self, images: Tensor) -> Tensor:
        """The square that the patches cover, float32 (N, 3, span, span)."""
        inside = slice(self.starts[0], self.starts[0] + self.span_px)
        return images[:, :, inside, inside]


def cut(images: Tensor, positions: Tensor) -> Tensor:
    """Patches at positions.

    Args:
        images: float32 (B, 3, H, W).
        positions: first row and column of each patch, int64 (B, 2).

    Returns:
        float32 (B, 3, PATCH_PX, PATCH_PX).
    """
    patches = [
        image[:, top : top + PATCH_PX, left : left + PATCH_PX]
        for image, (top, left) in zip(images, positions.tolist(), strict=True)
    ]
    return torch.stack(patches)


def seen_around(positions: Tensor, image_px: int) -> Tensor:
    """0 in the patch at each position of an int64 (B, 2), 1 around it: float32 (B, 1, image_px, image_px)."""
    pixels = torch.arange(image_px, device=positions.device)
    starts = positions[:, :, None]
    inside = (pixels >= starts) & (pixels < starts + PATCH_PX)
    return 1.0 - (inside[:, 0, :, None] & inside[:, 1, None, :]).float()[:, None]


class LocalNet(nn.Module):
    """Embeds patches; valid convolutions, so that a whole image gives the embeddings of its patches at once.

    It looks at the first 30 of the 33 pixels of a side: both poolings drop a last row and column.

    Args:
        width: number of channels of the first layer; the next have twice as many.
        embedding_size: number D of channels of an embedding.
        slope: slope of the leaky ReLUs below zero.
        step_px: distance in pixels of the patches whose embeddings an image gives, a multiple of ``LOCAL_STRIDE``.
    """

    def __init__(self, width: int, embedding_size: int, *, slope: float, step_px: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.LeakyReLU(slope), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 5), nn.LeakyReLU(slope), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 2), nn.LeakyReLU(slope),
            nn.Conv2d(2 * width, embedding_size, 4, stride=step_px // LOCAL_STRIDE),
        )  # fmt: skip
        _begin(self, slope)

    def forward(self, images: Tensor) -> Tensor:
        """Patches float32 (N, 3, 33, 33), or images in which n of them lie in a row → float32 (N, D, n, n)."""
        embeddings: Tensor = self.layers(images)
        return embeddings


class PartialConv(nn.Module):
    """A valid convolution of what is seen, weighted as if all of its window were.

    G. Liu et al., ECCV 2018, equations 1 and 2: ``wᵀ(x ∘ m) · sum(1) / sum(m) + b`` where anything is seen, else 0.

    Args:
        channels_in: number of input channels.
        channels_out: number of output channels.
        kernel: side of the window.
        stride: distance of neighbouring windows.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride)

    def forward(self, maps: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            maps: float32 (N, C, h, w).
            seen: 1 where the maps are seen, else 0; float32 (N, 1, h, w).

        Returns:
            Maps float32 (N, C', h', w'), and where they are seen, float32 (N, 1, h', w').
        """
        conv = self.conv
        gain, seen_after = window_gain(seen, conv)
        out = F.conv2d(maps * seen, conv.weight, stride=conv.stride) * gain
        if conv.bias is not None:
            out = out + conv.bias[:, None, None]
        return out * seen_after, seen_after


def window_gain(seen: Tensor, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return sum(1) / sum(m) of each window, 0 where nothing is seen, and where anything is: float32 (N, 1, h', w')."""
    share = F.avg_pool2d(seen, conv.kernel_size, conv.stride)
    seen_after = (share > 0.0).to(seen.dtype)
    return seen_after / share.clamp(min=torch.finfo(seen.dtype).tiny), seen_after


class GlobalNet(nn.Module):
    """Predicts the embedding of a hidden patch from all around it.

    Partial convolutions without padding, of which as many are taken as the image has room for; the last covers what is
    left, which is 3×3 at 256 px.

    Args:
        width: number of channels of the first layer, an eighth of the last but one.
        embedding_size: number D of channels of an embedding.
        slope: slope of the leaky ReLUs below zero.
        image_px: side of the image in pixels.
    """

    def __init__(self, width: int, embedding_size: int, *, slope: float, image_px: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2)
        self.activation = nn.LeakyReLU(slope)
        self.convs = nn.ModuleList([PartialConv(3, width, 7, stride=2)])
        channels, side = width, ((image_px - 7) // 2 + 1 - 3) // 2 + 1
        for factor, stride in ((2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
            if side < 3:
                break
            self.convs.append(PartialConv(channels, factor * width, 3, stride=stride))
            channels, side = factor * width, (side - 3) // stride + 1
        self.last = PartialConv(channels, embedding_size, side)
        _begin(self, slope)

    def forward(self, images: Tensor, seen: Tensor) -> Tensor:
        """Images float32 (N, 3, S, S), and 1 where they are seen, float32 (N, 1, S, S) → float32 (N, D, 1, 1)."""
        maps = images
        for number, conv in enumerate(self.convs):
            maps, seen = conv(maps, seen)
            maps = self.activation(maps)
            if number == 0:
                # What is hidden counts as 0, and is hidden afterwards only where its whole window was.
                maps, seen = self.pool(maps), self.pool(seen)
        embeddings: Tensor = self.last(maps, seen)[0]
        return embeddings


class DistortionHead(nn.Module):
    """Tells a patch that fits its surroundings from one that was stained; two linear layers per position.

    Args:
        embedding_size: number D of channels of an embedding.
        slope: slope of the leaky ReLU below zero.
    """

    def __init__(self, embedding_size: int, *, slope: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * embedding_size, embedding_size, 1),
            nn.LeakyReLU(slope),
            nn.Conv2d(embedding_size, 1, 1),
        )

    def forward(self, local: Tensor, surroundings: Tensor) -> Tensor:
        """Embeddings of patches and their predictions, float32 (N, D, n, n) → logit of a stain, float32 (N, n, n)."""
        logit: Tensor = self.layers(torch.cat([local, surroundings], 1))
        return logit.squeeze(1)


def _begin(network: nn.Module, slope: float) -> None:
    """He's initialisation, which keeps the scale of the maps through layers that nothing normalises."""
    for item in network.modules():
        if isinstance(item, nn.Conv2d):
            nn.init.kaiming_normal_(item.weight, slope, nonlinearity="leaky_relu")
            if item.bias is not None:
                nn.init.zeros_(item.bias)
