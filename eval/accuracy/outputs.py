"""Outputs: scores and anomaly maps that an engine gave labelled images, with their ground truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ...bundle.store import Bundle
from ...core.errors import BadInputError, LineproofError
from ...core.inputs import InputSpec
from ...core.progress import Progress, silent
from ...core.threshold import check_threshold
from ...core.used import UsedShare
from ...core.words import counted
from ...data.content import content_hash
from ...data.counts import check_sizes
from ...data.dataset import Dataset, Sample, check_counts
from ...data.inputs.table import input_of
from ...data.notes import NO_DATA, DataNotes
from ...data.records import relative
from ...runtime.engine import EngineOptions, is_reference, open_engine, proof_name
from ...runtime.ranking import resolve_auto
from ..masks import Resolution, judged_map, judged_pixels, pack_mask, unpack_mask
from ..part import check_same_part
from ..predictions import ImagePrediction, Skipped, no_frames_left, predict_files

ARRAYS = ("score", "label", "has_mask", "anomaly_map", "packed_mask")


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Bundle, engine and data set that outputs come from.

    Attributes:
        bundle: name of the bundle.
        model_sha256: SHA-256 of the bundle's graph, in hexadecimal.
        detector: name of the detector.
        engine: name of the engine that ran, with its arithmetic (``openvino:bf16``) where that is not the default.
        precision: precision of the graph, ``"fp32"`` or ``"fp16"``.
        threshold: the bundle's threshold for that engine, in units of the score; always finite.
        dataset: name of the data set's layout.
        category: category of the data set.
        root: folder of the category when the outputs were made; ``files`` are relative to it.
        preprocessing: the bundle's rule from image to frame; it holds the size of the frames and the place of the map.
        skipped: images that could not be judged: (file, reason).
        conversions: what was done to the images to make frames of them, in sentences.
        part_note: one sentence on the difference between this data set and the one that the bundle was trained on, see
            ``check_same_part``; "" where there is none.
        data: description of the data set.
        count_notes: sentences on the difference between its counts and sizes and the official ones, see
            ``check_counts`` and ``check_sizes``.
        parity: state of the engine's proof at that time, see ``Manifest.parity_of``; "" in files of earlier releases.

    Raises:
        UsageError: the threshold is not finite.
    """

    bundle: str
    model_sha256: str
    detector: str
    engine: str
    precision: str
    threshold: float
    dataset: str
    category: str
    root: str
    preprocessing: InputSpec
    skipped: tuple[tuple[str, str], ...] = ()
    conversions: tuple[str, ...] = ()
    part_note: str = ""
    data: DataNotes = NO_DATA
    count_notes: tuple[str, ...] = ()
    parity: str = ""

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about the images and the proof of the engine, in sentences."""
        sentences = [self.part_note] if self.part_note else []
        if not is_reference(self.engine) and self.parity not in ("", "passed"):
            sentences.append(
                f"{self.bundle}: {self.engine} is not proved for this decision ({self.parity}): these figures may not "
                "be those of the reference."
            )
        return (*sentences, *self.conversions)

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def __str__(self) -> str:
        return f"{self.bundle} ({self.precision}) on {self.engine}"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """Scores and anomaly maps of N labelled images, and their ground truth.

    Attributes:
        source: bundle, engine and data set that the outputs come from.
        files: N paths relative to ``source.root``, with ``/``.
        defects: N types of defect; ``"good"`` for good images.
        score: float32 (N,).
        label: bool (N,), True for a defective image.
        has_mask: bool (N,), False where a defective image came without a mask: its pixels are unknown.
        anomaly_map: float32 (N, h, w).
        packed_mask: uint8 (N, H, ceil(W / 8)), the masks at the size of the frames as bits, see ``pack_mask``.
        contents: N content hashes of what was read, see ``data.content``; empty in files of earlier releases.
    """

    source: Source
    files: tuple[str, ...]
    defects: tuple[str, ...]
    score: NDArray[np.float32]
    label: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.float32]
    packed_mask: NDArray[np.uint8]
    contents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        spec, num = self.source.preprocessing, len(self.files)
        lengths = {len(self.defects), len(self.contents or self.files), *(len(getattr(self, name)) for name in ARRAYS)}
        expected = (num, spec.frame_height_px, -(-spec.frame_width_px // 8))
        if lengths != {num} or self.packed_mask.shape != expected or self.anomaly_map.ndim != 3:
            raise BadInputError(
                f"Outputs of {counted(num, 'image')} hold masks {self.packed_mask.shape} and maps "
                f"{self.anomaly_map.shape}; "
                f"expected packed masks {expected} at the frames' size, maps (N, h, w), and one of each per image."
            )

    def __len__(self) -> int:
        return len(self.files)

    def mask_of(self, index: int) -> NDArray[np.bool_]:
        """The mask of one image at the frame's size: bool (H, W); all False where it is unknown."""
        return unpack_mask(self.packed_mask[index], self.source.preprocessing.frame_width_px)

    def pixels_of(self, index: int, *, resolution: Resolution) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Map, float32, and mask, bool, of one image in one shape, see ``judged_pixels``."""
        mask = self.mask_of(index)
        return judged_pixels(self.anomaly_map[index], mask, self.source.preprocessing, resolution=resolution)

    def map_of(self, index: int, *, resolution: Resolution) -> NDArray[np.float32]:
        """The map of one image at that resolution, float32, see ``judged_map``."""
        return judged_map(self.anomaly_map[index], self.source.preprocessing, resolution=resolution)

    @property
    def used(self) -> UsedShare:
        """The number of the data set's test images that these outputs hold, and the reasons for the others."""
        return UsedShare(num_total=len(self) + len(self.source.skipped), skipped=self.source.skipped)

    @property
    def is_rejected(self) -> NDArray[np.bool_]:
        """Bool (N,), True where ``score > threshold``, in float64."""
        return np.asarray(self.score.astype(np.float64) > self.source.threshold)

    def with_threshold(self, value: float) -> Outputs:
        """The same outputs judged by another threshold, in units of the score.

        Raises:
            UsageError: the threshold is not finite.
        """
        return dataclasses.replace(self, source=dataclasses.replace(self.source, threshold=value))

    def take(self, index: NDArray[np.int64]) -> Outputs:
        """The outputs of the images with these indices, in that order; their maps are copied."""
        arrays = {name: getattr(self, name)[index] for name in ARRAYS}
        files, defects, contents = (
            tuple(names[i] for i in index) if names else () for names in (self.files, self.defects, self.contents)
        )
        return Outputs(source=self.source, files=files, defects=defects, contents=contents, **arrays)


def collect_outputs(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    dataset: Dataset,
    *,
    engine: str = "auto",
    options: EngineOptions | None = None,
    batch: int = 1,
    scratch: Path | None = None,
    other_data: bool = False,
    progress: Progress = silent,
) -> Outputs:
    """Run the test images of a data set through an engine and keep its outputs.

    Args:
        bundle: the bundle to run.
        dataset: data set whose test images are run; its contents were checked, see ``check_contents``.
        engine: name of an engine, or ``"auto"``.
        options: options of the engine; None for its defaults.
        batch: number of frames per call of the engine.
        scratch: folder in which maps and masks are kept, mapped into memory; it must outlive the outputs. None keeps
            them in memory.
        other_data: whether a data set of another part than the bundle was trained on is accepted.
        progress: called after each image.

    Raises:
        BadInputError: no test image fits the bundle, a mask does not, or the images show another part.
        LineproofError: a score or a map is not finite.
        UsageError: there is no such engine, or the bundle does not take such a batch.
        EnvironmentMissingError: the engine cannot run here.
    """
    part_note = check_same_part(bundle.manifest, dataset, other_data=other_data)
    conversions = input_of(bundle.manifest.preprocessing).conversions()
    name = resolve_auto(bundle, engine, options=options)
    map_shape = tuple(map(int, bundle.manifest.outputs[1].shape[1:]))
    writer = _Writer(len(dataset.test), map_shape, bundle.manifest.preprocessing, folder=scratch)
    with closing(open_engine(bundle, name, options=options)) as opened:
        for item in predict_files(
            opened, bundle, dataset.test, batch=batch, conversions=conversions, progress=progress
        ):
            writer.add(item, root=dataset.root)
    if not writer.num_frames:
        raise no_frames_left(writer.skipped, what="images of the test split")
    source = _source(bundle, proof_name(name, options or EngineOptions()), dataset, writer.skipped)
    return writer.finish(dataclasses.replace(source, conversions=conversions.summary_lines(), part_note=part_note))


def _source(bundle: Bundle, engine: str, dataset: Dataset, skipped: Sequence[Skipped]) -> Source:
    manifest = bundle.manifest
    return Source(
        bundle=manifest.name,
        model_sha256=bundle.model_sha256,
        detector=manifest.detector.name,
        engine=engine,
        precision=manifest.precision,
        threshold=manifest.threshold_for(engine).value,
        parity=manifest.parity_of(engine),
        dataset=dataset.layout,
        category=dataset.category,
        root=str(dataset.root),
        preprocessing=manifest.preprocessing,
        skipped=tuple((item.name(dataset.root), item.short_reason) for item in skipped),
        data=DataNotes.of(dataset),
        count_notes=(*check_counts(dataset), *check_sizes(dataset)),
    )


@final
class _Writer:
    """Collects the outputs image by image; maps and masks go to files where a folder is given."""

    def __init__(self, num: int, map_shape: tuple[int, ...], spec: InputSpec, *, folder: Path | None) -> None:
        mask_shape = (spec.frame_height_px, -(-spec.frame_width_px // 8))
        self._spec = spec
        self._maps = _room((num, *map_shape), np.float32, folder / "anomaly_map.npy" if folder else None)
        self._masks = _room((num, *mask_shape), np.uint8, folder / "packed_mask.npy" if folder else None)
        self._rows: list[tuple[str, str, str, float, bool, bool]] = []
        self.skipped: list[Skipped] = []

    @property
    def num_frames(self) -> int:
        return len(self._rows)

    def add(self, item: ImagePrediction | Skipped, *, root: Path) -> None:
        if isinstance(item, Skipped):
            self.skipped.append(item)
            return
        sample: Sample = item.sample
        name = relative(sample.path, root)
        if not (np.isfinite(item.score) and np.isfinite(item.anomaly_map).all()):
            raise LineproofError(
                f"The engine's answer on {name} is not finite (score {item.score}): nothing can be measured on it. Run "
                "lineproof verify; an fp16 graph that overflows is the usual cause."
            )
        mask = input_of(self._spec).read_mask(sample)
        place = len(self._rows)
        self._maps[place] = item.anomaly_map
        self._masks[place] = 0 if mask is None else pack_mask(mask)
        content = content_hash(sample.path, self._spec.reads)
        self._rows.append((name, sample.defect, content, item.score, bool(sample.label), mask is not None))

    def finish(self, source: Source) -> Outputs:
        files, defects, contents, score, label, has_mask = zip(*self._rows, strict=True)
        num = len(self._rows)
        return Outputs(
            source=source,
            files=tuple(files),
            defects=tuple(defects),
            contents=tuple(contents),
            score=np.array(score, np.float32),
            label=np.array(label, np.bool_),
            has_mask=np.array(has_mask, np.bool_),
            anomaly_map=self._maps[:num],
            packed_mask=self._masks[:num],
        )


def _room(shape: tuple[int, ...], dtype: Any, path: Path | None) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape) if path else np.empty(shape, dtype)
