"""Calibration: the threshold of one engine, from the scores that it gives held-out good parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, final

from ..bundle.manifest import Manifest
from ..bundle.reports import RECORD_ADVICE, file_report
from ..bundle.store import Bundle, now
from ..core.errors import BadInputError, BundleError
from ..core.os_errors import os_error_words
from ..core.progress import Progress, silent
from ..core.spec import Reads
from ..core.threshold import Threshold, calibrate
from ..core.used import MIN_USED, SkippedJson, UsedJson, UsedShare
from ..core.words import counted
from ..data.dataset import Dataset, Sample
from ..data.files import each_once
from ..data.inputs.table import input_of
from ..data.notes import NO_DATA, DataJson, DataNotes
from ..data.records import is_image, visible
from ..runtime.engine import EngineOptions, check_deciding, open_engine, proof_name
from ..runtime.ranking import resolve_auto
from .predictions import ImagePrediction, Skipped, no_frames_left, predict_files, used_of

CALIBRATION = "calibration.json"


class CalibrationJson(TypedDict):
    """A calibrated threshold, the images behind it, and the threshold that it replaces."""

    engine: str
    threshold: float
    previous_threshold: float
    previous_engine: str
    previous_note: str
    num_good: int
    num_rejected: int
    max_false_reject: float
    interval_95: tuple[float, float]
    source: str
    used: UsedJson
    data: DataJson
    skipped_frames: list[SkippedJson]
    warning: str
    conversions: list[str]
    part_note: str


@final
@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Result of a calibration, not yet kept.

    Attributes:
        bundle: the bundle whose engine was calibrated.
        threshold: the new threshold; ``keep`` writes it into the bundle.
        previous: the threshold that the engine used before.
        skipped_frames: images that could not be used, and why.
        warning: what the number of good parts is too small to show; "" where it is large enough.
        conversions: what was done to the images to make frames of them, in sentences.
        part_note: one sentence on the difference between the images' data set and the one that the bundle was trained
            on; "" where there is none.
        data: description of the data set whose validation split the images are.
        min_used: share of the images that must have been used for the threshold to be set, 0 to 1.
        lists_all: whether the text names every image that was not used; the JSON always does.
    """

    bundle: Bundle
    threshold: Threshold
    previous: Threshold
    skipped_frames: tuple[Skipped, ...]
    warning: str
    conversions: tuple[str, ...] = ()
    part_note: str = ""
    data: DataNotes = NO_DATA
    min_used: float = MIN_USED
    lists_all: bool = False

    @property
    def used(self) -> UsedShare:
        """How many of the images could be used."""
        return used_of(self.skipped_frames, num_total=self.threshold.num_good + len(self.skipped_frames))

    def check(self) -> None:
        """Raise BadInputError where less than ``min_used`` of the images was used: nothing is set then."""
        try:
            self.used.check(self.min_used)
        except BadInputError as error:
            raise BadInputError(f"The threshold was not set. {error}") from None

    def keep(self, *, who: str = "", record: Path | None = None) -> tuple[str, ...]:
        """Write the threshold into the bundle, or into a folder beside it; not where ``check`` fails.

        Args:
            who: name of the person who calibrated, for the history.
            record: folder for calibration.json where the bundle cannot be changed; its thresholds then stay as they
                are.

        Returns:
            A warning where the threshold should have been set in the bundle and was not.
        """
        if self.used.share < self.min_used:
            return ()
        if record is not None:
            warning = file_report(self.bundle, CALIBRATION, self.to_dict(), record=record)
            return (warning or f"The bundle was not changed: the threshold stands in {record / CALIBRATION} only.",)
        try:
            record_calibration(self.bundle, self.threshold, who=who)
        except OSError as error:
            return (f"The threshold was not set. {os_error_words(error)} {RECORD_ADVICE}",)
        except BundleError as error:
            return (f"The threshold was not set. {error}",)
        return ()

    @property
    def previous_note(self) -> str:
        """What a second fit of the detector means for the threshold before; "" where there was none."""
        return self.bundle.manifest.caveat_for(self.threshold.engine)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about the images, in sentences."""
        return (*([self.part_note] if self.part_note else []), *self.conversions)

    def to_dict(self) -> CalibrationJson:
        """Plain JSON values."""
        return {
            "engine": self.threshold.engine,
            "threshold": self.threshold.value,
            "previous_threshold": self.previous.value,
            "previous_engine": self.previous.engine,
            "previous_note": self.previous_note,
            "num_good": self.threshold.num_good,
            "num_rejected": self.threshold.num_rejected,
            "max_false_reject": self.threshold.max_false_reject,
            "interval_95": (self.threshold.interval_low, self.threshold.interval_high),
            "source": self.threshold.source,
            "used": self.used.to_dict(),
            "data": self.data.to_dict(),
            "skipped_frames": [item.to_dict() for item in self.skipped_frames],
            "warning": self.warning,
            "conversions": list(self.conversions),
            "part_note": self.part_note,
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        lines = [
            *self.used.lines(lists_all=self.lists_all),
            f"Threshold of {self.threshold.engine}: {self.threshold.value:.6g} (before: {self.previous.value:.6g}, "
            f"on the scores of {self.previous.engine}).",
            *([f"Before: {self.previous_note}"] if self.previous_note else []),
            f"{self.threshold.sentence()}.",
        ]
        if self.warning:
            lines.append(self.warning)
        lines.append("Verify again: the verdicts that were compared before used the other threshold.")
        return tuple(lines)


def calibrate_bundle(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    engine: str,
    source: str,
    max_false_reject: float = 0.01,
    options: EngineOptions | None = None,
    batch: int = 1,
    progress: Progress = silent,
) -> Calibration:
    """Find the threshold of one engine. Nothing is written: print it, then ``keep`` it.

    Args:
        bundle: bundle to run.
        samples: good images that the detector was not fitted to and that no accuracy is reported on; see
            ``held_out`` and ``good_images``.
        engine: name of the engine whose scores count, or ``"auto"``.
        source: description of the images, which is kept with the threshold.
        max_false_reject: share of good parts that may be rejected, 0 ≤ share < 1.
        options: options of the engine; None for its defaults.
        batch: number of frames per call of the engine.
        progress: called after each image.

    Raises:
        BadInputError: a sample is labelled defective, fewer than two images fit, or a score is not finite.
        UsageError: the share is not in [0, 1), there is no such engine, or the bundle does not take such a batch.
    """
    check_deciding(engine, what="set a threshold")
    _refuse_defective(samples)
    name = resolve_auto(bundle, engine, options=options)
    conversions = input_of(bundle.manifest.preprocessing).conversions()
    with closing(open_engine(bundle, name, options=options)) as opened:
        judged = predict_files(opened, bundle, samples, batch=batch, conversions=conversions, progress=progress)
        items = list(_without_maps(judged))
    skipped = tuple(item for item in items if isinstance(item, Skipped))
    scores = [item for item in items if not isinstance(item, Skipped)]
    if not scores:
        raise no_frames_left(skipped, what="held-out good images")
    proof = proof_name(name, options or EngineOptions())
    threshold = calibrate(scores, max_false_reject=max_false_reject, engine=proof, source=source)
    previous, warning = bundle.manifest.threshold_for(proof), resolution_warning(threshold)
    return Calibration(
        bundle=bundle,
        threshold=threshold,
        previous=previous,
        skipped_frames=skipped,
        warning=warning,
        conversions=conversions.summary_lines(),
    )


def record_calibration(bundle: Bundle, threshold: Threshold, *, who: str = "") -> Bundle:
    """Write a calibrated threshold into the bundle, for its engine, and into the bundle's history.

    What was proved before was proved for another decision: every engine counts as outdated until it is verified again.

    Args:
        bundle: the bundle to change; its manifest is read from disk again.
        threshold: the calibrated threshold; ``threshold.engine`` names the engine.
        who: name of the person who calibrated, for the history.

    Returns:
        The bundle as it is on disk afterwards.

    Raises:
        BundleError: the folder holds another model by now, for which the threshold was not calibrated.
        BusyError, OSError: the bundle cannot be changed.
    """

    def edit(manifest: Manifest) -> Manifest:
        if manifest.model_sha256 != bundle.model_sha256:
            raise BundleError(
                f"{bundle.path} was exchanged for another model while this ran: the threshold "
                f"{threshold.value:.6g} was calibrated on the old one and was not set. Calibrate again."
            )
        previous = manifest.threshold_for(threshold.engine).value
        changed = manifest.with_threshold(threshold, engine=threshold.engine)
        return changed.with_entry(
            "calibrate", time=now(), engine=threshold.engine, previous=previous, who=who, reason=threshold.source
        )

    return bundle.change(edit)


def _without_maps(items: Iterable[ImagePrediction | Skipped]) -> Iterator[float | Skipped]:
    for item in items:
        yield item if isinstance(item, Skipped) else item.score


def resolution_warning(threshold: Threshold) -> str:
    """A warning where there are too few good parts to resolve the rate of false rejects; "" where there are enough."""
    rate = threshold.max_false_reject
    if rate == 0.0:
        return (
            f"No good part may be rejected: the threshold stands above all {threshold.num_good} of them, and up to "
            f"{threshold.interval_high:.1%} of good parts may still be rejected."
        )
    needed = math.ceil(round(1.0 / rate, 6))
    if threshold.num_good >= needed:
        return ""
    return (
        f"{counted(threshold.num_good, 'good part is', 'good parts are')} too few to resolve a rate of "
        f"{rate:.3g}: at least {needed} are needed. "
        f"None may be rejected here, and the true rate may be as high as {threshold.interval_high:.1%}. "
        "Hold out more good parts."
    )


def held_out(dataset: Dataset, manifest: Manifest) -> tuple[Sample, ...]:
    """The good images of a data set that training did not see and that no accuracy is reported on.

    That is the validation split. Good test images are never used: a threshold fitted to them would make the
    reported accuracy optimistic.

    Raises:
        BadInputError: the layout has no validation split.
    """
    if dataset.validation:
        return dataset.validation
    was_fitted = "was" if manifest.training.is_known else "may have been"
    raise BadInputError(
        f"{dataset.root}: layout {dataset.layout} has no validation split, and neither its training images "
        f"({manifest.name} {was_fitted} fitted to them) nor its test images (its accuracy is reported on them) may set "
        "a threshold. Give a plain folder of good images that were held out."
    )


def good_images(folder: Path | str, reads: Reads = "image") -> tuple[Sample, ...]:
    """The images directly in a folder, in the order of their names; the caller vouches that all are good parts.

    Args:
        folder: the folder.
        reads: what the bundle reads of each; a scan whose cloud and image lie there counts once.

    Raises:
        BadInputError: the folder does not exist or holds no image.
    """
    folder = Path(folder)
    files = each_once(filter(is_image, visible(folder)), reads)
    samples = tuple(Sample(path=file, label=0, defect="good", split="validation") for file in files)
    if not samples:
        seen = "holds no image" if folder.is_dir() else "is not a folder"
        raise BadInputError(f"{folder} {seen}; expected a folder with images of good parts, directly in it.")
    return samples


def _refuse_defective(samples: Sequence[Sample]) -> None:
    defective = [str(sample.path) for sample in samples if sample.label != 0]
    if defective:
        raise BadInputError(
            f"{len(defective)} of {len(samples)} images are labelled defective, the first is {defective[0]}; a "
            "threshold is set on good parts only. Leave them out."
        )
