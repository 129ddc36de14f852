"""Networks of EfficientAD: patch description networks (PDN) for teacher and student, and the autoencoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import BadInputError, EnvironmentMissingError
from ...core.size import Size
from ...core.spec import IMAGENET_MEAN, IMAGENET_STD
from ..backbones.frozen import FrozenNetwork
from ..backbones.weights import read_tensors, record_of, refuse_not_finite
from ..nn.graph import SmoothUpsample

#: Kernel and padding of each convolution, and its width in units of the first one's; the last has the outputs' number.
_SMALL = ((4, 3, 1), (4, 3, 2), (3, 1, 2), (4, 0, 0))
_MEDIUM = ((4, 3, 1), (4, 3, 2), (1, 0, 2), (3, 1, 2), (4, 0, 0), (1, 0, 0))
PLANS = {"pdn_small": _SMALL, "pdn_medium": _MEDIUM}
WIDTHS = {"pdn_small": 128, "pdn_medium": 256}
_ENCODER = (32, 32, 64, 64, 64)
_LATENT = 64
_LATENT_PX = 8
_DROPOUT = 0.2
#: Halvings of the image before each convolution of the decoder; with an odd size, one pixel less.
_GROWTH = ((6, True), (5, False), (4, True), (3, False), (2, True), (1, True))


@final
class PatchDescriptionNetwork(nn.Module):
    """Convolutions with two average poolings: a vector for each 33×33 patch, every fourth pixel.

    Args:
        kind: ``"pdn_small"`` with four convolutions, or ``"pdn_medium"`` with six.
        width: channels of the first convolution; the next ones have twice as many.
        channels: number C of channels of the output.
        is_padded: whether convolutions and poolings are padded with zeros, by which the map has a quarter of the
            image's sides, rounded up; without padding it has eight rows and columns less.
    """

    def __init__(self, kind: str, *, width: int, channels: int, is_padded: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, 2, padding=1 if is_padded else 0)
        self.convs = nn.ModuleList()
        channels_in = 3
        for kernel, padding, factor in PLANS[kind]:
            channels_out = factor * width or channels
            self.convs.append(nn.Conv2d(channels_in, channels_out, kernel, padding=padding if is_padded else 0))
            channels_in = channels_out

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float32 (N, 3, H, W) → float32 (N, C, h, w)."""
        maps = images
        last = len(self.convs) - 1
        for number, conv in enumerate(self.convs):
            maps = conv(maps)
            if number < last:
                maps = F.relu(maps)
            if number < 2:
                maps = self.pool(maps)
        return maps


@final
class Teacher(FrozenNetwork):
    """A frozen patch description network.

    Args:
        kind: see ``PatchDescriptionNetwork``.
        weights: ``"random"``, or a .safetensors or .pth file with weight and bias of each convolution. Their names hold
            its number, as in ``conv1.weight`` or ``0.weight``; all else in them is left unread.
        width: see there.
        channels: see there.
        is_padded: see there.

    Raises:
        EnvironmentMissingError: no file is given.
        BadInputError: the file is unreadable, belongs to another network, or holds values that are not finite.
    """

    def __init__(self, kind: str, weights: str, *, width: int, channels: int, is_padded: bool) -> None:
        super().__init__()
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        self.pretrained = None
        self.network = PatchDescriptionNetwork(kind, width=width, channels=channels, is_padded=is_padded)
        if weights == "imagenet":
            raise EnvironmentMissingError(
                f"efficient_ad: no hub has the weights of its teacher, {kind}. Give a .safetensors or .pth file of it, "
                "such as other implementations publish, with --weights."
            )
        if weights != "random":
            _load(self.network, Path(weights), kind=kind)
            self.pretrained = record_of(Path(weights), network=kind, source="file")
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images float32 (N, 3, H, W) → the features, float32 (N, C, h, w), alone in a tuple."""
        return (self.network(images),)


def _load(network: PatchDescriptionNetwork, path: Path, *, kind: str) -> None:
    read = read_tensors(path)
    numbers = {name: re.findall(r"\d+", name) for name in read}
    if any(len(item) != 1 for item in numbers.values()):
        odd = [name for name, item in numbers.items() if len(item) != 1]
        raise BadInputError(
            f"{path} is no {kind}: it holds {', '.join(odd[:3])}. Expected names with one number, that of the "
            "convolution, such as conv1.weight."
        )
    order = sorted({int(item[0]) for item in numbers.values()})
    state = {
        f"convs.{order.index(int(numbers[name][0]))}.{name.rpartition('.')[2]}": value for name, value in read.items()
    }
    expected = network.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if name not in expected or name not in state or expected[name].shape != state[name].shape
    )
    if wrong:
        raise BadInputError(
            f"{path} does not fit {kind} of {len(network.convs)} convolutions: {', '.join(wrong[:4])} missing, unknown "
            "or of another shape. Give the weights of this network, or set backbone, width and channels to the file's."
        )
    network.load_state_dict(state)
    refuse_not_finite(network, weights=str(path), name=kind)


def features_size(image_px: Size, *, is_padded: bool) -> Size:
    """Return height and width of a patch description network's map."""
    height, width = (-(-side // 4) - (0 if is_padded else 8) for side in image_px)
    return height, width


@final
class Autoencoder(nn.Module):
    """Image → 64 numbers, at 256 px → the features of a patch description network.

    On images below 256 px the last convolution of the encoder takes the whole map, where the paper's takes 8×8.

    Args:
        channels: number C of channels of the features.
        image_px: height and width of the images.
        size: height and width of the features' map.
    """

    def __init__(self, channels: int, *, image_px: Size, size: Size) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        channels_in = 3
        for channels_out in _ENCODER:
            self.encoder.append(nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1))
            channels_in = channels_out
        height, width = (min(_LATENT_PX, side >> len(_ENCODER)) for side in image_px)
        self.latent = nn.Conv2d(channels_in, _LATENT, (height, width))
        self.resizes, self.decoder = nn.ModuleList(), nn.ModuleList()
        before = ((image_px[0] >> len(_ENCODER)) - height + 1, (image_px[1] >> len(_ENCODER)) - width + 1)
        for halvings, is_odd in _GROWTH:
            after = max(1, (image_px[0] >> halvings) - is_odd), max(1, (image_px[1] >> halvings) - is_odd)
            self.resizes.append(SmoothUpsample(before, after, sigma=0.0, align_corners=False))
            self.decoder.append(nn.Conv2d(_LATENT, _LATENT, 4, padding=2))
            before = after[0] + 1, after[1] + 1
        self.resizes.append(SmoothUpsample(before, size, sigma=0.0, align_corners=False))
        self.decoder.append(nn.Conv2d(_LATENT, _LATENT, 3, padding=1))
        self.last = nn.Conv2d(_LATENT, channels, 3, padding=1)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float32 (N, 3, H, W) → float32 (N, C, h, w)."""
        maps = images
        for conv in self.encoder:
            maps = F.relu(conv(maps))
        maps = self.latent(maps)
        for number, (resize, conv) in enumerate(zip(self.resizes, self.decoder, strict=True)):
            maps = F.relu(conv(resize(maps)))
            if number < len(_GROWTH):
                maps = self.dropout(maps)
        restored: Tensor = self.last(maps)
        return restored
