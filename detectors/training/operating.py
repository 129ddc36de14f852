"""Scores of the test images by a trained detector, and what a threshold does to them.

The detector scores them in its training form, as it scored the held-out good images that its threshold comes from.
The scores stay in the run, so that every export of it can show what its threshold does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from ...bundle.atomic import file_sha256, write_atomic
from ...bundle.runs.folder import CHECKPOINT, read_record, read_started
from ...core.errors import BadInputError, LineproofError
from ...core.inputs import InputSpec
from ...core.progress import Progress, silent
from ...core.spec import FrameRule
from ...core.strict import read_as
from ...core.used import UsedShare
from ...data.dataset import Dataset, Sample, check_contents, open_dataset
from ...data.held_out import data_root
from ...data.records import relative
from ...metrics.operating import RunOperation, no_class_lines, operating_table

TEST_SCORES = "test_scores.json"
_BATCH = 8


@final
@dataclass(frozen=True, kw_only=True)
class TestScores:
    """Scores of the test images of one data set.

    Attributes:
        checkpoint_sha256: SHA-256 of the checkpoint that scored them, in hexadecimal.
        rule: rule by which the images became frames, that of the training images; None in a run of an earlier
            release, which scored each at its own size.
        files: paths of the N images, relative to the data set's folder.
        labels: N labels, True for a defective image.
        scores: N scores, larger is more anomalous.
        skipped: file and reason of each image that could not be scored.
    """

    __test__ = False  # no test class, whatever its name

    checkpoint_sha256: str
    rule: FrameRule | None
    files: tuple[str, ...]
    labels: tuple[bool, ...]
    scores: tuple[float, ...]
    skipped: tuple[tuple[str, str], ...]

    def at(self, threshold: float) -> RunOperation:
        """Return the operating table of these scores at a threshold, in units of the score."""
        used = UsedShare(len(self.files) + len(self.skipped), self.skipped)
        return RunOperation(table=operating_table(self.scores, self.labels, threshold=threshold), used=used)


def score_test_split(run: Path, dataset: Dataset, *, progress: Progress = silent) -> TestScores | None:
    """Score the test images with the detector of a finished run, and keep the scores in the run.

    Args:
        run: folder of the run.
        dataset: data set that it was trained on.
        progress: called after every batch of images.

    Returns:
        The scores; None where no test image is defective or none could be scored.
    """
    from ..nn.graph import Scaled
    from .checkpoint import load_detector
    from .train import image_set

    record = read_record(run)
    fit = record.frame_fit
    rule = FrameRule.of(record.frame, fit=fit, bit_depth=record.bit_depth) if fit else None
    if not any(sample.label for sample in dataset.test):
        return None
    detector = load_detector(record.detector, run / CHECKPOINT)
    scaled = Scaled(detector, record.imported).eval()
    judged: list[tuple[str, bool, float]] = []
    skipped: list[tuple[str, str]] = []

    def make_set(paths: Sequence[Path]) -> Any:
        return image_set(detector, paths, rule=rule, scans=record.scans, imported=record.imported, tiles=record.tiles)

    for sample, score in _score(scaled, dataset.test, make_set, progress):
        name = relative(sample.path, dataset.root)
        if isinstance(score, str):
            skipped.append((name, score))
        else:
            judged.append((name, bool(sample.label), score))
    if not judged:
        return None
    files, labels, scores = zip(*judged, strict=True)
    test_scores = TestScores(
        checkpoint_sha256=file_sha256(run / CHECKPOINT),
        rule=rule,
        files=files,
        labels=labels,
        scores=scores,
        skipped=tuple(skipped),
    )
    # Scores that cannot be kept are scored again by the next export; nothing else depends on the file.
    with suppress(OSError):
        write_atomic(run / TEST_SCORES, json.dumps(asdict(test_scores), indent=1).encode())
    return test_scores


def _score(
    detector: Any, samples: Sequence[Sample], make_set: Callable[[Sequence[Path]], Any], progress: Progress
) -> Iterator[tuple[Sample, float | str]]:
    """Yield each sample with its score, or with the reason why it has none."""
    for start in range(0, len(samples), _BATCH):
        part = samples[start : start + _BATCH]
        scores = _score_part(detector, part, make_set)
        yield from zip(part, scores, strict=True)
        progress("test images", min(start + _BATCH, len(samples)), len(samples))


def _score_part(detector: Any, part: Sequence[Sample], make_set: Callable[[Sequence[Path]], Any]) -> list[float | str]:
    from math import isfinite

    from .checkpoint import score_images

    try:
        scores = score_images(detector, make_set([sample.path for sample in part]))
    except BadInputError as error:
        if len(part) == 1:
            return [str(error).removeprefix(f"{part[0].path}: ")]
        return [item for sample in part for item in _score_part(detector, [sample], make_set)]
    return [score if isfinite(score) else f"the score is {score}" for score in scores]


def stored_scores(run: Path) -> TestScores | None:
    """Read the test scores of a run; None where it holds none, or only those of another checkpoint."""
    try:
        # Earlier releases kept scores of images that no rule had made frames of: without it they are made again.
        test_scores = read_as(TestScores, json.loads((run / TEST_SCORES).read_text()))
        return test_scores if test_scores.checkpoint_sha256 == file_sha256(run / CHECKPOINT) else None
    except (OSError, ValueError):
        return None


def operation_of_run(
    run: Path, dataset: Dataset | None, *, spec: InputSpec, threshold: float, progress: Progress = silent
) -> RunOperation:
    """Return what a threshold does to the test images of a run, by its stored scores or by scoring them now.

    Args:
        run: folder of a finished run.
        dataset: data set that it was trained on; None where it is no longer there.
        spec: preprocessing of the bundle.
        threshold: threshold of the bundle, in units of the score.
        progress: called after every batch of images.
    """
    advice = "lineproof evaluate BUNDLE --data DIR measures it on images of yours."
    if not read_record(run).saw(spec):
        return RunOperation(reason=f"the bundle's frames, or their tiles, are not those of the training. {advice}")
    scores = stored_scores(run)
    if scores is None:
        scores = score_test_split(run, dataset, progress=progress) if dataset else None
    if scores is None:
        lacking = lacking_lines(dataset) if dataset else ()
        return RunOperation(reason=f"no labelled test images are at hand. {advice}", lacking=lacking)
    return scores.at(threshold)


def lacking_lines(dataset: Dataset) -> tuple[str, ...]:
    """Return the warnings about a data set without good or without defective test images."""
    num_defective = sum(sample.label for sample in dataset.test)
    return tuple(no_class_lines(num_good=len(dataset.test) - num_defective, num_defective=num_defective))


def recorded_dataset(run: Path, *, data: Path | None = None) -> Dataset | None:
    """Open the data set of a run and check its contents; None where it is gone or cannot be read.

    Args:
        run: folder of a finished run.
        data: where the data set lies now, the category's folder or the one above it; None for where it lay.
    """
    try:
        started, record = read_started(run), read_record(run)
        trained_on = started.data if started else record.root
        if data is None and not trained_on:
            return None
        root = Path(trained_on) if data is None else data_root(record, data)
        return check_contents(open_dataset(root), record.reads)
    except (OSError, ValueError, LineproofError):
        return None
