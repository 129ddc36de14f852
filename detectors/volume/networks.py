"""Networks of the autoencoders and of f-AnoGAN, over depth images and over grids of voxels alike.

The paper's appendix with its layers could not be read (Bergmann, Jin, Sattlegger, Steger: "The MVTec 3D-AD dataset",
VISAPP 2022, arXiv 2112.09045). Residual networks follow Schlegl et al., "f-AnoGAN", Medical Image Analysis 2019, whose
code is public; the third dimension, the plain networks and their widths are ours. The autoencoder of images is that of
Bergmann, Löwe, Fauser, Sattlegger, Steger, "Improving unsupervised defect segmentation by applying structural
similarity to autoencoders", VISAPP 2019, with one halving more for images of 256 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, final

from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.size import Size

#: Cells or pixels on a side where a network becomes, or begins from, a vector.
_SMALLEST = {2: 8, 3: 4}
_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MEAN_POOL: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_SLOPE = 0.2
#: What an untrained generator of grids gives: nearly empty.
NEARLY_EMPTY = -0.9


@final
@dataclass(frozen=True, kw_only=True)
class Shape:
    """What networks take in and give out.

    Attributes:
        dims: 2 for depth images, 3 for grids of voxels.
        channels: number of channels.
        side: pixels or cells on each side; a power of two.
        width: number of channels after the first convolution; each halving doubles it, up to eight times.
        residual: whether the networks have residual blocks as f-AnoGAN's do, or plain convolutions.
        detector: name of the detector that they are of, for messages.

    Raises:
        UsageError: the side is not a power of two, or too small for a halving.
    """

    dims: Literal[2, 3]
    channels: int
    side: int
    width: int
    residual: bool
    detector: str = "this detector"

    def __post_init__(self) -> None:
        if self.side & (self.side - 1) or self.side <= self.smallest:
            key, such_as = ("resize_px (--image-size)", 256) if self.dims == 2 else ("num_cells", 64)
            raise UsageError(
                f"{key} is {self.side}, but the networks of {self.detector} take a power of two above {self.smallest}, "
                f"such as {such_as}."
            )
        if self.width < 1:
            raise UsageError(f"width is {self.width}; expected 1 or more channels.")

    @property
    def smallest(self) -> int:
        """Pixels or cells on a side where the networks become a vector."""
        return 4 if self.residual else _SMALLEST[self.dims]

    @property
    def widths(self) -> list[int]:
        """Number of channels after each halving, largest map first."""
        num_halvings = (self.side // self.smallest).bit_length() - 1
        first = 1 if self.residual else 0
        return [self.width << min(first + level, 3 if self.residual else 4) for level in range(num_halvings)]

    @property
    def num_features(self) -> int:
        """Length of the vector that the smallest maps become."""
        return int(self.widths[-1] * self.smallest**self.dims)


@final
class Trunk(nn.Sequential):
    """float32 (N, C, side, …) → features, float32 (N, F): the common part of encoder and critic.

    Args:
        shape: shape of the input, and the blocks.
        norm: normalisation: ``"batch"`` for an encoder; ``"none"`` (plain) or ``"layer"`` (residual) for a critic,
            whose gradient penalty must not mix the images of a batch.
    """

    def __init__(self, shape: Shape, *, norm: Literal["batch", "layer", "none"]) -> None:
        blocks: list[nn.Module] = []
        conv, before = _CONV[shape.dims], shape.channels
        if shape.residual:
            blocks.append(conv(shape.channels, shape.width, 3, padding=1))
            before = shape.width
        for level, width in enumerate(shape.widths):
            if shape.residual:
                blocks.append(_Down(shape.dims, before, width, norm=norm))
            else:
                normalised = norm == "batch" and level > 0
                blocks.append(conv(before, width, 4, stride=2, padding=1, bias=not normalised))
                blocks.extend([_BATCH_NORM[shape.dims](width)] if normalised else [])
                blocks.append(nn.LeakyReLU(_SLOPE))
            before = width
        super().__init__(*blocks, nn.Flatten())


def encoder(shape: Shape, latent: int) -> nn.Sequential:
    """Return a network float32 (N, C, side, …) → (N, latent)."""
    return nn.Sequential(Trunk(shape, norm="batch"), nn.Linear(shape.num_features, latent))


def critic(shape: Shape) -> nn.Sequential:
    """Return a network float32 (N, C, side, …) → (N, 1); its first part gives the features of the encoder's loss."""
    return nn.Sequential(Trunk(shape, norm="layer" if shape.residual else "none"), nn.Linear(shape.num_features, 1))


@final
class Generator(nn.Module):
    """float32 (N, latent) → (N, C, side, …).

    Args:
        shape: shape of the output, and the blocks.
        latent: length of the vectors.
        start: about which value an untrained generator gives, between −1 and 1. Grids are nearly empty: one that begins
            at 0 has first to learn this.
        is_bounded: whether values lie between −1 and 1, by a hyperbolic tangent; else they may be any, and an untrained
            generator gives ``start`` alone.
    """

    def __init__(self, shape: Shape, latent: int, *, start: float = 0.0, is_bounded: bool = True) -> None:
        super().__init__()
        wide_first = list(reversed(shape.widths))
        self._start = (wide_first[0], *[shape.smallest] * shape.dims)
        self.first = nn.Linear(latent, shape.num_features)
        pairs = zip(wide_first, [*wide_first[1:], shape.width if shape.residual else shape.channels], strict=True)
        norm = _BATCH_NORM[shape.dims]
        blocks: list[nn.Module] = []
        if shape.residual:
            blocks.extend(_Up(shape.dims, before, after) for before, after in pairs)
            blocks += [norm(shape.width), nn.ReLU(), _CONV[shape.dims](shape.width, shape.channels, 3, padding=1)]
        else:
            for level, (before, after) in enumerate(pairs, 1):
                is_last = level == len(wide_first)
                blocks.append(_TRANSPOSED[shape.dims](before, after, 4, stride=2, padding=1, bias=is_last))
                blocks.extend([] if is_last else [norm(after), nn.ReLU()])
        if not is_bounded:
            nn.init.zeros_(cast(Tensor, blocks[-1].weight))
            nn.init.constant_(cast(Tensor, blocks[-1].bias), start)
        elif start:
            nn.init.constant_(cast(Tensor, blocks[-1].bias), math.atanh(start))
        self.blocks = nn.Sequential(*blocks, *([nn.Tanh()] if is_bounded else []))

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        made: Tensor = self.blocks(self.first(vectors).unflatten(1, self._start))
        return made


@final
class _Down(nn.Module):
    """A residual block that halves each side: normalise, ReLU, convolve, twice; then the mean of 2×2(×2)."""

    def __init__(self, dims: int, before: int, after: int, *, norm: str) -> None:
        super().__init__()
        conv, pool = _CONV[dims], _MEAN_POOL[dims]
        self.path = nn.Sequential(
            _norm(norm, dims, before),
            nn.ReLU(),
            conv(before, before, 3, padding=1, bias=False),
            _norm(norm, dims, before),
            nn.ReLU(),
            conv(before, after, 3, padding=1, bias=False),
            pool(2),
        )
        self.shortcut = nn.Sequential(pool(2), conv(before, after, 1))

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.path(maps) + self.shortcut(maps)
        return out


@final
class _Up(nn.Module):
    """A residual block that doubles each side by the nearest value, then convolves twice."""

    def __init__(self, dims: int, before: int, after: int) -> None:
        super().__init__()
        conv = _CONV[dims]
        self.path = nn.Sequential(
            _norm("batch", dims, before),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            conv(before, after, 3, padding=1, bias=False),
            _norm("batch", dims, after),
            nn.ReLU(),
            conv(after, after, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv(before, after, 1))

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.path(maps) + self.shortcut(maps)
        return out


def _norm(kind: str, dims: int, channels: int) -> nn.Module:
    # One scale and offset per channel after statistics over channels and positions, as in the public code.
    return nn.GroupNorm(1, channels) if kind == "layer" else _BATCH_NORM[dims](channels)


def image_encoder(channels: int, latent: int, size: Size) -> nn.Sequential:
    """Return the encoder of Bergmann et al. (2019): float32 (N, C, H, W) → (N, latent, 1, 1).

    Args:
        channels: number of channels.
        latent: length of the vector.
        size: height and width of the images in pixels, multiples of ``IMAGE_REDUCTION``; theirs are 256.
    """
    layers = _layers(channels, _IMAGE_LAYERS, transposed=False)
    widest = _IMAGE_LAYERS[-1][2]
    last = nn.Conv2d(widest, latent, _reduced(size))
    return nn.Sequential(*layers, _started(last, widest * math.prod(_reduced(size))))


def image_decoder(channels: int, latent: int, size: Size) -> nn.Sequential:
    """Return the mirrored decoder: float32 (N, latent, 1, 1) → (N, C, H, W); see ``image_encoder``."""
    into = [channels, *(layer[2] for layer in _IMAGE_LAYERS)]
    mirrored = [
        (kernel, stride, into[number]) for number, (kernel, stride, _) in reversed(list(enumerate(_IMAGE_LAYERS)))
    ]
    widest = _IMAGE_LAYERS[-1][2]
    layers = _layers(widest, mirrored, transposed=True)
    # The last layer has no activation: values have both signs.
    first = _started(nn.ConvTranspose2d(latent, widest, _reduced(size)), latent)
    return nn.Sequential(first, nn.LeakyReLU(_SLOPE), *layers[:-1])


def _reduced(size: Size) -> tuple[int, int]:
    return size[0] // IMAGE_REDUCTION, size[1] // IMAGE_REDUCTION


#: Kernel, stride and channels of each convolution before the one that leaves a vector.
_IMAGE_LAYERS = (
    (4, 2, 32),
    (4, 2, 32),
    (4, 2, 32),
    (3, 1, 32),
    (4, 2, 64),
    (3, 1, 64),
    (4, 2, 128),
    (3, 1, 64),
    (3, 1, 32),
)
#: Pixels that one of the smallest map stands for.
IMAGE_REDUCTION = 2 ** sum(stride == 2 for _, stride, _ in _IMAGE_LAYERS)


def _started(conv: nn.Conv2d | nn.ConvTranspose2d, num_seen: float) -> nn.Module:
    """The same layer, its weights drawn anew for the number of values that each of its outputs sees (He et al., 2015).

    PyTorch's own start shrinks what passes a layer to less than half: after twenty of them nothing of it is left, and
    the autoencoder learns the mean image alone for hundreds of steps.
    """
    nn.init.normal_(conv.weight, std=nn.init.calculate_gain("leaky_relu", _SLOPE) / num_seen**0.5)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv


def _layers(before: int, layers: Sequence[tuple[int, int, int]], *, transposed: bool) -> list[nn.Module]:
    made: list[nn.Module] = []
    for kernel, stride, after in layers:
        kind = nn.ConvTranspose2d if transposed and stride > 1 else nn.Conv2d
        conv = kind(before, after, kernel, stride, padding=1)
        made += [_started(conv, before * (kernel / stride if transposed else kernel) ** 2), nn.LeakyReLU(_SLOPE)]
        before = after
    return made
