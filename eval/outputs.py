"""What an engine said about labelled pictures, with the truth beside it: kept, so that no model has to run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..bundle.store import Bundle
from ..core.errors import LineproofError
from ..core.progress import Progress, silent
from ..core.spec import Preprocessing
from ..core.threshold import check_threshold
from ..data.dataset import Dataset, Sample
from ..data.records import relative
from ..runtime.engine import EngineOptions, open_engine, resolve_auto
from .masks import mask_for
from .predictions import Judged, Skipped, no_frames_left, predict_files

ARRAYS = ("score", "label", "has_mask", "anomaly_map", "mask")


@final
@dataclass(frozen=True)
class Source:
    """Where outputs come from.

    Attributes:
        bundle: name of the bundle.
        model_sha256: digest of its graph.
        detector: name of the detector.
        engine: engine that computed.
        precision: precision written in the graph.
        threshold: the bundle's threshold for that engine, in units of the score; always finite.
        dataset: layout of the data set.
        category: its category.
        root: folder of the category when the outputs were made; ``files`` are relative to it.
        preprocessing: of the bundle, to bring a mask into the map's coordinates.
        skipped: pictures that could not be judged: (file, reason).

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
    preprocessing: Preprocessing
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def __str__(self) -> str:
        return f"{self.bundle} ({self.precision}) on {self.engine}"


@final
@dataclass(frozen=True, eq=False)
class Outputs:
    """Scores and maps of N labelled pictures, and their truth.

    Attributes:
        source: where they come from.
        files: N paths relative to ``source.root``, with ``/``.
        defects: N types of defect; ``"good"`` for good pictures.
        score: float32 (N,).
        label: bool (N,), True for a defective picture.
        has_mask: bool (N,), False where a defective picture came without a mask: its pixels are unknown.
        anomaly_map: float32 (N, h, w).
        mask: bool (N, h, w) in the coordinates of the map, True where anomalous.
    """

    source: Source
    files: tuple[str, ...]
    defects: tuple[str, ...]
    score: NDArray[np.float32]
    label: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def is_rejected(self) -> NDArray[np.bool_]:
        """Bool (N,), True where ``score > threshold``, in float64."""
        return np.asarray(self.score.astype(np.float64) > self.source.threshold)

    def with_threshold(self, value: float) -> Outputs:
        """The same outputs judged by another threshold; UsageError where that is not finite."""
        return dataclasses.replace(self, source=dataclasses.replace(self.source, threshold=value))

    def take(self, index: NDArray[np.int64]) -> Outputs:
        """The pictures at these places, in that order; their maps are copied."""
        arrays = {name: getattr(self, name)[index] for name in ARRAYS}
        names = tuple(self.files[i] for i in index), tuple(self.defects[i] for i in index)
        return Outputs(self.source, *names, **arrays)


def collect_outputs(
    bundle: Bundle,
    dataset: Dataset,
    *,
    engine: str = "auto",
    options: EngineOptions | None = None,
    batch: int = 1,
    scratch: Path | None = None,
    progress: Progress = silent,
) -> Outputs:
    """Run the test pictures of a data set through an engine and keep what it says.

    Args:
        bundle: the bundle.
        dataset: its test split is run.
        engine: engine, or ``"auto"``.
        options: of the engine.
        batch: frames per call.
        scratch: folder in which maps and masks are kept, mapped into memory; it must outlive the outputs. None keeps
            them in memory.
        progress: told after each picture.

    Raises:
        BadInputError: no test picture fits the bundle, or a mask does not.
        LineproofError: an answer is not finite.
        UsageError, EnvironmentMissingError: no such engine or batch; an engine that cannot run here.
    """
    name = resolve_auto(bundle, engine, options=options)
    height, width = map(int, bundle.manifest.outputs[1].shape[1:])
    writer = _Writer((len(dataset.test), height, width), scratch)
    with closing(open_engine(bundle, name, options=options)) as opened:
        for item in predict_files(opened, bundle, dataset.test, batch=batch, progress=progress):
            writer.add(item, bundle.manifest.preprocessing, root=dataset.root)
    if not writer.num_frames:
        raise no_frames_left(writer.skipped, what="pictures of the test split")
    return writer.finish(_source(bundle, name, dataset, writer.skipped))


def _source(bundle: Bundle, engine: str, dataset: Dataset, skipped: Sequence[Skipped]) -> Source:
    manifest = bundle.manifest
    return Source(
        bundle=manifest.name,
        model_sha256=bundle.model_sha256,
        detector=manifest.detector.name,
        engine=engine,
        precision=manifest.precision,
        threshold=manifest.threshold_for(engine).value,
        dataset=dataset.layout,
        category=dataset.category,
        root=str(dataset.root),
        preprocessing=manifest.preprocessing,
        skipped=tuple((relative(item.sample.path, dataset.root), item.reason) for item in skipped),
    )


@final
class _Writer:
    """Takes one picture after the other; maps and masks go to a file where a folder is given."""

    def __init__(self, shape: tuple[int, int, int], folder: Path | None) -> None:
        self._maps = _room(shape, np.float32, folder / "anomaly_map.npy" if folder else None)
        self._masks = _room(shape, np.bool_, folder / "mask.npy" if folder else None)
        self._rows: list[tuple[str, str, float, bool, bool]] = []
        self.skipped: list[Skipped] = []

    @property
    def num_frames(self) -> int:
        return len(self._rows)

    def add(self, item: Judged | Skipped, preprocessing: Preprocessing, *, root: Path) -> None:
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
        mask = mask_for(sample, preprocessing, map_shape=(item.anomaly_map.shape[0], item.anomaly_map.shape[1]))
        place = len(self._rows)
        self._maps[place] = item.anomaly_map
        self._masks[place] = False if mask is None else mask
        self._rows.append((name, sample.defect, item.score, bool(sample.label), mask is not None))

    def finish(self, source: Source) -> Outputs:
        files, defects, score, label, has_mask = zip(*self._rows, strict=True)
        num = len(self._rows)
        return Outputs(
            source,
            tuple(files),
            tuple(defects),
            np.array(score, np.float32),
            np.array(label, np.bool_),
            np.array(has_mask, np.bool_),
            self._maps[:num],
            self._masks[:num],
        )


def _room(shape: tuple[int, int, int], dtype: Any, path: Path | None) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape) if path else np.empty(shape, dtype)
