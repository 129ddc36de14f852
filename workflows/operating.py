"""What a trained detector is good for, from the test pictures of the data set it was trained on.

The detector scores them in its training form, as it scored the held-out good pictures that its threshold comes from.
The scores stay in the run, so that every export of it can show what its threshold does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from ..bundle.atomic import file_sha256, write_atomic
from ..core.errors import BadInputError, LineproofError
from ..core.progress import Progress, silent
from ..data.dataset import Dataset, Sample, open_dataset
from ..data.records import relative
from ..eval.operating import OperatingTable, operating_table
from ..eval.predictions import UsedShare

TEST_SCORES = "test_scores.json"
_STARTED = "train.json"
_BATCH = 8


@final
@dataclass(frozen=True, kw_only=True)
class TestScores:
    """Scores of the test pictures of one data set.

    Attributes:
        checkpoint_sha256: digest of the weights that gave them.
        files: N pictures, as seen from the data set's folder.
        labels: N, True for a defective picture.
        scores: N, larger is more anomalous.
        skipped: pictures that could not be scored: (file, reason).
    """

    __test__ = False  # no test class, whatever its name

    checkpoint_sha256: str
    files: tuple[str, ...]
    labels: tuple[bool, ...]
    scores: tuple[float, ...]
    skipped: tuple[tuple[str, str], ...]

    def at(self, threshold: float) -> RunOperation:
        """What they say about a threshold."""
        used = UsedShare(len(self.files) + len(self.skipped), self.skipped)
        return RunOperation(table=operating_table(self.scores, self.labels, threshold=threshold), used=used)


@final
@dataclass(frozen=True, kw_only=True)
class RunOperation:
    """The operating table of a run, or why there is none.

    Attributes:
        table: the table; None where nothing could be scored.
        used: how many of the test pictures it is about.
        reason: why there is no table; "" where there is one.
    """

    table: OperatingTable | None = None
    used: UsedShare = field(default_factory=lambda: UsedShare(0))
    reason: str = ""

    def warnings(self) -> list[str]:
        """What is said before anything else."""
        return [*(self.table.warnings() if self.table else []), *self.used.lines()]

    def sentences(self) -> list[str]:
        """The table, or why there is none."""
        return self.table.sentences() if self.table else [f"No operating table: {self.reason}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        table = None if self.table is None else self.table.to_dict()
        return {"table": table, "used": self.used.to_dict(), "reason": self.reason}


def score_test_split(run: Path, dataset: Dataset, *, progress: Progress = silent) -> TestScores | None:
    """Score the test pictures with the detector of a finished run, and keep the scores in the run.

    Args:
        run: folder of the run.
        dataset: the data set that it was trained on.
        progress: told after each few pictures.

    Returns:
        The scores; None where no test picture is defective or none could be scored.
    """
    from ..detectors.checkpoint import CHECKPOINT, load_detector, read_record

    if not any(sample.label for sample in dataset.test):
        return None
    detector = load_detector(read_record(run).detector, run / CHECKPOINT)
    judged: list[tuple[str, bool, float]] = []
    skipped: list[tuple[str, str]] = []
    for sample, score in _score(detector, dataset.test, progress):
        name = relative(sample.path, dataset.root)
        if isinstance(score, str):
            skipped.append((name, score))
        else:
            judged.append((name, bool(sample.label), score))
    if not judged:
        return None
    files, labels, scores = zip(*judged, strict=True)
    found = TestScores(
        checkpoint_sha256=file_sha256(run / CHECKPOINT),
        files=files,
        labels=labels,
        scores=scores,
        skipped=tuple(skipped),
    )
    # Scores that cannot be kept are scored again by the next export; nothing else depends on the file.
    with suppress(OSError):
        write_atomic(run / TEST_SCORES, json.dumps(asdict(found), indent=1).encode())
    return found


def _score(detector: Any, samples: Sequence[Sample], progress: Progress) -> Iterator[tuple[Sample, float | str]]:
    """Each picture with its score, or with why it has none."""
    for start in range(0, len(samples), _BATCH):
        part = samples[start : start + _BATCH]
        scores = _score_part(detector, part)
        yield from zip(part, scores, strict=True)
        progress("test pictures", min(start + _BATCH, len(samples)), len(samples))


def _score_part(detector: Any, part: Sequence[Sample]) -> list[float | str]:
    from math import isfinite

    from ..detectors.checkpoint import score_images
    from ..detectors.train import image_set

    try:
        scores = score_images(detector, image_set(detector, [sample.path for sample in part]))
    except BadInputError as error:
        if len(part) == 1:
            return [str(error).removeprefix(f"{part[0].path}: ")]
        return [found for sample in part for found in _score_part(detector, [sample])]
    return [score if isfinite(score) else f"the score is {score}" for score in scores]


def stored_scores(run: Path) -> TestScores | None:
    """The scores that lie in a run; None where there are none, or those of other weights."""
    from ..detectors.checkpoint import CHECKPOINT

    try:
        raw = json.loads((run / TEST_SCORES).read_text())
        found = TestScores(
            checkpoint_sha256=str(raw["checkpoint_sha256"]),
            files=tuple(map(str, raw["files"])),
            labels=tuple(map(bool, raw["labels"])),
            scores=tuple(map(float, raw["scores"])),
            skipped=tuple((str(file), str(reason)) for file, reason in raw["skipped"]),
        )
        return found if found.checkpoint_sha256 == file_sha256(run / CHECKPOINT) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def operation_of_run(
    run: Path, *, frame: tuple[int, ...], threshold: float, progress: Progress = silent
) -> RunOperation:
    """What a threshold does to the test pictures of a run: by the scores kept in it, or by scoring them now.

    Args:
        run: folder of a finished run.
        frame: height, width and channels of the bundle's frames.
        threshold: of the bundle.
        progress: told after each few pictures.
    """
    from ..detectors.checkpoint import read_record

    advice = "lineproof evaluate BUNDLE --data DIR measures it on pictures of yours."
    if tuple(frame) != (*read_record(run).frame, 3):
        return RunOperation(reason=f"the bundle's frames are not those of the training pictures. {advice}")
    scores = stored_scores(run)
    if scores is None:
        dataset = _recorded_dataset(run)
        scores = score_test_split(run, dataset, progress=progress) if dataset else None
    if scores is None:
        return RunOperation(reason=f"no labelled test pictures are at hand. {advice}")
    return scores.at(threshold)


def _recorded_dataset(run: Path) -> Dataset | None:
    """The data set that a run names, where it is still there."""
    try:
        root = Path(json.loads((run / _STARTED).read_text())["data"])
        return open_dataset(root)
    except (OSError, ValueError, KeyError, TypeError, LineproofError):
        return None
