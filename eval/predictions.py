"""Image files to predictions, batch by batch: what verify, calibrate, run and the bad cases share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..bundle.store import Bundle
from ..core.errors import BadInputError, UsageError
from ..core.progress import Progress, silent
from ..data.dataset import Sample
from ..data.decoding.conversions import Conversions
from ..data.frames import read_frame
from ..data.records import relative
from ..runtime.engine import Engine, Frames, predict


@final
@dataclass(frozen=True)
class Skipped:
    """A picture that was not given to the engine.

    Attributes:
        sample: which one.
        reason: why, in words.
    """

    sample: Sample
    reason: str

    def name(self, root: Path | None = None) -> str:
        """The file, as seen from ``root`` where one is given."""
        return str(self.sample.path) if root is None else relative(self.sample.path, root)

    @property
    def short_reason(self) -> str:
        """The reason without the file's name, so that equal reasons read equal."""
        return self.reason.removeprefix(f"{self.sample.path}: ")

    def to_dict(self) -> dict[str, str]:
        """JSON: file and reason."""
        return {"file": str(self.sample.path), "reason": self.reason}


#: Share of the pictures that must have been used, unless another is stated.
MIN_USED = 0.9
_NAMED = 3


@final
@dataclass(frozen=True)
class UsedShare:
    """How many pictures of a set could be used.

    Attributes:
        num_total: pictures of the set.
        skipped: those that could not be used: (file, reason).
    """

    num_total: int
    skipped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, skipped: Sequence[Skipped], *, num_total: int, root: Path | None = None) -> UsedShare:
        """Of pictures that were skipped; ``root`` shortens their names."""
        return cls(num_total, tuple((item.name(root), item.short_reason) for item in skipped))

    @property
    def num_used(self) -> int:
        """Pictures that were used."""
        return self.num_total - len(self.skipped)

    @property
    def share(self) -> float:
        """Used pictures of all, 0 to 1; 1 of none."""
        return self.num_used / self.num_total if self.num_total else 1.0

    def lines(self, *, lists_all: bool = False) -> list[str]:
        """What is said first of a set that was used in part: none where all of it was.

        Args:
            lists_all: name every picture with its reason, instead of three and one reason.
        """
        if not self.skipped:
            return []
        head = f"Only {self.num_used} of {self.num_total} pictures could be used ({self.share:.1%}). Not used"
        if lists_all:
            return [f"{head}:", *(f"  {file}: {reason}" for file, reason in self.skipped)]
        names = ", ".join(file for file, _ in self.skipped[:_NAMED])
        num_more, num_reasons = len(self.skipped) - _NAMED, len({reason for _, reason in self.skipped}) - 1
        more = f" and {num_more} more" if num_more > 0 else ""
        plural = "s" if num_reasons > 1 else ""
        others = f" (and {num_reasons} other reason{plural}; -v lists all)" if num_reasons else ""
        return [f"{head}: {names}{more}: {self.skipped[0][1].rstrip('.')}{others}."]

    def check(self, min_used: float) -> None:
        """Raise BadInputError where less than ``min_used`` (0 to 1) of the pictures was used."""
        if self.share < min_used:
            raise BadInputError(
                f"Only {self.num_used} of {self.num_total} pictures could be used ({self.share:.1%}); expected at "
                f"least {min_used:.0%}, so that the result stands for the set. Mend what the first line names, or "
                "accept less with --min-used."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON: counts, and every picture that was not used."""
        skipped = [{"file": file, "reason": reason} for file, reason in self.skipped]
        return {"num_total": self.num_total, "num_used": self.num_used, "skipped": skipped}


@final
@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Pictures decoded for one call of an engine.

    Attributes:
        samples: where they came from, N of them.
        frames: uint8 (N, H, W, C), as the bundle takes them.
    """

    samples: tuple[Sample, ...]
    frames: Frames


@final
@dataclass(frozen=True, eq=False)
class Judged:
    """What an engine said about one picture.

    Attributes:
        sample: which picture.
        score: larger is more anomalous; may be NaN or infinite where the engine fails.
        anomaly_map: float32 (h, w).
    """

    sample: Sample
    score: float
    anomaly_map: NDArray[np.float32]


def check_batch_size(bundle: Bundle, batch: int) -> None:
    """Raise UsageError unless the bundle takes ``batch`` frames at once."""
    if not 1 <= batch <= bundle.manifest.max_batch:
        raise UsageError(
            f"--batch is {batch}; this bundle takes 1 to {bundle.manifest.max_batch} frames at once. "
            "Give a batch in that range, or export again with a larger --batch."
        )


def read_batches(
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    batch: int,
    conversions: Conversions | None = None,
    progress: Progress = silent,
) -> Iterator[FrameBatch | Skipped]:
    """Read pictures as frames, in batches; those that the bundle's rule does not take come out as ``Skipped``.

    Args:
        bundle: whose frames are wanted.
        samples: pictures, in the order in which they are read.
        batch: frames per batch; the last one may hold fewer.
        conversions: is told what was done to the pictures' values.
        progress: told after each picture.

    Raises:
        UsageError: the bundle does not take that many frames at once.
    """
    check_batch_size(bundle, batch)
    waiting: list[tuple[Sample, Frames]] = []
    for done, sample in enumerate(samples, start=1):
        try:
            frame = read_frame(sample.path, bundle.manifest.preprocessing, conversions=conversions)
            waiting.append((sample, frame))
        except BadInputError as error:
            yield Skipped(sample, str(error))
        if len(waiting) == batch:
            yield _stack(waiting)
            waiting = []
        progress("pictures", done, len(samples))
    if waiting:
        yield _stack(waiting)


def _stack(waiting: list[tuple[Sample, Frames]]) -> FrameBatch:
    samples, frames = zip(*waiting, strict=True)
    return FrameBatch(tuple(samples), np.stack(frames))


def predict_files(
    engine: Engine,
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    batch: int = 1,
    conversions: Conversions | None = None,
    progress: Progress = silent,
) -> Iterator[Judged | Skipped]:
    """Run pictures through an engine and hand out one answer at a time; only one batch is held.

    Args:
        engine: open engine.
        bundle: whose frames it takes.
        samples: pictures, in the order in which they are read.
        batch: frames per call.
        conversions: is told what was done to the pictures' values.
        progress: told after each picture.

    Raises:
        UsageError: the bundle does not take ``batch`` frames at once.
    """
    for item in read_batches(bundle, samples, batch=batch, conversions=conversions, progress=progress):
        if isinstance(item, Skipped):
            yield item
            continue
        found = predict(engine, item.frames)
        for sample, score, anomaly_map in zip(item.samples, found.score, found.anomaly_map, strict=True):
            yield Judged(sample, float(score), anomaly_map)


def no_frames_left(skipped: Sequence[Skipped], *, what: str) -> BadInputError:
    """The error for a set of which nothing could be used; names up to three pictures and why."""
    if not skipped:
        return BadInputError(f"There are no {what}; expected at least one. Check the folder that was given.")
    shown = "; ".join(f"{item.sample.path}: {item.reason}" for item in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return BadInputError(f"None of the {len(skipped)} {what} can be used. {shown}{more}.")


def json_number(value: Any) -> float | None:
    """A float for JSON, which knows neither NaN nor infinity: None for those."""
    return float(value) if value is not None and np.isfinite(value) else None
