"""The manifest of a bundle: typed in memory, JSON on disk, checked on the way in."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import BundleError
from ..core.spec import Preprocessing, TensorSpec
from ..core.threshold import Threshold

FORMAT_VERSION = 1
PARITY_STATES = ("passed", "failed")


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from the reference, as a share of the reference's range.

    Attributes:
        score: largest |Δscore| over the range of the reference scores.
        anomaly_map: largest |Δmap| over the range of the reference maps.
    """

    score: float
    anomaly_map: float


@dataclass(frozen=True)
class FileRecord:
    """Hash and size of one file of the bundle."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class PlanRecord:
    """One engine plan built on a target; only a plan recorded here may be loaded.

    Attributes:
        file: path inside the bundle (``plans/…``).
        sha256: hash of the plan's bytes.
        num_bytes: its size.
        engine: engine that loads it (``trt``, ``trt-rtx``).
        engine_version: version of that engine's library.
        target: GPU it was built for: name and compute capability, or ``sm_86+sm_89``.
        precision: precision of the graph it was built from.
        model_sha256: hash of the model.onnx it was built from.
        max_batch: largest batch its profile admits.
        layers_per_dtype: layers of the built plan by output dtype, as the inspector reports them.
    """

    file: str
    sha256: str
    num_bytes: int
    engine: str
    engine_version: str
    target: str
    precision: str
    model_sha256: str
    max_batch: int
    layers_per_dtype: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What was counted at export, so that the target can report it without PyTorch or onnx.

    Attributes:
        backbone: name of the pretrained network, or "" where the method has none.
        backbone_parameters: parameters of the pretrained feature extractor.
        extra_parameters: trained parameters used at inference besides the backbone (the paper's Table 3).
        constants_bytes: bytes of buffers that are not parameters (bank, Gaussians, position codes).
        flops: floating-point operations per frame (2 × multiply-accumulates) per stage:
            preprocess, backbone, head, post.
        nodes_per_dtype: nodes of the written graph by the dtype of their first floating output.
    """

    backbone: str
    backbone_parameters: int
    extra_parameters: int
    constants_bytes: int
    flops: dict[str, int]
    nodes_per_dtype: dict[str, int]


@dataclass(frozen=True)
class DetectorRecord:
    """Which detector this is and every parameter it was made with."""

    name: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class TrainingRecord:
    """What the detector was trained on.

    Attributes:
        dataset: name of the data set.
        category: its category, or "".
        fingerprint: sha256 over the names and bytes of the training images.
        num_images: images it was fitted on.
        num_holdout: good images held out for the threshold and for early stopping.
        seed: seed of the run.
    """

    dataset: str
    category: str
    fingerprint: str
    num_images: int
    num_holdout: int
    seed: int


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle that is not a tensor. See FORMAT.md.

    Attributes:
        score_range: range of the reference scores on the golden frames; tolerances are shares of it.
        map_range: range of the reference maps on the golden frames.
        max_batch: largest batch the graph was exported for.
        parity: what the last verify said of each engine: ``passed`` or ``failed``; see ``parity_of``.
    """

    name: str
    created: str
    detector: DetectorRecord
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    max_batch: int
    threshold: Threshold
    engine_thresholds: dict[str, Threshold]
    tolerances: dict[str, Tolerance]
    score_range: float
    map_range: float
    training: TrainingRecord
    figures: Figures
    tools: dict[str, str]
    files: dict[str, FileRecord]
    plans: tuple[PlanRecord, ...] = ()
    parity: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def threshold_for(self, engine: str) -> Threshold:
        """The threshold calibrated on this engine, or the bundle's own where there is none."""
        return self.engine_thresholds.get(engine, self.threshold)

    def parity_of(self, engine: str) -> str:
        """What the last verify of this engine said: ``passed``, ``failed``, or ``unverified`` where there was none."""
        return self.parity.get(engine, "unverified")

    def with_parity(self, engine: str, *, passed: bool) -> Manifest:
        """A copy that says what a verify of this engine found."""
        return dataclasses.replace(self, parity={**self.parity, engine: "passed" if passed else "failed"})

    def to_json(self) -> str:
        """Indented JSON with sorted keys; the same manifest gives the same bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"


def parse_manifest(text: str, *, where: str) -> Manifest:
    """Read a manifest; ``where`` names the bundle in errors.

    Raises:
        BundleError: not JSON, another format version, or a field that is missing, unknown or of another type.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise BundleError(f"{where}: manifest.json is not JSON ({error}). Export the bundle again.") from None
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{where}: the manifest has format_version {found!r}; this release reads {FORMAT_VERSION}. "
            "Use the release of lineproof that wrote it, or export again."
        )
    try:
        return _build(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{where}: manifest.json does not follow bundle/FORMAT.md: {type(error).__name__}: {error}. "
            "Export the bundle again."
        ) from None


def _spec(raw: dict[str, Any]) -> TensorSpec:
    return TensorSpec(raw["name"], raw["dtype"], tuple(raw["shape"]))


def _build(raw: dict[str, Any]) -> Manifest:
    preprocessing = dict(raw["preprocessing"])
    preprocessing["mean"] = tuple(preprocessing["mean"])
    preprocessing["std"] = tuple(preprocessing["std"])
    typed: dict[str, Any] = {
        "detector": DetectorRecord(**raw["detector"]),
        "inputs": tuple(_spec(item) for item in raw["inputs"]),
        "outputs": tuple(_spec(item) for item in raw["outputs"]),
        "preprocessing": Preprocessing(**preprocessing),
        "threshold": Threshold(**raw["threshold"]),
        "engine_thresholds": {name: Threshold(**item) for name, item in raw["engine_thresholds"].items()},
        "tolerances": {name: Tolerance(**item) for name, item in raw["tolerances"].items()},
        "training": TrainingRecord(**raw["training"]),
        "figures": Figures(**raw["figures"]),
        "files": {name: FileRecord(**item) for name, item in raw["files"].items()},
        "plans": tuple(PlanRecord(**item) for item in raw["plans"]),
    }
    for engine, state in raw["parity"].items():
        if state not in PARITY_STATES:
            raise ValueError(f"parity of {engine} is {state!r}, expected one of {PARITY_STATES}")
    return Manifest(**{**raw, **typed})
