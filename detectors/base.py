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
from .features import Backbone
from .images import ImageSet
from .table import DETECTORS as DETECTORS
from .weights import LITE0_BACKBONE, LITE0_PACKAGE


@dataclass(frozen=True)
class DetectorConfig:
    """Parameters that every detector has. Defaults are each paper's.

    Attributes:
        backbone: timm network.
        weights: see ``detectors.weights.create_network``.
        resize_px: side of the square that a frame is resized to.
        crop_px: side of the centre crop; equal to ``resize_px`` for none.
    """

    backbone: str = "wide_resnet50_2"
    weights: str = "imagenet"
    resize_px: int = 256
    crop_px: int = 256


ConfigT = TypeVar("ConfigT", bound=DetectorConfig)


@dataclass(frozen=True)
class FitContext:
    """Surroundings of a fit.

    Attributes:
        seed: seeds everything random; the same seed gives the same bits on a CPU.
        device: where to compute.
        progress: told about every step.
        run: folder where an interrupted fit keeps its state, or None for no state.
        time_limit_s: stop training after the epoch that exceeds it; 0 for no limit.
    """

    seed: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = silent
    run: Path | None = None
    time_limit_s: float = 0.0


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
    """

    config_class: ClassVar[type[DetectorConfig]]
    half_scopes: tuple[str, ...] = ("backbone",)
    localises: ClassVar[bool] = True

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
        """Normalised images float32 (N, 3, crop, crop) → score float32 (N,), anomaly_map float32 (N, h, w)."""

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
        settings: field to value; a string is converted to the field's type.

    Raises:
        UsageError: no such detector or field, or a value of another type.
    """
    config_class = resolve(DETECTORS, name, kind="detector").config_class
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise UsageError(f"{name} has no parameter {', '.join(unknown)}. It has: {', '.join(sorted(fields))}.")
    typed = {key: _convert(name, key, value, type(fields[key].default)) for key, value in settings.items()}
    config: DetectorConfig = config_class(**typed)
    if config.crop_px > config.resize_px:
        raise UsageError(f"crop_px {config.crop_px} is larger than resize_px {config.resize_px}. Make it smaller.")
    return config


def _convert(name: str, key: str, value: Any, wanted: type) -> Any:
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
