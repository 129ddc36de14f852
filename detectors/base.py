"""The base class of all detectors, their configuration, and the context of a fit."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..bundle.manifest import Tolerance, WeightsRecord
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..core.registry import resolve
from ..core.size import NATIVE, Size, parse_size, size_text
from ..core.spec import Reads
from .backbones.features import Backbone
from .backbones.frozen import FrozenNetwork
from .backbones.weights import LITE0_BACKBONE, LITE0_PACKAGE
from .presets import PAPER, QUICK, REPO, TABLE4, Preset
from .ranges import CountOrZero, check_values
from .table import DETECTORS as DETECTORS
from .training.images import ImageSet

_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Parameters that every detector has; a method's defaults are those of its paper.

    The type of a parameter says what it may be, see ``detectors.ranges``.

    Attributes:
        backbone: name of the pretrained network in timm; a tag after a dot says which of its weights. The default names
            torchvision's first ones, which most authors used.
        weights: ``"imagenet"``, ``"random"``, a weights file or a package; see
            ``detectors.backbones.weights.create_network``.
        resize_px: height and width in pixels that a frame is resized to.
        crop_px: height and width in pixels of the centre crop after it; equal to ``resize_px`` for no crop.

    Raises:
        UsageError: a value is none that its type allows.
    """

    backbone: str = "wide_resnet50_2.tv_in1k"
    weights: str = "imagenet"
    resize_px: Size = (256, 256)
    crop_px: Size = (256, 256)

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def reads(self) -> Reads:
        """What the detector reads of each sample: images."""
        return "image"


@dataclass(frozen=True, kw_only=True)
class TrainedConfig(DetectorConfig):
    """Parameters of every detector that is trained by gradient; by default all epochs run and the last one is kept.

    Attributes:
        keep: epoch whose weights are kept: ``"last"``, or ``"best"`` for the one with the lowest held-out loss.
        patience: epochs without a lower held-out loss before training stops; 0 never stops early.
    """

    keep: Literal["last", "best"] = "last"
    patience: CountOrZero = 0


ConfigT = TypeVar("ConfigT", bound=DetectorConfig)


def _unheard(name: str, epochs: int) -> None:
    """Listen to no training."""


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What a fit is given besides its images: seed, device, progress, limits.

    Attributes:
        seed: seed of every random choice; the same seed gives the same bits on a CPU.
        device: the device that the fit computes on.
        progress: called at every step.
        run: run folder that holds the state of an interrupted fit; None keeps no state.
        save_every_s: seconds after which the state of an interrupted fit is saved again, between two steps; it is also
            saved at the end and at Ctrl-C. 0 never saves it: what was interrupted begins again.
        time_limit_s: training stops after the epoch that exceeds this time, in seconds; 0 for no limit.
        num_workers: processes that make the batches; 0 makes them in the training's own process. The trained bits do
            not depend on it.
        epochs: number of epochs, by a training's name, that it runs whatever its schedule says; the last one is kept.
        trained: called after each training with its name and the number of epochs behind the weights that it kept.
    """

    seed: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = silent
    run: Path | None = None
    save_every_s: float = 600.0
    time_limit_s: float = 0.0
    num_workers: int = 0
    epochs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    trained: Callable[[str, int], None] = _unheard

    def share_of(self, num_trainings: int) -> FitContext:
        """The context of each training of a fit that has several: they share the time limit evenly."""
        return dataclasses.replace(self, time_limit_s=self.time_limit_s / num_trainings)


class Deployed(nn.Module):
    """A lowered detector in three stages; their names begin the node names of the exported graph.

    Args:
        backbone: maps normalised images, float32 (N, 3, H, W), to a tuple of feature maps.
        head: maps these feature maps to one tensor or a tuple of tensors.
        post: maps the output of the head to score, float32 (N,), and anomaly_map, float32 (N, h, w).
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
        config: all parameters of the detector.

    Attributes:
        config: all parameters of the detector.
        config_class: class of its configuration.
        half_scopes: module paths of the lowered form (``*`` stands for one name) that may compute in fp16. Everything
            else stays in fp32: distances, covariances, and in every module exp, softmax and reductions.
        localises: False where the method tells only whether an image is anomalous, not where: its anomaly map is the
            score at every pixel, and figures about pixels mean nothing.
        takes_rectangles: False where the method needs square images.
        input_kind: what it takes: ``"image"``, ``"depth"`` or ``"voxel"``, see ``core.inputs``; detectors of the last
            two extend ``volume.base.AbstractScanDetector``.
        paper: preset that a training begins from. Its settings are the defaults of ``config_class``; beside them it may
            have settings by category, and it says what they follow.
        repo: preset of the authors' code, where that differs from their paper; None where it is not known to.
        table4: preset of Zheng et al.'s run on the images of MVTec 3D-AD, see ``of_table_4``; None where there is none.
        why_squares: why it needs square images, as the rest of a sentence that begins with the detector's name; ""
            where it takes rectangles.
    """

    config_class: ClassVar[type[DetectorConfig]]
    half_scopes: tuple[str, ...] = ("backbone",)
    localises: ClassVar[bool] = True
    takes_rectangles: ClassVar[bool] = True
    input_kind: ClassVar[Literal["image", "depth", "voxel"]] = "image"
    why_squares: ClassVar[str] = ""
    paper: ClassVar[Preset] = Preset(
        source="The paper; what it leaves open follows published code, or is named a guess."
    )
    repo: ClassVar[Preset | None] = None
    table4: ClassVar[Preset | None] = None

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of the normalisation, per RGB channel in [0, 1]; the backbone's own."""
        network: Any = self.backbone
        return network.mean, network.std

    @abstractmethod
    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Learn what is normal.

        Args:
            images: good images to fit on.
            holdout: held-out good images; they serve early stopping and the choice of an epoch only.
            context: seed, device, progress and run folder of the fit.

        Returns:
            A report of the fit in JSON values, such as epochs, losses or the size of the memory bank; ``notice`` is a
            sentence that people should read.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score normalised images.

        Args:
            images: float32 (N, 3, H, W), H and W as in ``crop_px``.

        Returns:
            score float32 (N,), larger is more anomalous, and anomaly_map float32 (N, h, w).
        """

    @abstractmethod
    def lower(self) -> Deployed:
        """Return the same function in a form for export: constants folded, no control flow, no gradients."""

    @classmethod
    def quick_settings(cls) -> dict[str, Any]:
        """Parameters with which the built-in sample is learned in minutes on two CPU cores, without a model hub."""
        return {"backbone": LITE0_BACKBONE, "weights": LITE0_PACKAGE, "resize_px": 128, "crop_px": 128}

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """Return the presets by name: ``paper``, ``repo`` and ``table4`` where there is one, and ``quick``."""
        quick = Preset(source="Ours: learns the built-in sample in minutes.", settings=cls.quick_settings())
        chosen = {PAPER: cls.paper, REPO: cls.repo, TABLE4: cls.table4, QUICK: quick}
        return {name: preset for name, preset in chosen.items() if preset}

    def tolerance(self, precision: str) -> Tolerance:
        """Largest difference allowed between an engine and the PyTorch reference.

        Args:
            precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        """
        return usual_tolerance(precision)

    def extra_parameters(self) -> int:
        """Number of trained parameters besides the pretrained backbone, as in Table 3 of Zheng et al. (2022)."""
        frozen = {id(parameter) for parameter in self.backbone_parameters()}
        return sum(item.numel() for item in self.parameters() if item.requires_grad and id(item) not in frozen)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of the pretrained feature extractor."""
        return [item for module in self.modules() if isinstance(module, Backbone) for item in module.parameters()]

    def pretrained(self) -> WeightsRecord | None:
        """Which weights the backbone was given; None where it is random, or where the method has none."""
        networks = (module for module in self.modules() if isinstance(module, FrozenNetwork))
        return next((network.pretrained for network in networks), None)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict strictly; buffers whose size depends on the fit take the size that was saved."""
        for name, buffer in list(self.named_buffers()):
            if name in state and state[name].shape != buffer.shape:
                owner, _, leaf = name.rpartition(".")
                self.get_submodule(owner).register_buffer(leaf, torch.empty_like(state[name]))
        self.load_state_dict(dict(state), strict=True)


def usual_tolerance(precision: str) -> Tolerance:
    """Largest difference allowed where a detector does not say otherwise; see ``AbstractDetector.tolerance``."""
    shares = {"fp32": (1e-2, 1e-4, 1e-4), "fp16": (1e-1, 2e-2, 5e-2), "int8": (3e-1, 1e-1, 2e-1)}[precision]
    return Tolerance(score_spread=shares[0], score_margin=shares[1], anomaly_map=shares[2])


def make_config(name: str, settings: Mapping[str, Any]) -> DetectorConfig:
    """Return the configuration of a detector with some fields set.

    Args:
        name: name of the detector.
        settings: values by field; a string is converted to the field's type. A size is (height, width) in pixels, a
            list of both, or ``"256x768"``; one number means a square.

    Raises:
        UsageError: there is no such detector or field, a value has another type or is out of its range, the crop is
            larger than the resized image, or it is a rectangle and the detector takes squares only.
    """
    detector = resolve(DETECTORS, name, kind="detector")
    values = typed_settings(name, settings)
    try:
        config: DetectorConfig = detector.config_class(**values)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    _check_sizes(name, detector, config)
    return config


def typed_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the types of their fields, each checked by itself; see ``make_config``.

    Args:
        name: name of the detector.
        settings: values by field.

    Raises:
        UsageError: there is no such detector or field, or a value has another type.
    """
    config_class = resolve(DETECTORS, name, kind="detector").config_class
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise UsageError(f"{name} has no parameter {', '.join(unknown)}. It has: {', '.join(sorted(fields))}.")
    return {key: _convert(name, key, value, type(fields[key].default)) for key, value in settings.items()}


def find_preset(name: str, preset: str) -> Preset:
    """Return a preset of a detector.

    Args:
        name: name of the detector.
        preset: name of the preset.

    Raises:
        UsageError: there is no such detector, or it has no such preset.
    """
    known: dict[str, Preset] = resolve(DETECTORS, name, kind="detector").presets()
    if preset in known:
        return known[preset]
    why = " The authors' code is not known to differ from their paper." if preset == REPO else ""
    raise UsageError(f"{name} has no preset {preset!r}. It has: {', '.join(known)}.{why}")


def _check_sizes(name: str, detector: type[AbstractDetector[Any]], config: DetectorConfig) -> None:
    if NATIVE in (config.resize_px, config.crop_px) and detector.input_kind == "image":
        raise UsageError(f"{name}: a size of its images is native; expected HEIGHTxWIDTH. Scans alone keep their size.")
    resize, crop = size_text(config.resize_px), size_text(config.crop_px)
    if any(cropped > resized for cropped, resized in zip(config.crop_px, config.resize_px, strict=True)):
        raise UsageError(f"crop_px {crop} is larger than resize_px {resize} on a side. Make crop_px smaller.")
    if not detector.takes_rectangles and config.crop_px[0] != config.crop_px[1]:
        raise UsageError(f"crop_px is {crop}, but {name} {detector.why_squares}. Give a crop as wide as high.")


def stored_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in the JSON values that run records and manifests hold.

    Args:
        parameters: fields of a configuration, or the parameters of a record. An older record holds one number for a
            square size.

    Returns:
        The parameters with every size as ``[height, width]``.
    """
    sizes = {field.name for field in dataclasses.fields(DetectorConfig) if isinstance(field.default, tuple)}
    return {key: list(parse_size(value)) if key in sizes else value for key, value in parameters.items()}


def _convert(name: str, key: str, value: Any, expected: type) -> Any:
    if expected is tuple:
        try:
            return parse_size(value)
        except ValueError as error:
            raise UsageError(f"{name}: parameter {key}: {error}.") from None
    if isinstance(value, expected) and not (isinstance(value, bool) and expected is not bool):
        converted = value
    else:
        converted = _parse(value, expected)
    # Networks and statistics compute in float32: what overflows there is no number.
    if converted is None or (isinstance(converted, float) and not abs(converted) <= _LARGEST):
        finite = "a finite float, in float32" if expected is float else expected.__name__
        raise UsageError(f"{name}: parameter {key} is {value!r}; expected {finite}.")
    return converted


def _parse(value: Any, expected: type) -> Any:
    """Return the value converted to the expected type, or None where that is impossible."""
    try:
        if expected is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if expected in (int, float, str) and not isinstance(value, bool):
            return expected(value)
    except (ValueError, KeyError, OverflowError):
        pass
    return None


def build_detector(name: str, config: DetectorConfig) -> AbstractDetector[Any]:
    """Return an unfitted detector; its random initialisation draws from torch's and NumPy's global generators."""
    detector: AbstractDetector[Any] = resolve(DETECTORS, name, kind="detector")(config)
    return detector.eval()
