"""The JSON files of a training run: the settings that it was begun with, and the record of what it learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from ...core.camera import DivisionCamera
from ...core.inputs import InputSpec, ScanRule
from ...core.size import value_text
from ...core.spec import Fit, FrameRule, Preprocessing, Reads
from ...core.tiles import Tiles
from ..imported import ImportRecord
from ..manifest import DetectorRecord, TrainingRecord


@final
@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """``train.json``: what a run was begun with. Earlier releases wrote less; what they left out has a default.

    Attributes:
        detector: name of the detector.
        parameters: every parameter but the weights, as JSON values.
        weights: sha256 of the weights file, or the name of weights that are in no file, such as ``random``.
        category: category of the data set, or "".
        holdout: share of the good images held out, 0 to 1.
        refit: whether the detector is fitted again on all good images.
        seed: seed of every random choice; the same seed gives the same bits on a CPU.
        fit: how images of several sizes become frames, see ``data.inputs.fitting``.
        frame: height and width of the frames, in pixels, where they were named; None where they follow from the images.
        tiles: how frames are cut into tiles; None where they are not.
        bit_depth: bits that the camera used in 16-bit images; None for all.
        data: folder of the data set, absolute.
        fitted: content hash of every image to fit on; None where an earlier release began the run.
        held_out: content hash of every image held out; None likewise.
        camera: the calibrated camera of the scans, as it sees frames; None where there is none.
        command: the command line that began it and would finish it; "" where a program began it.
    """

    detector: str
    parameters: dict[str, Any]
    weights: str = ""
    category: str = ""
    holdout: float = 0.0
    refit: bool = False
    seed: int = 0
    fit: Fit = "none"
    frame: tuple[int, int] | None = None
    tiles: Tiles | None = None
    bit_depth: int | None = None
    data: str = ""
    fitted: tuple[str, ...] | None = None
    held_out: tuple[str, ...] | None = None
    camera: DivisionCamera | None = None
    command: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class PresetRecord:
    """The preset that the parameters of a run began from, and what was given beside it.

    Attributes:
        name: name of the preset: ``paper``, ``repo`` or ``quick``.
        source: where its settings come from, as a sentence.
        settings: values by parameter that the preset sets beside the detector's defaults, as JSON values.
        by_category: values by parameter that it sets for the category of the data set, likewise.
        given: values by parameter that the user gave instead, likewise.
        lacks: the category, where the preset has values for others and none for it; else "".
    """

    name: str
    source: str
    settings: dict[str, Any] = field(default_factory=dict)
    by_category: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    lacks: str = ""

    def sentence(self) -> str:
        """Return the preset in words."""
        listed = (
            ("it sets", self.settings),
            ("for this category", self.by_category),
            ("given instead", self.given),
        )
        parts = [
            f"; {words} {', '.join(f'{key}={value_text(value)}' for key, value in values.items())}"
            for words, values in listed
            if values
        ]
        lacking = f"; it has no values for {self.lacks}, which gets the defaults" if self.lacks else ""
        return f"Preset {self.name}: {self.source.rstrip('.')}{''.join(parts)}{lacking}."


@final
@dataclass(frozen=True, kw_only=True)
class FirstFit:
    """``first_fit.json``: what the first of two fits came to.

    Attributes:
        fit: what the detector's ``fit`` returned, as JSON values.
        holdout_scores: score that it gave each held-out image.
        epochs: number of epochs behind the weights that each training of the fit kept, by the training's name; empty
            where the detector does not learn in epochs.
    """

    fit: dict[str, Any]
    holdout_scores: tuple[float, ...]
    epochs: dict[str, int]


@final
@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """``checkpoint.json``: what a finished run learned from what.

    Attributes:
        detector: name and parameters of the detector.
        training: data set, seed and content hashes of the images.
        holdout: held-out good images, relative to ``root`` with ``/`` between folders.
        holdout_scores: the reference's score of each held-out image, at its own frame size; after a second fit they are
            the first one's, which did not see these images.
        frame: height and width of the frames that training saw, in pixels.
        fit: what the detector's ``fit`` returned, as JSON values.
        frame_fit: how images of another size became frames, see ``data.inputs.fitting``; None in a run of an earlier
            release, which took each image at its own size and ``frame`` from the first.
        bit_depth: bits that the camera used in 16-bit images; None for all.
        frame_note: what became of the images' sizes, in words; "" where all were the frame's.
        conversions: what decoding did to the training images, in sentences.
        root: folder of the data set when it was trained, absolute; "" where the images are absolute paths.
        preset: preset that the detector's parameters began from; None in a run of an earlier release, or where
            a program made the parameters.
        beginning: state of the folder when the training that finished the run began, in words; "" for a new run.
        created: time when it was finished, UTC, ISO 8601.
        environment: machine and packages that trained it, see ``host.environment``.
        first_fit: what the first of two fits returned, as JSON values; empty where there was one fit.
        refit_scores: score that the detector gives each held-out image after it was fitted to them too; empty likewise.
        scans: how scans become what the detector takes; None where it takes images.
        imported: what an imported detector brought with it; None where lineproof trained it.
        tiles: how frames were cut into tiles, each of which was learned as an image and of which the largest score is
            the frame's; None where they were not.
    """

    detector: DetectorRecord
    training: TrainingRecord
    holdout: tuple[str, ...]
    holdout_scores: tuple[float, ...]
    frame: tuple[int, int]
    fit: dict[str, Any]
    frame_fit: Fit | None = None
    bit_depth: int | None = None
    frame_note: str = ""
    conversions: tuple[str, ...] = ()
    root: str = ""
    preset: PresetRecord | None = None
    beginning: str = ""
    created: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    first_fit: dict[str, Any] = field(default_factory=dict)
    refit_scores: tuple[float, ...] = ()
    scans: ScanRule | None = None
    imported: ImportRecord | None = None
    tiles: Tiles | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the frames that training saw."""
        return self.scans.spec.frame_shape if self.scans else FrameRule.of(self.frame).frame_shape

    def saw(self, spec: InputSpec) -> bool:
        """Whether training scored images as such frames, cut into such tiles."""
        tiles = spec.tiles if isinstance(spec, Preprocessing) else None
        return (spec.frame_shape, tiles) == (self.frame_shape, self.tiles)

    @property
    def reads(self) -> Reads:
        """What training read of each sample, which its content hash covers."""
        return self.scans.spec.reads if self.scans else "image"
