"""Verification of an imported bundle against the library that trained its detector, on that library's own scale."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import final

import numpy as np

from ...bundle.imported import ImportRecord
from ...bundle.manifest import Manifest, Tolerance
from ...bundle.store import Bundle
from ...core.errors import UsageError
from ...core.prediction import Prediction
from ...core.progress import Progress, silent
from ...core.spec import Preprocessing
from ...core.threshold import Threshold, stated_threshold
from ...data.dataset import Dataset
from ...data.notes import DataNotes
from ...data.records import relative
from ...importers.anomalib.engine_predict import EnginePredictions, predict_with_anomalib
from ...runtime.engine import EngineOptions, check_batch_size, open_engine
from ...runtime.ranking import resolve_auto
from ..masks import Resolution
from ..part import check_same_part
from ..predictions import FrameBatch
from .comparison import Comparison
from .paired import PairedMeter
from .report import ParityReport
from .verify import Trial

LIBRARIES = ("anomalib",)
#: Largest difference in fp32 on the library's scale, which is 0 to 1: of a score, and of any pixel of a map.
_SCORE, _MAP = 1e-4, 1e-3


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignReference:
    """The library that is the reference, and how it is run.

    Attributes:
        checkpoint: the checkpoint that the bundle was imported from.
        python: interpreter of the environment that the library is installed in.
    """

    checkpoint: Path
    python: Path


def check_library(name: str) -> None:
    """Raise UsageError unless bundles can be verified against this library."""
    if name not in LIBRARIES:
        raise UsageError(f"against (--against) is {name!r}; expected {' or '.join(LIBRARIES)}.")


def verify_against(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    *,
    engine: str,
    dataset: Dataset,
    reference: ForeignReference,
    options: EngineOptions | None = None,
    batch: int = 1,
    resolution: Resolution = "image",
    other_data: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """Compare an engine with the predictions of the library that trained the detector; nothing is written.

    Scores and maps of both sides are compared as the library normalises them, at its threshold. In fp32 a score may be
    off by 1e-4 and a map by 1e-3; in other precisions by what the bundle's own tolerances allow. Frames within the
    score's tolerance of the threshold are ties, and are named. Golden frames are compared too, on the same scale.

    Args:
        bundle: a bundle that was imported.
        engine: name of the engine under test, or ``"auto"``.
        dataset: data set whose test images both sides judge.
        reference: the library.
        options: options of the engine under test.
        batch: number of frames per call of the engine.
        resolution: resolution at which pixel AUROC and AUPRO are measured, see ``eval.masks``.
        other_data: whether a data set of another part than the bundle's is accepted.
        progress: called after each image.

    Raises:
        UsageError: the bundle was not imported, or takes no such batch.
        BadInputError: it is another checkpoint, the library ended with an error, or the checkpoint says no scale.
        EnvironmentMissingError: the engine, or the library, cannot run here.
    """
    check_batch_size(bundle, batch)
    imported, options = _imported(bundle), options or EngineOptions()
    imported.check_normalisation()
    part_note = check_same_part(bundle.manifest, dataset, other_data=other_data)
    name = resolve_auto(bundle, engine, options=options)
    threshold = stated_threshold(
        imported.normalised_threshold,
        engine=imported.library,
        source=f"{imported.library}'s threshold of normalised scores",
    )
    with closing(open_engine(bundle, name, options=options)) as under_test:
        paths = [sample.path for sample in dataset.test]
        truth = predict_with_anomalib(
            imported, checkpoint=reference.checkpoint, python=reference.python, images=paths, progress=progress
        )  # fmt: skip
        trial = Trial(
            bundle,
            under_test,
            threshold,
            batch,
            progress,
            meter=PairedMeter(bundle.manifest.preprocessing, resolution=resolution),
            comparison=Comparison(_on_scale(bundle.manifest, imported), threshold=threshold, spread=1.0),
            scale=imported.normalised,
        )
        trial.compare_golden()
        trial.compare_images(dataset, _Truth(truth, paths, bundle.manifest))
    report = trial.report(name, options, reference=f"{imported.library} {truth.version}")
    problems = _contradictions(truth, threshold, [relative(path, dataset.root) for path in paths])
    return dataclasses.replace(
        report,
        failures=(*problems, *report.failures),
        state="failed" if problems else report.state,
        part_note=part_note,
        data=DataNotes.of(dataset),
        library=imported.library,
    )


def _imported(bundle: Bundle) -> ImportRecord:
    record = bundle.manifest.imported
    if record is None or record.library not in LIBRARIES:
        origin = f"imported from {record.library}" if record else "trained by lineproof"
        raise UsageError(
            f"{bundle.path} was {origin}; against (--against) compares with anomalib what was imported from it. Leave "
            "it out: its own reference is in the bundle."
        )
    if not record.has_threshold:
        raise UsageError(
            f"{record.file} holds no threshold of anomalib (it was not validated, or its post-processor's thresholding "
            "or normalisation is off): against (--against) has no verdicts to compare. Leave it out, or import a "
            "checkpoint that was validated."
        )
    spec = bundle.manifest.preprocessing
    if isinstance(spec, Preprocessing) and spec.tiles:
        raise UsageError(
            f"{bundle.path} cuts frames into tiles, and anomalib judges whole images: against (--against) would "
            "compare different things. Import the checkpoint once more without --tiles, and verify that bundle."
        )
    return record


def _on_scale(manifest: Manifest, imported: ImportRecord) -> Manifest:
    """The manifest with the tolerances of the comparison, in units of the library's scale."""
    own = manifest.tolerances[manifest.precision]
    tolerance = Tolerance(score_spread=_SCORE, score_margin=0.0, anomaly_map=_MAP)
    if manifest.precision != "fp32":
        unit = imported.image.high - imported.image.low if imported.image and imported.score_scale == "native" else 1.0
        spread = own.score_spread * manifest.score_spread / unit
        tolerance = Tolerance(
            score_spread=max(spread, _SCORE), score_margin=own.score_margin, anomaly_map=max(own.anomaly_map, _MAP)
        )
    return dataclasses.replace(manifest, tolerances={manifest.precision: tolerance}, map_range=0.0)


@final
class _Truth:
    """The library's predictions, found by image."""

    def __init__(self, predictions: EnginePredictions, paths: list[Path], manifest: Manifest) -> None:
        self._predictions = predictions
        self._numbers = {path: number for number, path in enumerate(paths)}
        self._size = tuple(int(side) for side in manifest.outputs[1].shape[1:])

    def __call__(self, item: FrameBatch) -> Prediction:
        numbers = [self._numbers[sample.path] for sample in item.samples]
        score = self._predictions.scores[numbers]
        maps = self._predictions.maps
        if maps is None:
            # A model without maps: ours is the score at every pixel.
            return Prediction(score, np.broadcast_to(score[:, None, None], (len(score), *self._size)).copy())
        return Prediction(score, np.ascontiguousarray(maps[numbers]))


def _contradictions(predictions: EnginePredictions, threshold: Threshold, names: list[str]) -> list[str]:
    """A sentence where the library's own labels are not those of its scores at its threshold."""
    implied = threshold.is_defect(predictions.scores)
    wrong = [name for name, a, b in zip(names, implied, predictions.labels, strict=True) if a != b]
    if not wrong:
        return []
    return [
        f"anomalib's own labels are not those of its scores at threshold {threshold.value:g} on {len(wrong)} of "
        f"{len(names)} images ({', '.join(wrong[:3])}): the checkpoint was changed, or judges in another way."
    ]
