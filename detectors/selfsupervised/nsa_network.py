"""The network of NSA (arXiv 2109.15222): a ResNet-18 from scratch, and a decoder of transposed residual blocks."""

from collections import OrderedDict

from torch import Tensor, nn

from ..nn.blocks import ConvNorm, conv_norm

_DEPTH = 2


class _Residual(nn.Module):
    """Two convolutions of 3×3 beside a shortcut, as in ResNet-18, or its transposed form.

    Args:
        first: the first convolution, which may change the size.
        shortcut: convolution of 1×1 that changes size and channels alike; None where neither changes.
    """

    def __init__(self, first: nn.Conv2d | nn.ConvTranspose2d, shortcut: nn.Conv2d | nn.ConvTranspose2d | None) -> None:
        super().__init__()
        channels = first.out_channels
        self.body = nn.Sequential(ConvNorm(first, relu=True), conv_norm(channels, channels, 3, relu=False))
        self.shortcut: nn.Module = nn.Identity() if shortcut is None else ConvNorm(shortcut, relu=False)
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.activation(self.body(maps) + self.shortcut(maps))
        return out


def _block(channels_in: int, channels_out: int, *, stride: int) -> _Residual:
    """A block of ResNet-18: (N, C, h, w) → (N, C', h / stride, w / stride)."""
    first = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    if stride == 1 and channels_in == channels_out:
        return _Residual(first, None)
    return _Residual(first, nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))


def _growing_block(channels_in: int, channels_out: int) -> _Residual:
    """A transposed block: (N, C, h, w) → (N, C', 2 h, 2 w)."""
    first = nn.ConvTranspose2d(channels_in, channels_out, 3, 2, padding=1, output_padding=1, bias=False)
    return _Residual(first, nn.ConvTranspose2d(channels_in, channels_out, 1, 2, output_padding=1, bias=False))


def encoder(width: int) -> nn.Sequential:
    """ResNet-18 without its classifier, untrained: images float32 (N, 3, H, W) → (N, 8 width, H / 32, W / 32).

    Args:
        width: number of channels of the first stage; 64 in ResNet-18.
    """
    stem = ConvNorm(nn.Conv2d(3, width, 7, 2, padding=3, bias=False), relu=True)
    parts: dict[str, nn.Module] = {"stem": stem, "pool": nn.MaxPool2d(3, 2, padding=1)}
    channels = width
    for number, factor in enumerate((1, 2, 4, 8), 1):
        blocks = [_block(channels, factor * width, stride=1 if number == 1 else 2)]
        blocks += [_block(factor * width, factor * width, stride=1) for _ in range(_DEPTH - 1)]
        parts[f"stage{number}"] = nn.Sequential(*blocks)
        channels = factor * width
    network = nn.Sequential(OrderedDict(parts))
    initialise(network)
    return network


class Decoder(nn.Module):
    """Coarse maps → logits at every pixel.

    Args:
        width: number of channels of the encoder's first stage, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(
            nn.Conv2d(8 * width, 4 * width, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(4 * width, 2 * width, 1, bias=False),
            nn.ReLU(),
        )
        self.grow = nn.Sequential(
            _growing_block(2 * width, width),
            _growing_block(width, width // 2),
            _growing_block(width // 2, width // 4),
        )
        self.upsample: nn.Module = nn.UpsamplingBilinear2d(scale_factor=2)
        self.last = nn.ConvTranspose2d(width // 4, 1, 7, 2, padding=3, output_padding=1, bias=False)
        initialise(self)

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, 8 width, h, w) → float32 (N, 1, 32 h, 32 w)."""
        logits: Tensor = self.last(self.upsample(self.grow(self.squeeze(maps))))
        return logits


def initialise(network: nn.Module) -> None:
    """Draw the weights of convolutions as ResNet does; transposed ones keep torch's own, as the authors' do."""
    for item in network.modules():
        if isinstance(item, nn.Conv2d):
            nn.init.kaiming_normal_(item.weight, mode="fan_out", nonlinearity="relu")
