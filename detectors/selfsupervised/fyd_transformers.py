"""Spatial transformers that FYD aligns images and feature maps with, and the affine algebra to undo them.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu: "Spatial Transformer Networks", NeurIPS 2015, arXiv 1506.02025.

A transform is ``theta``, float32 (N, 2, 3): where in its input, in coordinates of [−1, 1] from border to border, each
position of its output is read. Everything here stays in fp32: an error of a coordinate moves the whole map.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.size import Size
from ..backbones.features import Backbone
from ..nn.blocks import conv_norm, fold
from ..nn.gaussians import Maps

#: Kinds of transforms and the number of values that each is made of.
NUM_VALUES = {"affine": 6, "rotation_scale": 3}
_HIDDEN_CHANNELS = 64
_LAST_CHANNELS = 16


@final
class SpatialTransformer(nn.Module):
    """Predicts a transform from a map; untrained it is the identity.

    Args:
        channels: number of channels of the map.
        size: height and width of the map.
        kind: ``"affine"``, or ``"rotation_scale"`` for a rotation about the centre and a scale per axis.
        largest_change: bound of each value's distance from the identity's: of the matrix and the offset for an affine
            transform (in half sides), of the angle (in radians) and the scales otherwise; 0 for no bound.
        num_halvings: number of convolutions, each followed by a halving of the map.
        width: width of the hidden layer after them.
    """

    identity: Tensor

    def __init__(
        self, channels: int, size: Size, *, kind: str, largest_change: float, num_halvings: int, width: int
    ) -> None:
        super().__init__()
        self._aspect = size[0] / size[1]
        self._kind = kind
        self._largest_change = largest_change
        blocks: list[nn.Module] = []
        for number in range(num_halvings):
            after = _LAST_CHANNELS if number == num_halvings - 1 else _HIDDEN_CHANNELS
            blocks += [conv_norm(channels, after, 3), nn.MaxPool2d(3, stride=2, padding=1)]
            channels, size = after, (-(-size[0] // 2), -(-size[1] // 2))
        self.localiser = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(channels * size[0] * size[1], width), nn.ReLU())
        self.values = nn.Linear(width, NUM_VALUES[kind])
        nn.init.zeros_(self.values.weight)
        nn.init.zeros_(self.values.bias)
        self.register_buffer("identity", torch.eye(2, 3), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """float32 (N, C, h, w) → theta, float32 (N, 2, 3)."""
        values = self.values(self.localiser(maps))
        if self._largest_change:
            values = self._largest_change * torch.tanh(values / self._largest_change)
        if self._kind == "rotation_scale":
            return rotation_scale(values, aspect=self._aspect)
        theta: Tensor = values.unflatten(1, (2, 3)) + self.identity
        return theta


def rotation_scale(values: Tensor, *, aspect: float) -> Tensor:
    """Return rotations about the centre after scales per axis.

    Args:
        values: float32 (N, 3): angle in radians, and what is added to 1 for the scales of x and y.
        aspect: height by width, so that a rotation turns a rectangle without shearing it.

    Returns:
        float32 (N, 2, 3).
    """
    angle, scale_x, scale_y = values[:, 0], 1.0 + values[:, 1], 1.0 + values[:, 2]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(angle)
    rows = (cosine * scale_x, -aspect * sine * scale_y, zero, sine * scale_x / aspect, cosine * scale_y, zero)
    theta: Tensor = torch.stack(rows, 1).unflatten(1, (2, 3))
    return theta


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Return the one transform that does what ``first`` and then ``second`` do to a map: float32 (N, 2, 3)."""
    product = first[:, :, :1] * second[:, :1] + first[:, :, 1:2] * second[:, 1:]
    return torch.cat([product[:, :, :2], product[:, :, 2:] + first[:, :, 2:]], 2)


def inverse(theta: Tensor) -> Tensor:
    """Return the inverse transform in closed form: ``A⁻¹`` of a 2×2 matrix, and ``−A⁻¹ t``. float32 (N, 2, 3)."""
    (a, b, x), (c, d, y) = (row.unbind(1) for row in theta.unbind(1))
    determinant = a * d - b * c
    values = (d, -b, b * y - d * x, -c, a, c * x - a * y)
    undone: Tensor = (torch.stack(values, 1) / determinant[:, None]).unflatten(1, (2, 3))
    return undone


@final
class Warp(nn.Module):
    """Reads maps at the positions of a transform, bilinearly.

    Args:
        size: height and width of the maps.
        padding: what is read outside: ``"reflection"``, ``"border"`` or ``"zeros"``.
    """

    columns: Tensor
    rows: Tensor

    def __init__(self, size: Size, *, padding: str) -> None:
        super().__init__()
        self._padding = padding
        # Constants of the size, not learned: no checkpoint holds them.
        self.register_buffer("rows", _centres(size[0])[:, None], persistent=False)
        self.register_buffer("columns", _centres(size[1])[None, :], persistent=False)

    def forward(self, maps: Tensor, theta: Tensor) -> Tensor:
        """Maps float32 (N, C, h, w) and theta float32 (N, 2, 3) → float32 (N, C, h, w)."""
        # The base grid times theta transposed, written out: TensorRT has no AffineGrid, and a GPU may do a MatMul in
        # TF32, which moves a map of 224 positions by a tenth of one.
        values = theta[..., None, None]
        grid = values[:, :, 0] * self.columns + values[:, :, 1] * self.rows + values[:, :, 2]
        return F.grid_sample(
            maps, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode=self._padding, align_corners=False
        )


def _centres(count: int) -> Tensor:
    """Centres of the positions of one axis, in [−1, 1] from border to border: float32 (count,)."""
    return ((2.0 * torch.arange(count, dtype=torch.float64) + 1.0) / count - 1.0).float()


@final
class AlignedStages(nn.Module):
    """A backbone whose input and maps are aligned on their way, each map before the next stage takes it.

    Args:
        backbone: backbone that runs its stages one after the other.
        transformers: ``SpatialTransformer`` by ``"image"``, ``"level0"`` and so on; what is absent is not aligned.
        crop_px: height and width of the images.
        padding: see ``Warp``.

    Attributes:
        sizes: height and width of each level's maps.

    Raises:
        UsageError: the backbone does more than run its stages one after the other.
    """

    def __init__(self, backbone: Backbone, transformers: nn.ModuleDict, *, crop_px: Size, padding: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.transformers = transformers
        self.sizes = backbone.map_sizes(crop_px)
        self.padding = padding
        self._crop_px = crop_px
        self._stages = backbone.stages()
        self.warp_image = Warp(crop_px, padding=padding)
        self.warps = nn.ModuleList(Warp(size, padding=padding) for size in self.sizes)

    def forward(self, images: Tensor) -> tuple[Tensor, Maps, Maps]:
        """Align images and maps.

        Args:
            images: float32 (N, 3, H, W), normalised.

        Returns:
            Aligned images float32 (N, 3, H, W); aligned maps float32 (N, C, h, w) per level; and per level the
            transform back to the image, float32 (N, 2, 3), or nothing where nothing is aligned.
        """
        theta: Tensor | None = None
        if "image" in self.transformers:
            theta = self.transformers["image"](images)
            images = self.warp_image(images, theta)
        item, maps, backs = images, [], []
        for level, (stage, warp) in enumerate(zip(self._stages, self.warps, strict=True)):
            item = self.backbone.run(stage, item)
            if f"level{level}" in self.transformers:
                own = self.transformers[f"level{level}"](item)
                item = warp(item, own)
                theta = own if theta is None else compose(theta, own)
            maps.append(item)
            if theta is not None:
                backs.append(inverse(theta))
        return images, tuple(maps), tuple(backs)

    def lower(self) -> AlignedStages:
        """Return the same function with the transformers' normalisations folded."""
        folded: Any = fold(self.transformers)
        return AlignedStages(self.backbone, folded, crop_px=self._crop_px, padding=self.padding)


@final
class WarpBack(nn.Module):
    """Warps maps back to where the image has what they show, each level once.

    Args:
        sizes: height and width of each level's maps.
        padding: see ``Warp``.
    """

    def __init__(self, sizes: tuple[Size, ...], *, padding: str) -> None:
        super().__init__()
        self.warps = nn.ModuleList(Warp(size, padding=padding) for size in sizes)

    def forward(self, maps: Maps, backs: Maps) -> Maps:
        """Maps and transforms of ``AlignedStages`` → maps in the image's coordinates."""
        if not backs:
            return maps
        return tuple(warp(item, back) for warp, item, back in zip(self.warps, maps, backs, strict=True))
