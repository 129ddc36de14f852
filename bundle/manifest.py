"""The manifest of a bundle: typed in memory, JSON on disk, checked on the way in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ..core.inputs import InputSpec
from ..core.spec import TensorSpec
from ..core.strict import IN_MEMORY
from ..core.threshold import Threshold
from .imported import ImportRecord
from .record import Action, HistoryEntry, ParityRecord, ParityState, ProofState

FORMAT_VERSION = 2
#: Fields that a file of this version may lack. None is left out, or the seal of such a file would not fit any more.
_LATER = frozenset({"pretrained", "refit", "imported", "tiles"})
#: Names of "detectors" that were trained elsewhere: an ONNX file, a PyTorch module.
IMPORTED_FILE = "onnx"
IMPORTED_MODULE = "module"
#: The rest of the sentence about what a manifest says, where ``Manifest.is_decision_recorded`` is False.
NOT_RECORDED = (
    "is not what lineproof wrote: manifest.json was changed by hand. Set the threshold with `lineproof set-threshold`, "
    "and verify again."
)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an engine may be from the reference.

    A score may be off by ``score_spread`` times the spread of good scores (their standard deviation) and, farther from
    the threshold, by ``score_margin`` times the distance to it more: an error matters where it can change a verdict.

    Attributes:
        score_spread: share of the spread; also how near to the threshold a reference score is a tie.
        score_margin: share of |reference score − threshold|.
        anomaly_map: largest |Δmap| over the range of the reference maps.
    """

    score_spread: float
    score_margin: float
    anomaly_map: float


@dataclass(frozen=True)
class FileRecord:
    """Hash and size of one file of the bundle.

    Attributes:
        sha256: hash of its bytes, hexadecimal.
        num_bytes: its size in bytes.
    """

    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """One engine plan built on a target; only a plan recorded here may be loaded.

    Attributes:
        file: path inside the bundle (``plans/…``).
        sha256: hash of the plan's bytes, hexadecimal.
        num_bytes: its size in bytes.
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


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Sizes that are counted at export, so that the target can report them without PyTorch or onnx.

    Attributes:
        backbone: name of the pretrained network, or "" where the method has none.
        backbone_parameters: parameters of the pretrained feature extractor.
        extra_parameters: trained parameters used at inference besides the backbone, as in Table 3 of Zheng
            et al. 2022; of an imported model all its constants in floating point, trained or not.
        constants_bytes: bytes of buffers that are not parameters (bank, Gaussians, position codes).
        flops: floating-point operations per frame (2 × multiply-accumulates) per stage: preprocess, backbone, head,
            post; of an imported model preprocess, model, post, or none where they cannot be counted.
        nodes_per_dtype: nodes of the written graph by the dtype of their first floating output.
    """

    backbone: str
    backbone_parameters: int
    extra_parameters: int
    constants_bytes: int
    flops: dict[str, int]
    nodes_per_dtype: dict[str, int]

    @property
    def gflop(self) -> float | None:
        """Billions of operations per frame in all stages; None where they could not be counted."""
        return sum(self.flops.values()) / 1e9 if self.flops else None


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """The pretrained weights that a detector's backbone was given.

    Attributes:
        network: name of the network in timm or torchvision, without a tag.
        tag: which of the hub's weights they are: timm's tag, such as ``tv_in1k``, or torchvision's; "" where they came
            from a file or a package, which does not tell.
        source: ``imagenet`` (the hub's), ``file``, or the name of a Python package.
        file: name of the file, without its folder; "" where it is not known.
        sha256: hash of its bytes, hexadecimal; "" where the file is not known.
    """

    network: str
    tag: str
    source: str
    file: str
    sha256: str

    def sentence(self) -> str:
        """The weights for people, in one line."""
        name = f"{self.network}.{self.tag}" if self.tag else self.network
        origin = {"imagenet": "from the hub", "file": "from a file"}.get(self.source, f"from the package {self.source}")
        digest = f"sha256 {self.sha256[:16]}…" if self.sha256 else "no digest: their file was not found"
        return f"Pretrained weights: {name}, {origin} ({', '.join(filter(None, (self.file, digest)))})."


@dataclass(frozen=True)
class DetectorRecord:
    """The detector of a bundle or of a run.

    Attributes:
        name: name of the method, as in the table of detectors.
        parameters: every parameter with its value, as JSON values.
        pretrained: the weights that its backbone began with; None where it has none, and where an older release trained
            it.
    """

    name: str
    parameters: dict[str, Any]
    pretrained: WeightsRecord | None = None


@dataclass(frozen=True, kw_only=True)
class RefitRecord:
    """A second fit, on all good images.

    Attributes:
        num_first: number of images of the first fit, which gave the held-out images the scores behind the threshold.
        epochs: number of epochs of each training of the second fit, by the training's name; empty where the detector
            does not learn in epochs.
    """

    num_first: int
    epochs: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What the detector was trained on.

    Attributes:
        dataset: name of the data set.
        category: category of the data set, or "" where it has none.
        fingerprint: sha256 over the names and bytes of the training images or scans, see ``Dataset.fingerprint``; ""
            where the data set of an imported model has none.
        num_images: number of images that it was fitted on; 0 where it was imported and nobody knows.
        num_holdout: number of good images held out for the threshold and for early stopping.
        seed: seed of every random choice of the training.
        fitted: content hash (see ``data.content``) of every image it was fitted on; empty where an older release
            trained it. After a second fit they end with the images held out from the first.
        held_out: content hash of every image held out; empty likewise.
        refit: the second fit, to the held-out images too; None where there was one fit only.
    """

    dataset: str
    category: str
    fingerprint: str
    num_images: int
    num_holdout: int
    seed: int
    fitted: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    refit: RefitRecord | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is known what the detector was fitted to; it is not where a model was imported."""
        return self.num_images > 0

    @property
    def unlike_held_out(self) -> tuple[str, ...]:
        """Content hash of every image that the scores behind the threshold must not have come from."""
        return self.fitted[: self.refit.num_first] if self.refit else self.fitted

    @property
    def held_out_words(self) -> str:
        """What became of the held-out images, as the rest of a sentence that begins with their number."""
        return "of them held out from a first fit" if self.refit else "held out"

    @property
    def refit_caveat(self) -> str:
        """What a second fit means for the threshold that was set before it, in a sentence; "" where there was none."""
        if self.refit is None:
            return ""
        return (
            f"Refitted: this threshold was set on the scores that a first fit to {self.refit.num_first} images gave "
            f"{self.num_holdout} held-out ones; the detector was then fitted again to all {self.num_images}, these "
            "included. What it does at this threshold was not measured on good parts that it has not seen, and its "
            "scores may lie on another scale."
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a bundle that is not a tensor. See FORMAT.md.

    Attributes:
        name: name of the bundle, for people.
        created: time of the export, UTC, ISO 8601.
        detector: the method and its parameters.
        precision: ``fp32``, ``fp16`` or ``int8``: what is written in the graph.
        inputs: the graph's only input.
        outputs: the graph's outputs, ``score`` and ``anomaly_map``.
        preprocessing: how an image or a scan becomes a frame, and what the graph does to the frame.
        max_batch: largest batch the graph was exported for.
        threshold: threshold of every engine that has none of its own.
        engine_thresholds: thresholds by engine, or by engine and arithmetic; see ``threshold_for``.
        tolerances: tolerance by precision.
        score_spread: standard deviation of the reference's scores of held-out good images; score tolerances are shares
            of it. 0 where it is not known.
        map_range: range of the reference maps on the golden frames; map tolerances are shares of it.
        training: what the detector was trained on.
        figures: parameters, constants and operations, counted at export.
        tools: versions of the packages at export, by package.
        files: hash and size of each file, by its path inside the bundle.
        plans: engine plans that were built on a target.
        parity: what the last verify said of each engine, and for which decision; see ``parity_of``.
        history: every change of the decision, the oldest first.
        imported: what an imported detector brought with it; None where lineproof trained it.
        format_version: version of the format, see FORMAT.md.
        is_as_written: whether what was read is what lineproof wrote last; False where somebody edited the file,
            whatever field. It is not in the file: the file holds ``seal``, see ``to_json``.
    """

    name: str
    created: str
    detector: DetectorRecord
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: InputSpec
    max_batch: int
    threshold: Threshold
    engine_thresholds: dict[str, Threshold]
    tolerances: dict[str, Tolerance]
    score_spread: float
    map_range: float
    training: TrainingRecord
    figures: Figures
    tools: dict[str, str]
    files: dict[str, FileRecord]
    plans: tuple[PlanRecord, ...] = ()
    parity: dict[str, ParityRecord] = field(default_factory=dict)
    history: tuple[HistoryEntry, ...] = ()
    imported: ImportRecord | None = None
    format_version: int = FORMAT_VERSION
    is_as_written: bool = field(default=True, compare=False, metadata={IN_MEMORY: True})

    @property
    def model_sha256(self) -> str:
        """Digest of the model: of the graph and, where weights lie beside it, of those too."""
        parts = sorted((name, item.sha256) for name, item in self.files.items() if name.startswith("model.onnx"))
        return parts[0][1] if len(parts) == 1 else "+".join(digest[:32] for _, digest in parts)

    @property
    def is_of_file(self) -> bool:
        """Whether the model came as an ONNX file or a PyTorch module, and is no detector of lineproof."""
        return self.detector.name in (IMPORTED_FILE, IMPORTED_MODULE) and self.imported is not None

    @property
    def decision(self) -> str:
        """Digest of everything that decides between OK and NG: model, what goes in and comes out, all thresholds.

        Returns:
            Hexadecimal sha256; a proof holds for one such digest only.
        """
        parts = {
            "model": self.model_sha256,
            "preprocessing": dataclasses.asdict(self.preprocessing, dict_factory=_without_later),
            "inputs": [dataclasses.asdict(spec) for spec in self.inputs],
            "outputs": [dataclasses.asdict(spec) for spec in self.outputs],
            "threshold": self.threshold.value,
            "engine_thresholds": {engine: item.value for engine, item in self.engine_thresholds.items()},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def is_decision_recorded(self) -> bool:
        """Whether the history ends with this decision, in a manifest as lineproof wrote it; False after an edit."""
        last = self.history[-1] if self.history else None
        is_last = last is not None and last.action != "edited" and last.decision == self.decision
        return is_last and self.is_as_written

    def threshold_for(self, proof: str) -> Threshold:
        """The threshold calibrated on this engine, or the bundle's own where there is none.

        Args:
            proof: engine, or engine and arithmetic (``openvino:bf16``), which takes the engine's where it has no own.
        """
        whole = self.engine_thresholds.get(proof.partition(":")[0], self.threshold)
        return self.engine_thresholds.get(proof, whole)

    def caveat_for(self, proof: str) -> str:
        """What a second fit, or an import, means for this threshold; "" where it was set after that.

        Args:
            proof: engine, or engine and arithmetic, as for ``threshold_for``.
        """
        is_first = self.threshold_for(proof) == self.threshold
        is_from_training = is_first and self.threshold.num_good > 0
        if self.imported:
            is_own = is_first and self.threshold.value == self.imported.threshold
            if is_own or (is_from_training and self.imported.threshold is None):
                return self.imported.threshold_caveat
            return self.imported.split_caveat if is_from_training else ""
        return self.training.refit_caveat if is_from_training else ""

    def parity_of(self, proof: str) -> ProofState:
        """What the last verify said, for the bundle's present decision.

        Args:
            proof: the engine, or engine and arithmetic; see ``runtime.engine.proof_name``.

        Returns:
            ``unverified`` where there was none, and where it passed by the word of a manifest that somebody edited;
            ``outdated`` where it was about another decision.
        """
        record = self.parity.get(proof)
        if record is None:
            return "unverified"
        if record.decision != self.decision:
            return "outdated"
        return "unverified" if record.state == "passed" and not self.is_as_written else record.state

    def with_parity(self, proof: str, state: ParityState, *, time: str) -> Manifest:
        """A copy that holds the outcome of a verify for the present decision; ``time`` is UTC, ISO 8601."""
        record = ParityRecord(state=state, decision=self.decision, time=time)
        return dataclasses.replace(self, parity={**self.parity, proof: record})

    def with_threshold(self, threshold: Threshold, *, engine: str) -> Manifest:
        """A copy with another threshold of one engine, or of the bundle where ``engine`` is ""; see ``with_entry``."""
        if not engine:
            return dataclasses.replace(self, threshold=threshold)
        return dataclasses.replace(self, engine_thresholds={**self.engine_thresholds, engine: threshold})

    def with_entry(
        self,
        action: Action,
        *,
        time: str,
        engine: str = "",
        previous: float | None = None,
        who: str = "",
        reason: str = "",
    ) -> Manifest:
        """A copy whose history ends with the present decision."""
        value = self.threshold_for(engine).value
        entry = HistoryEntry(
            time=time, action=action, who=who, reason=reason, engine=engine, previous=previous, value=value,
            decision=self.decision,
        )  # fmt: skip
        return dataclasses.replace(self, history=(*self.history, entry))

    def with_edit_noted(self, *, time: str) -> Manifest:
        """This manifest, or where somebody edited it a copy whose history says so and that calls no engine proved.

        Without it the next command that writes would make the edit its own.
        """
        if self.is_decision_recorded or (self.is_as_written and self.history and self.history[-1].action == "edited"):
            return self
        unproved = {name: record for name, record in self.parity.items() if record.state != "passed"}
        plain = dataclasses.replace(self, parity=unproved, is_as_written=True)
        earlier = [entry.value for entry in self.history if not entry.engine]
        words = "manifest.json was changed by hand, in this threshold or elsewhere"
        return plain.with_entry("edited", time=time, previous=earlier[-1] if earlier else None, reason=words)

    def to_json(self) -> str:
        """Indented JSON with sorted keys; the same manifest gives the same bytes.

        ``seal`` is the digest of all the rest: it shows an edit by hand, and is no protection against a forger.
        """
        fields = self._plain()
        return json.dumps({**fields, "seal": seal_of(fields)}, indent=2, sort_keys=True, allow_nan=False) + "\n"

    def checked_against(self, seal: str) -> Manifest:
        """A copy whose ``is_as_written`` says whether ``seal`` fits this manifest."""
        return dataclasses.replace(self, is_as_written=seal == seal_of(self._plain()))

    def _plain(self) -> dict[str, Any]:
        values = dataclasses.asdict(self, dict_factory=_without_later)
        return {name: value for name, value in values.items() if name != "is_as_written"}


def _without_later(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a record, without those that say nothing and that former releases did not write."""
    return {name: value for name, value in pairs if value is not None or name not in _LATER}


def seal_of(fields: dict[str, Any]) -> str:
    """Hexadecimal sha256 over the fields of a manifest, without ``seal``, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
