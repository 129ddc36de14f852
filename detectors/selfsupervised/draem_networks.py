"""The two networks of DRAEM (arXiv 2108.07610) and the losses they are trained with."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import conv_norm

_WINDOW = 11
_WINDOW_SIGMA = 1.5


def _double(channels_in: int, channels_between: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(channels_in, channels_between, 3), conv_norm(channels_between, channels_out, 3))


class _Grow(nn.Module):
    """Bilinear upsampling by two, corners aligned, then a convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = conv_norm(channels_in, channels_out, 3)

    def forward(self, maps: Tensor) -> Tensor:
        grown = F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=True)
        out: Tensor = self.block(grown)
        return out


class _Join(nn.Module):
    """Channels of two maps beside each other; a module, so that its place in the graph has a name."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second], 1)


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights as the authors' code does, with deviation 0.02: about 0 in convolutions, 1 in norms.

    Args:
        module: any layer; those of another kind stay as they are, and so do a convolution's biases.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class ReconstructiveNetwork(nn.Module):
    """Autoencoder without skip connections from images to good images; 69 M parameters at width 128.

    Args:
        width: number of channels of the first stage; the last stage has eight times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.encoder = nn.Sequential(_double(3, width, width))
        for below, here in pairwise(widths):
            self.encoder.extend([nn.MaxPool2d(2), _double(below, here, here)])
        self.decoder = nn.Sequential()
        for here, above in ((8, 4), (4, 2), (2, 1), (1, 1)):
            self.decoder.extend([_Grow(here * width, here * width), _double(here * width, here * width, above * width)])
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, H, W), H and W multiples of 16 → the same shape."""
        restored: Tensor = self.last(self.decoder(self.encoder(images)))
        return restored


class DiscriminativeNetwork(nn.Module):
    """U-Net over the restored image and the image itself; 28 M parameters at width 64.

    Args:
        width: number of channels of the first stage; the last stages have eight times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        w1, w2, w4, w8 = (factor * width for factor in (1, 2, 4, 8))
        stages = ((6, w1), (w1, w2), (w2, w4), (w4, w8), (w8, w8), (w8, w8))
        self.encoder = nn.ModuleList(_double(below, here, here) for below, here in stages)
        self.pool = nn.MaxPool2d(2)
        grown = ((w8, w8), (w8, w4), (w4, w2), (w2, w1), (w1, w1))
        self.grow = nn.ModuleList(_Grow(here, above) for here, above in grown)
        skips = (w8, w8, w4, w2, w1)
        self.decoder = nn.ModuleList(
            _double(above + skip, above, above) for (_, above), skip in zip(grown, skips, strict=True)
        )
        self.join = _Join()
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, restored: Tensor, images: Tensor) -> Tensor:
        """Two float32 (N, 3, H, W), H and W multiples of 32 → logits float32 (N, 2, H, W)."""
        item = torch.cat([restored, images], 1)
        skip_maps = []
        for number, stage in enumerate(self.encoder):
            item = stage(item if number == 0 else self.pool(item))
            skip_maps.append(item)
        for grow, stage, skip in zip(self.grow, self.decoder, reversed(skip_maps[:-1]), strict=True):
            item = stage(self.join(grow(item), skip))
        logits: Tensor = self.last(item)
        return logits


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean SSIM of images in [0, 1], Gaussian windows of 11×11 with sigma 1.5, zero outside: scalar."""
    offsets = torch.arange(_WINDOW, device=first.device) - _WINDOW // 2
    taps = torch.exp(-(offsets.double() ** 2) / (2.0 * _WINDOW_SIGMA**2))
    taps = (taps / taps.sum()).to(first.dtype)
    channels = first.shape[1]
    column = taps.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)

    def smooth(item: Tensor) -> Tensor:
        half = _WINDOW // 2
        down = F.conv2d(item, column, padding=(half, 0), groups=channels)
        return F.conv2d(down, row, padding=(0, half), groups=channels)

    mean_a, mean_b = smooth(first), smooth(second)
    variance_a = smooth(first * first) - mean_a * mean_a
    variance_b = smooth(second * second) - mean_b * mean_b
    covariance = smooth(first * second) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2.0 * mean_a * mean_b + c1) * (2.0 * covariance + c2)
    return (top / ((mean_a * mean_a + mean_b * mean_b + c1) * (variance_a + variance_b + c2))).mean()


def focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal loss with gamma 2 on the softmax of two logits, smoothed by 1e-5: scalar.

    Args:
        logits: logits of good and anomalous, float32 (N, 2, H, W).
        masks: 1 where anomalous, float32 (N, H, W).
    """
    smoothing = 1e-5
    anomalous = logits.softmax(1)[:, 1]
    target = masks.clamp(smoothing, 1.0 - smoothing)
    correct = target * anomalous + (1.0 - target) * (1.0 - anomalous) + smoothing
    return -((1.0 - correct).square() * correct.log()).mean()
