"""Predictions: image files are read as frames and run through an engine, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..bundle.store import Bundle
from ..core.errors import BadInputError
from ..core.progress import Progress, silent
from ..core.used import SkippedJson, UsedShare
from ..data.dataset import Sample
from ..data.decoding.conversions import Conversions
from ..data.inputs.table import AnyInput, input_of
from ..data.records import relative
from ..runtime.engine import Engine, Frames, check_batch_size, predict


@final
@dataclass(frozen=True)
class Skipped:
    """An image that could not be read as a frame, so that no engine ran on it.

    Attributes:
        sample: the image.
        reason: why it could not be read, in words.
    """

    sample: Sample
    reason: str

    def name(self, root: Path | None = None) -> str:
        """The path of the image, relative to ``root`` where one is given."""
        return str(self.sample.path) if root is None else relative(self.sample.path, root)

    @property
    def short_reason(self) -> str:
        """The reason without the file's name, so that equal reasons read equal."""
        return self.reason.removeprefix(f"{self.sample.path}: ")

    def to_dict(self) -> SkippedJson:
        """Plain JSON values."""
        return {"file": str(self.sample.path), "reason": self.reason}


def used_of(skipped: Sequence[Skipped], *, num_total: int, root: Path | None = None) -> UsedShare:
    """The share of ``num_total`` images that was used, from those that were skipped; paths are relative to ``root``."""
    return UsedShare(num_total, tuple((item.name(root), item.short_reason) for item in skipped))


@final
@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Frames for one call of an engine.

    Attributes:
        samples: the N images that the frames were read from.
        frames: the N frames, of the shape and dtype that the bundle's graph takes.
    """

    samples: tuple[Sample, ...]
    frames: Frames


@final
@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """Score and anomaly map of one image.

    Attributes:
        sample: the image.
        score: larger is more anomalous; may be NaN or infinite where the engine fails.
        anomaly_map: float32 (h, w); larger is more anomalous.
    """

    sample: Sample
    score: float
    anomaly_map: NDArray[np.float32]


def read_batches(
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    batch: int,
    conversions: Conversions | None = None,
    progress: Progress = silent,
) -> Iterator[FrameBatch | Skipped]:
    """Read images as frames, in batches; an image that does not fit the bundle comes out as ``Skipped``.

    Args:
        bundle: bundle whose preprocessing makes the frames.
        samples: images, in the order in which they are read.
        batch: number of frames per batch; the last batch may hold fewer.
        conversions: collects what was done to the images' values; None to collect nothing.
        progress: called after each image.

    Raises:
        UsageError: the bundle does not take that many frames at once.
    """
    check_batch_size(bundle, batch)
    frame_input = input_of(bundle.manifest.preprocessing)
    waiting: list[tuple[Sample, Frames]] = []
    for done, sample in enumerate(samples, start=1):
        try:
            waiting.append((sample, frame_input.read(sample.path, conversions=conversions)))
        except BadInputError as error:
            yield Skipped(sample, str(error))
        if len(waiting) == batch:
            yield _stack(waiting, frame_input)
            waiting = []
        progress("images", done, len(samples))
    if waiting:
        yield _stack(waiting, frame_input)


def _stack(waiting: list[tuple[Sample, Frames]], frame_input: AnyInput) -> FrameBatch:
    samples, frames = zip(*waiting, strict=True)
    return FrameBatch(tuple(samples), frame_input.prepare(np.stack(frames)))


def predict_files(
    engine: Engine,
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    batch: int = 1,
    conversions: Conversions | None = None,
    progress: Progress = silent,
) -> Iterator[ImagePrediction | Skipped]:
    """Run images through an engine and yield one prediction at a time; only one batch is in memory.

    Args:
        engine: open engine.
        bundle: bundle that the engine runs.
        samples: images, in the order in which they are read.
        batch: number of frames per call of the engine.
        conversions: collects what was done to the images' values; None to collect nothing.
        progress: called after each image.

    Raises:
        UsageError: the bundle does not take ``batch`` frames at once.
    """
    for item in read_batches(bundle, samples, batch=batch, conversions=conversions, progress=progress):
        if isinstance(item, Skipped):
            yield item
            continue
        prediction = predict(engine, item.frames)
        for sample, score, anomaly_map in zip(item.samples, prediction.score, prediction.anomaly_map, strict=True):
            yield ImagePrediction(sample, float(score), anomaly_map)


def no_frames_left(skipped: Sequence[Skipped], *, what: str) -> BadInputError:
    """The error for a set of images none of which could be used; it names up to three of them and the reasons."""
    if not skipped:
        return BadInputError(f"There are no {what}; expected at least one. Check the folder that was given.")
    shown = "; ".join(f"{item.sample.path}: {item.reason}" for item in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return BadInputError(f"None of the {len(skipped)} {what} can be used. {shown}{more}.")


def json_number(value: Any) -> float | None:
    """A float for JSON, which knows neither NaN nor infinity: None for those."""
    return float(value) if value is not None and np.isfinite(value) else None
