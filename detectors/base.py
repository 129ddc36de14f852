"""What every detector is: a configuration, a fit, a forward, and a lowered form that is exported."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..bundle.manifest import Tolerance
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..core.registry import resolve
from ..core.size import Size, parse_size, size_text
from .backbones.features import Backbone
from .backbones.weights import LITE0_BACKBONE, LITE0_PACKAGE
from .table import DETECTORS as DETECTORS
from .training.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Parameters that every detector has. Defaults are each paper's.

    Attributes:
        backbone: timm network.
        weights: see ``detectors.backbones.weights.create_network``.
        resize_px: height and width that a frame is resized to.
        crop_px: height and width of the centre crop; equal to ``resize_px`` for none.
    """

    backbone: str = "wide_resnet50_2"
    weights: str = "imagenet"
    resize_px: Size = (256, 256)
    crop_px: Size = (256, 256)


ConfigT = TypeVar("ConfigT", bound=DetectorConfig)


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """Surroundings of a fit.

    Attributes:
        seed: seeds everything random; the same seed gives the same bits on a CPU.
        device: where to compute.
        progress: told about every step.
        run: folder where an interrupted fit keeps its state, or None for no state.
        time_limit_s: stop training after the epoch that exceeds it; 0 for no limit.
        num_workers: processes that make the batches of a training; 0 makes them in this one. The bits are the same.
    """

    seed: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = silent
    run: Path | None = None
    time_limit_s: float = 0.0
    num_workers: int = 0


class Deployed(nn.Module):
    """A lowered detector in three stages, whose names become the node names of the graph.

    Args:
        backbone: images (N, 3, h, w) → tuple of feature maps.
        head: feature maps → tuple of tensors.
        post: those → score (N,), anomaly_map (N, h, w).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, post: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.post = post

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images float32 (N, 3, h, w) → score float32 (N,), anomaly_map float32 (N, h, w)."""
        score, anomaly_map = self.post(self.head(self.backbone(images)))
        return score, anomaly_map


class AbstractDetector(nn.Module, ABC, Generic[ConfigT]):
    """One anomaly detector in its training form, which is also the reference that engines are compared with.

    Args:
        config: every parameter it is made with.

    Attributes:
        config: the same.
        config_class: the detector's configuration.
        half_scopes: module paths of the lowered form (``*`` stands for one name) that may compute in fp16. All
            else stays in fp32: distances, covariance, and everywhere exp, softmax and reductions.
        localises: False where the method tells only whether an image is anomalous, not where: its anomaly map is the
            score at every pixel, and figures about pixels mean nothing.
        takes_rectangles: False where the method needs images as wide as high.
        why_squares: then, why, as the rest of a sentence that begins with the detector's name.
    """

    config_class: ClassVar[type[DetectorConfig]]
    half_scopes: tuple[str, ...] = ("backbone",)
    localises: ClassVar[bool] = True
    takes_rectangles: ClassVar[bool] = True
    why_squares: ClassVar[str] = ""

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation that images are normalised with, RGB in [0, 1]: those of ``self.backbone``."""
        network: Any = self.backbone
        return network.mean, network.std

    @abstractmethod
    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Learn what is normal.

        Args:
            images: good images to fit on.
            holdout: good images kept apart, for early stopping only.
            context: seed, device, progress, state folder.

        Returns:
            What happened, as JSON values (epochs, losses, bank size, …).
        """

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images float32 (N, 3, H, W) of ``crop_px`` → score float32 (N,), anomaly_map float32 (N, h, w)."""

    @abstractmethod
    def lower(self) -> Deployed:
        """The same function in a form made for export: folded, no control flow, no gradient."""

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Parameters that learn the built-in sample within a few minutes on two cores, without a model hub."""
        return {"backbone": LITE0_BACKBONE, "weights": LITE0_PACKAGE, "resize_px": 128, "crop_px": 128}

    def tolerance(self, precision: str) -> Tolerance:
        """How far an engine may be from the reference at this precision; see ``Tolerance`` for the shares."""
        shares = {"fp32": (1e-2, 1e-4, 1e-4), "fp16": (1e-1, 2e-2, 5e-2), "int8": (3e-1, 1e-1, 2e-1)}[precision]
        return Tolerance(score_spread=shares[0], score_margin=shares[1], anomaly_map=shares[2])

    def extra_parameters(self) -> int:
        """Trained parameters used at inference besides the pretrained backbone (the paper's Table 3)."""
        frozen = {id(parameter) for parameter in self.backbone_parameters()}
        return sum(item.numel() for item in self.parameters() if item.requires_grad and id(item) not in frozen)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of the pretrained feature extractor."""
        return [item for module in self.modules() if isinstance(module, Backbone) for item in module.parameters()]

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict strictly; buffers whose size depends on the fit take the size that was saved."""
        for name, buffer in list(self.named_buffers()):
            if name in state and state[name].shape != buffer.shape:
                owner, _, leaf = name.rpartition(".")
                self.get_submodule(owner).register_buffer(leaf, torch.empty_like(state[name]))
        self.load_state_dict(dict(state), strict=True)


def make_config(name: str, settings: Mapping[str, Any]) -> DetectorConfig:
    """The configuration of a detector with some fields set.

    Args:
        name: detector.
        settings: field to value; a string is converted to the field's type. A size is (height, width) in pixels, a
            list of both, or ``"256x768"``; one number means a square.

    Raises:
        UsageError: no such detector or field, a value of another type, a crop larger than the image, or a rectangle
            for a detector that takes squares alone.
    """
    detector = resolve(DETECTORS, name, kind="detector")
    config_class = detector.config_class
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise UsageError(f"{name} has no parameter {', '.join(unknown)}. It has: {', '.join(sorted(fields))}.")
    typed = {key: _convert(name, key, value, type(fields[key].default)) for key, value in settings.items()}
    config: DetectorConfig = config_class(**typed)
    _check_sizes(name, detector, config)
    return config


def _check_sizes(name: str, detector: type[AbstractDetector[Any]], config: DetectorConfig) -> None:
    resize, crop = size_text(config.resize_px), size_text(config.crop_px)
    if any(cropped > resized for cropped, resized in zip(config.crop_px, config.resize_px, strict=True)):
        raise UsageError(f"crop_px {crop} is larger than resize_px {resize}. Make it smaller.")
    if not detector.takes_rectangles and config.crop_px[0] != config.crop_px[1]:
        raise UsageError(f"crop_px is {crop}, but {name} {detector.why_squares}. Give a crop as wide as high.")


def stored_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as records hold them, in values of JSON.

    Args:
        parameters: fields of a configuration, or what a record holds: an older one has one number for a square.

    Returns:
        The same, every size as ``[height, width]``.
    """
    sizes = {field.name for field in dataclasses.fields(DetectorConfig) if isinstance(field.default, tuple)}
    return {key: list(parse_size(value)) if key in sizes else value for key, value in parameters.items()}


def _convert(name: str, key: str, value: Any, wanted: type) -> Any:
    if wanted is tuple:
        try:
            return parse_size(value)
        except ValueError as error:
            raise UsageError(f"{name}: parameter {key}: {error}.") from None
    if isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool):
        found = value
    else:
        found = _parse(value, wanted)
    if found is None or (isinstance(found, float) and not math.isfinite(found)):
        finite = "a finite float" if wanted is float else wanted.__name__
        raise UsageError(f"{name}: parameter {key} is {value!r}; expected {finite}.")
    return found


def _parse(value: Any, wanted: type) -> Any:
    """The value as the type wanted, or None."""
    try:
        if wanted is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if wanted in (int, float, str) and not isinstance(value, bool):
            return wanted(value)
    except (ValueError, KeyError, OverflowError):
        pass
    return None


def build_detector(name: str, config: DetectorConfig) -> AbstractDetector[Any]:
    """An unfitted detector; its random initialisation follows torch's and NumPy's global generators."""
    detector: AbstractDetector[Any] = resolve(DETECTORS, name, kind="detector")(config)
    return detector.eval()
