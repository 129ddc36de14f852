"""A threshold for one engine, from the scores that this engine gives held-out good parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..bundle.manifest import Manifest
from ..bundle.store import Bundle
from ..core.errors import BadInputError
from ..core.progress import Progress, silent
from ..core.threshold import Threshold, calibrate
from ..data.dataset import Dataset, Sample
from ..data.records import is_image, visible
from ..runtime.engine import EngineOptions, open_engine, pick_engine
from .predictions import Judged, Skipped, no_frames_left, predict_files


@final
@dataclass(frozen=True)
class Calibration:
    """What a calibration changed.

    Attributes:
        bundle: the bundle with the engine's threshold in its manifest, already on disk.
        threshold: the new threshold.
        previous: the threshold that the engine used before.
        skipped_frames: pictures that could not be used, and why.
        warning: what the number of parts cannot show, or "".
    """

    bundle: Bundle
    threshold: Threshold
    previous: Threshold
    skipped_frames: tuple[Skipped, ...]
    warning: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "engine": self.threshold.engine,
            "threshold": self.threshold.value,
            "previous_threshold": self.previous.value,
            "previous_engine": self.previous.engine,
            "num_good": self.threshold.num_good,
            "num_rejected": self.threshold.num_rejected,
            "max_false_reject": self.threshold.max_false_reject,
            "interval_95": [self.threshold.interval_low, self.threshold.interval_high],
            "source": self.threshold.source,
            "skipped_frames": [item.to_dict() for item in self.skipped_frames],
            "warning": self.warning,
        }

    def sentences(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        lines = [
            f"Threshold of {self.threshold.engine}: {self.threshold.value:.6g} (before: {self.previous.value:.6g}, "
            f"calibrated on {self.previous.engine}).",
            f"{self.threshold.sentence()}.",
        ]
        if self.warning:
            lines.append(self.warning)
        lines.extend(f"Not used: {item.sample.path}: {item.reason}" for item in self.skipped_frames)
        lines.append("Verify again: the verdicts that were compared before used the other threshold.")
        return tuple(lines)


def calibrate_bundle(
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
    """Set the threshold of one engine and write it into the bundle's manifest; the engine is unverified again.

    Args:
        bundle: its ``engine_thresholds`` gets an entry; its own threshold stays.
        samples: good pictures that the detector was not fitted to and that no accuracy is reported on; see
            ``held_out`` and ``good_pictures``.
        engine: engine whose scores count, or ``"auto"``.
        source: what the pictures are, in words; it is kept with the threshold.
        max_false_reject: share of good parts that may be rejected, 0 ≤ share < 1.
        options: of the engine.
        batch: frames per call.
        progress: told after each picture.

    Raises:
        BadInputError: a sample is labelled defective, fewer than two pictures fit, or a score is not finite.
        UsageError: the share, the engine or the batch does not exist.
    """
    _refuse_defective(samples)
    name = pick_engine(bundle) if engine == "auto" else engine
    with closing(open_engine(bundle, name, options=options)) as opened:
        items = list(_without_maps(predict_files(opened, bundle, samples, batch=batch, progress=progress)))
    skipped = tuple(item for item in items if isinstance(item, Skipped))
    scores = [item for item in items if not isinstance(item, Skipped)]
    if not scores:
        raise no_frames_left(skipped, what="held-out good pictures")
    found = calibrate(scores, max_false_reject=max_false_reject, engine=name, source=source)
    changed = bundle.with_manifest(_recalibrated(bundle.manifest, name, found))
    return Calibration(changed, found, bundle.manifest.threshold_for(name), skipped, resolution_warning(found))


def _recalibrated(manifest: Manifest, engine: str, found: Threshold) -> Manifest:
    # The verdicts that a verify compared used another threshold: the engine is unverified again.
    parity = {other: state for other, state in manifest.parity.items() if other != engine}
    thresholds = {**manifest.engine_thresholds, engine: found}
    return dataclasses.replace(manifest, engine_thresholds=thresholds, parity=parity)


def _without_maps(items: Iterable[Judged | Skipped]) -> Iterator[float | Skipped]:
    for item in items:
        yield item if isinstance(item, Skipped) else item.score


def resolution_warning(threshold: Threshold) -> str:
    """Say so where there are too few parts to show the rate that was asked for; "" where there are enough."""
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
        f"{threshold.num_good} good parts are too few to resolve a rate of {rate:.3g}: at least {needed} are needed. "
        f"None may be rejected here, and the true rate may be as high as {threshold.interval_high:.1%}. "
        "Hold out more good parts."
    )


def held_out(dataset: Dataset, manifest: Manifest) -> tuple[Sample, ...]:
    """The good pictures of a data set that training did not see and that no accuracy is reported on.

    That is the validation split. Good test pictures are never used: a threshold fitted to them would make the
    reported accuracy optimistic.

    Raises:
        BadInputError: the layout has no validation split.
    """
    if dataset.validation:
        return dataset.validation
    raise BadInputError(
        f"{dataset.root}: layout {dataset.layout} has no validation split, and neither its training pictures "
        f"({manifest.name} was fitted to them) nor its test pictures (its accuracy is reported on them) may set a "
        "threshold. Give a plain folder of good pictures that were held out."
    )


def good_pictures(folder: Path | str) -> tuple[Sample, ...]:
    """The images directly in a folder, all of them good parts by the caller's word, in the order of their names.

    Raises:
        BadInputError: no such folder, or no image in it.
    """
    folder = Path(folder)
    found = tuple(
        Sample(path=entry, label=0, defect="good", mask_path=None, split="validation")
        for entry in visible(folder)
        if is_image(entry)
    )
    if not found:
        seen = "holds no image" if folder.is_dir() else "is not a folder"
        raise BadInputError(f"{folder} {seen}; expected a folder with pictures of good parts, directly in it.")
    return found


def _refuse_defective(samples: Sequence[Sample]) -> None:
    defective = [str(sample.path) for sample in samples if sample.label != 0]
    if defective:
        raise BadInputError(
            f"{len(defective)} of {len(samples)} pictures are labelled defective, the first is {defective[0]}; a "
            "threshold is set on good parts only. Leave them out."
        )
