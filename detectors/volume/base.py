"""What detectors of scans share: their parameters, and how their input follows from the training set."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, final

import torch
from torch import Tensor

from ...core.errors import UsageError
from ...core.inputs import DepthPreprocessing, Holes, Quantity, ScanRule, VoxelPreprocessing, reads_of_scans
from ...core.size import NATIVE, Size, size_text
from ...core.spec import Fit, Reads
from ...data.scans import MOST_TRIMMED, Extent
from ..base import AbstractDetector, DetectorConfig, FitContext
from ..ranges import Count, Range
from ..training.images import ImageSet
from ..training.scans import Scans, ScanSet
from .projection import CellsToPixels, coarse_size, ray_table


@dataclass(frozen=True, kw_only=True)
class ScanConfig(DetectorConfig):
    """Parameters of every detector of scans.

    Attributes:
        backbone: "none"; there is no pretrained network.
        weights: "none".
        resize_px: height and width of the graph's images; ``native`` for the frame's own.
        crop_px: equal to ``resize_px``: scans are not cropped.
        rgb: whether the detector sees the colours beside the points.
        trim: share of each training scan's points that the box and the range of depths leave out at each end, so that
            single wrong points do not stretch them; 0 takes all, as the paper does. Our guess.

    Raises:
        UsageError: a network is named, or the sizes differ.
    """

    backbone: str = "none"
    weights: str = "none"
    resize_px: Size = NATIVE
    crop_px: Size = NATIVE
    rgb: bool = False
    trim: Annotated[float, Range(low=0, high=MOST_TRIMMED)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone != "none" or self.weights not in ("none", "random"):
            raise UsageError(
                f"backbone is {self.backbone!r} and weights {self.weights!r}, but detectors of scans have no "
                "pretrained network. Leave both out."
            )
        if self.crop_px != self.resize_px:
            raise UsageError(
                f"crop_px is {size_text(self.crop_px)} and resize_px {size_text(self.resize_px)}; scans are not "
                "cropped. Give --image-size alone."
            )

    @property
    def reads(self) -> Reads:
        """What the detector reads of each scan."""
        return reads_of_scans(has_rgb=self.rgb)


@dataclass(frozen=True, kw_only=True)
class DepthConfig(ScanConfig):
    """Parameters of every detector of depth images.

    Attributes:
        quantity: what depth is: ``range``, the distance to the camera (the paper's), or ``z``.
        invalid: what a pixel without a measurement is. ``paper``: its depth is 0, as the paper has it, so that every
            pixel that is lost by chance is an anomaly. ``masked``: it is unknown, its depth no anomaly. Our guess.
    """

    quantity: Quantity = "range"
    invalid: Literal["paper", "masked"] = "paper"


@dataclass(frozen=True, kw_only=True)
class VoxelConfig(ScanConfig):
    """Parameters of every detector of voxels.

    Attributes:
        num_cells: cells along each edge of the grid; the paper's 64.
        ray_stride_px: distance in pixels of the rays along which the grid is seen; between them the map is
            interpolated. Our guess.
    """

    num_cells: Count = 64
    ray_stride_px: Count = 4


def smallest_deviations(rule: ScanRule, depth_m: float, colour: float) -> list[float]:
    """Smallest deviation of each channel of depth images, in units of its values; see ``DepthPart``."""
    spec = rule.spec
    if not isinstance(spec, DepthPreprocessing):
        raise TypeError(f"A detector of depth images was given {spec.kind} scans.")
    return [2.0 * depth_m / (spec.far_m - spec.near_m), *([colour] * 3 if spec.has_rgb else [])]


ScanConfigT = TypeVar("ScanConfigT", bound=ScanConfig)
DepthConfigT = TypeVar("DepthConfigT", bound=DepthConfig)
VoxelConfigT = TypeVar("VoxelConfigT", bound=VoxelConfig)


class AbstractScanDetector(AbstractDetector[ScanConfigT]):
    """A detector of scans: it is given a ``ScanSet``, and learns and judges what the graph's part makes of it."""

    @classmethod
    @abstractmethod
    def scan_spec(
        cls, config: ScanConfigT, *, frame: Size, extent: Extent, fit: Fit
    ) -> DepthPreprocessing | VoxelPreprocessing:
        """Return the specification of its frames.

        Args:
            config: parameters, in which no size is ``NATIVE`` any more.
            frame: height and width of the frames, in pixels.
            extent: how far the training set's measured points reach.
            fit: how a scan of another size is brought to the frame.
        """

    @abstractmethod
    def fit_scans(self, scans: ScanSet, holdout: ScanSet, *, context: FitContext) -> dict[str, Any]:
        """Learn what is normal, see ``AbstractDetector.fit``."""

    @abstractmethod
    def judge(self, scans: Scans) -> tuple[Tensor, Tensor]:
        """Score what the graph's part gives, see ``AbstractDetector.forward``."""

    @final
    def fit(self, images: ImageSet | ScanSet, holdout: ImageSet | ScanSet, *, context: FitContext) -> dict[str, Any]:
        """See ``fit_scans``."""
        if not (isinstance(images, ScanSet) and isinstance(holdout, ScanSet)):
            raise TypeError(
                f"{type(self).__name__} was given images; expected a ScanSet, see training.train.image_set."
            )
        return self.fit_scans(images, holdout, context=context)

    def forward(self, images: Tensor | Scans) -> tuple[Tensor, Tensor]:
        """See ``judge``."""
        if isinstance(images, Tensor):
            raise TypeError(f"{type(self).__name__} was given images; expected both tensors of its part of the graph.")
        return self.judge(images)

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """None: colours are from 0 to 1."""
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """With colours."""
        return {"rgb": True}


class AbstractDepthDetector(AbstractScanDetector[DepthConfigT]):
    """A detector of depth images: float32 (N, 1 or 4, h, w) and, (N, 1, h, w), what was measured; see ``DepthPart``."""

    input_kind = "depth"

    @classmethod
    def scan_spec(cls, config: DepthConfigT, *, frame: Size, extent: Extent, fit: Fit) -> DepthPreprocessing:
        """Depths of the training set become −1 to 1."""
        holes: Holes = "zero" if config.invalid == "paper" else "near"
        return DepthPreprocessing(
            frame_height_px=frame[0],
            frame_width_px=frame[1],
            resize_height_px=config.resize_px[0],
            resize_width_px=config.resize_px[1],
            quantity=config.quantity,
            near_m=extent.near_m if config.quantity == "range" else extent.low_m[2],
            far_m=extent.far_m if config.quantity == "range" else extent.high_m[2],
            has_rgb=config.rgb,
            holes=holes,
            fit=fit,
        )


class AbstractVoxelDetector(AbstractScanDetector[VoxelConfigT]):
    """A detector of voxels: grids (N, 1 or 3, G, G, G) and each pixel's cell, int64 (N, H · W); see ``VoxelPart``.

    Args:
        config: all parameters of the detector.

    Attributes:
        table: int32 (h · w, K), see ``ray_table``.
    """

    input_kind = "voxel"

    table: Tensor

    def __init__(self, config: VoxelConfigT) -> None:
        super().__init__(config)
        self.register_buffer("table", torch.empty(0, 0, dtype=torch.int32))

    def grid_of(self, rule: ScanRule) -> VoxelPreprocessing:
        """Return the specification of the grid that scans become."""
        if not isinstance(rule.spec, VoxelPreprocessing):
            raise TypeError(f"{type(self).__name__} was given {rule.spec.kind} scans; expected voxels.")
        return rule.spec

    def follow_rays(self, rule: ScanRule) -> None:
        """Find the cells that pixels see, once the camera is known."""
        self.table = torch.from_numpy(ray_table(self.grid_of(rule), rule.camera, stride_px=self.config.ray_stride_px))

    def to_pixels(self) -> CellsToPixels:
        """Return the module from scores of cells to score and anomaly map."""
        frame = self.config.resize_px
        return CellsToPixels(self.table, coarse_size(frame, self.config.ray_stride_px), frame)

    @classmethod
    def scan_spec(cls, config: VoxelConfigT, *, frame: Size, extent: Extent, fit: Fit) -> VoxelPreprocessing:
        """The box holds all measured points of the training set."""
        if config.resize_px != frame:
            raise UsageError(
                f"resize_px (--image-size) is {size_text(config.resize_px)}, frames are {size_text(frame)}: the map of "
                "a voxel detector covers the frame pixel by pixel. Leave it out, or give --frame and --fit stretch."
            )
        return VoxelPreprocessing(
            frame_height_px=frame[0],
            frame_width_px=frame[1],
            box_low_m=extent.low_m,
            box_high_m=extent.high_m,
            num_cells=config.num_cells,
            has_rgb=config.rgb,
            fit=fit,
        )


def native_resolved(config: DetectorConfig, frame: Size) -> DetectorConfig:
    """The parameters with the frame's size where they say ``NATIVE``."""
    is_native = config.resize_px == NATIVE
    return dataclasses.replace(config, resize_px=frame, crop_px=frame) if is_native else config
