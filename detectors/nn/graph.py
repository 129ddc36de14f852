"""Modules around a detector in the exported graph: preprocessing, upsampling, smoothing."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...bundle.imported import ImportRecord, Normalisation
from ...core.inputs import InputSpec
from ...core.linear import Border, Growth, smooth_upsample_matrix
from ...core.registry import resolve
from ...core.size import Size
from ...core.spec import Preprocessing
from .tiles import CutTiles, StitchTiles

#: ``kind`` of a specification → its part of the graph, from frames to what a detector takes.
GRAPH_PARTS = {
    "image": "lineproof.detectors.nn.graph:Preprocess",
    "depth": "lineproof.detectors.nn.scans:DepthPart",
    "voxel": "lineproof.detectors.nn.scans:VoxelPart",
}


def graph_part(spec: InputSpec) -> nn.Module:
    """Return the module that begins the graph; it turns frames as in ``spec.frames`` into a detector's input."""
    part: nn.Module = resolve(GRAPH_PARTS, spec.kind, kind="input")(spec)
    return part


def _float32(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


class Preprocess(nn.Module):
    """Camera frames to normalised images: cast, cut, antialiased resize, centre crop, normalise, all in float32.

    Where there are tiles, each of them becomes an image: those of the first frame row by row, then those of the next.
    Where the frame has the right size already nothing is resized. Where both axes shrink by whole factors the
    resize is one strided depthwise convolution, its borders re-normalised. Elsewhere it is one constant matrix per
    axis, with the crop folded into their rows.
    """

    scale: Tensor
    bias: Tensor
    rows: Tensor
    columns: Tensor
    kernel: Tensor
    row_gain: Tensor
    column_gain: Tensor

    def __init__(self, spec: Preprocessing) -> None:
        super().__init__()
        self.cut = CutTiles(spec) if spec.tiles else nn.Identity()
        self.spec = spec = spec.each
        scale = 1.0 / (255.0 * np.asarray(spec.std))
        bias = -np.asarray(spec.mean) / np.asarray(spec.std)
        self.register_buffer("scale", _float32(scale.reshape(1, 3, 1, 1)))
        self.register_buffer("bias", _float32(bias.reshape(1, 3, 1, 1)))
        rows, columns = spec.axes
        self.strides = tuple(axis.frame_px // axis.resized_px for axis in spec.axes)
        self.is_strided = all(
            axis.crop_px == axis.resized_px and axis.frame_px % axis.resized_px == 0 for axis in spec.axes
        )
        if self.is_strided and self.strides != (1, 1):
            self._make_convolution(spec)
        elif not self.is_strided:
            self.register_buffer("rows", _float32(rows.matrix))
            self.register_buffer("columns", _float32(columns.matrix.T))

    def _make_convolution(self, spec: Preprocessing) -> None:
        taps = [_interior_taps(stride) for stride in self.strides]
        kernel = np.outer(taps[0], taps[1])
        self.padding = tuple((len(tap) - stride + 1) // 2 for tap, stride in zip(taps, self.strides, strict=True))
        repeated = np.broadcast_to(kernel, (spec.frame_channels, 1, *kernel.shape))
        self.register_buffer("kernel", _float32(repeated))
        for name, size, stride, tap, shape in (
            ("row_gain", spec.frame_height_px, self.strides[0], taps[0], (1, 1, -1, 1)),
            ("column_gain", spec.frame_width_px, self.strides[1], taps[1], (1, 1, 1, -1)),
        ):
            self.register_buffer(name, _float32(_border_gain(size, stride, tap).reshape(shape)))

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise frames.

        Args:
            frames: uint8 (N, H, W, 3) RGB or (N, H, W, 1) mono.

        Returns:
            float32 (N, 3, crop_height, crop_width); N times the number of tiles where there are tiles.
        """
        images = self.cut(frames.to(torch.float32)).permute(0, 3, 1, 2)
        if self.is_strided and self.strides != (1, 1):
            channels = self.spec.frame_channels
            images = F.conv2d(images, self.kernel, stride=self.strides, padding=self.padding, groups=channels)
            images = images * self.row_gain * self.column_gain
        elif not self.is_strided:
            images = self.rows @ images @ self.columns
        normalised: Tensor = images * self.scale + self.bias
        return normalised


def _interior_taps(stride: int) -> NDArray[np.float64]:
    """Triangle filter of an integer down-scale away from the borders, sum 1."""
    offsets = np.arange(-(2 * stride - 1), 2 * stride, 2) if stride % 2 == 0 else 2 * np.arange(-(stride - 1), stride)
    taps = 1.0 - np.abs(offsets) / (2.0 * stride)
    return np.asarray(taps / taps.sum())


def _border_gain(size: int, stride: int, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factors by which a zero-padded convolution's weights sum to 1 at the borders too."""
    padding = (len(taps) - stride + 1) // 2
    inside = np.pad(np.ones(size), padding)
    sums = [inside[i * stride : i * stride + len(taps)] @ taps for i in range(size // stride)]
    return np.asarray(1.0 / np.asarray(sums))


class SmoothUpsample(nn.Module):
    """Upsampling and Gaussian smoothing as two constant matrices: ``U_h A U_wᵀ``, in float32.

    Args:
        size_in: height and width of the patch scores.
        size_out: height and width of the anomaly map.
        sigma: standard deviation of the Gaussian in output pixels; 0 for none.
        align_corners: as in ``torch.nn.functional.interpolate``.
        border: how the smoothing continues the map beyond its border, see ``core.linear``.
        growth: how the map grows before it is smoothed.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        size_in: Size,
        size_out: Size,
        *,
        sigma: float,
        align_corners: bool,
        border: Border = "symmetric",
        growth: Growth = "bilinear",
    ) -> None:
        super().__init__()
        rows, columns = (
            smooth_upsample_matrix(before, after, sigma, align_corners=align_corners, border=border, growth=growth)
            for before, after in zip(size_in, size_out, strict=True)
        )
        self.register_buffer("rows", _float32(rows))
        self.register_buffer("columns", _float32(columns.T))

    def forward(self, scores: Tensor) -> Tensor:
        """float32 (…, *size_in) → float32 (…, *size_out)."""
        return self.rows @ scores @ self.columns


class ForeignScale(nn.Module):
    """Scores and maps on the scale of the library that a detector was imported from, in the order of its arithmetic.

    ``clamp((x − threshold) / (high − low) + 0.5, 0, 1)``: see ``bundle.imported``. Where scores stay in the detector's
    own units, as those of every detector that was not imported do, nothing is computed.
    """

    def __init__(self, imported: ImportRecord | None) -> None:
        super().__init__()
        self.numbers: tuple[Normalisation | None, Normalisation | None] = (None, None)
        if imported and imported.score_scale != "native":
            imported.check_scale()
            self.numbers = (imported.image, imported.pixel)

    def forward(self, score: Tensor, anomaly_map: Tensor) -> tuple[Tensor, Tensor]:
        """Score float32 (N,), anomaly_map float32 (N, h, w) → the same, on the library's scale in [0, 1]."""
        image, pixel = (
            ((values - item.threshold) / (item.high - item.low) + 0.5).clamp(0.0, 1.0) if item else values
            for values, item in zip((score, anomaly_map), self.numbers, strict=True)
        )
        return image, pixel


class Scaled(nn.Module):
    """A detector that gives scores in the units of its bundle; what it takes is normalised images."""

    def __init__(self, detector: nn.Module, imported: ImportRecord | None) -> None:
        super().__init__()
        self.detector = detector
        self.scale = ForeignScale(imported)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images float32 (N, 3, H, W) → score float32 (N,), anomaly_map float32 (N, h, w)."""
        score, anomaly_map = self.scale(*self.detector(images))
        return score, anomaly_map


class Ends(nn.Module):
    """What follows a detector in the graph: tiles are joined, then scores brought to their scale, either where needed.

    Args:
        spec: specification of the frames, which may have tiles.
        imported: where an imported detector came from, which may say the scale of scores.
    """

    def __init__(self, spec: InputSpec, imported: ImportRecord | None) -> None:
        super().__init__()
        self.stitch = StitchTiles(spec) if isinstance(spec, Preprocessing) and spec.tiles else None
        self.scale = ForeignScale(imported)

    def forward(self, score: Tensor, anomaly_map: Tensor) -> tuple[Tensor, Tensor]:
        """What the detector gave → score float32 (N,), anomaly_map float32 (N, h, w)."""
        if self.stitch is not None:
            score, anomaly_map = self.stitch(score, anomaly_map)
        score, anomaly_map = self.scale(score, anomaly_map)
        return score, anomaly_map


class FrameGraph(nn.Module):
    """The whole graph from frames to score and anomaly_map, as it is exported and as the PyTorch reference runs it.

    Args:
        spec: specification of the frames.
        detector: the detector, in its training form or lowered.
        imported: where an imported detector came from, which may say the scale of scores.
    """

    def __init__(self, spec: InputSpec, detector: nn.Module, *, imported: ImportRecord | None = None) -> None:
        super().__init__()
        self.preprocess = graph_part(spec)
        self.detector = detector
        # By this name its nodes are of a detector's last stage, in the figures and in the names of nodes.
        self.post = Ends(spec, imported)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames as in the specification's ``frames`` → score float32 (N,), anomaly_map float32 (N, h, w)."""
        score, anomaly_map = self.post(*self.detector(self.preprocess(frames)))
        return score, anomaly_map
