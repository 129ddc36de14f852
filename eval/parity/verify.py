"""Verification: compares an engine with the reference on the golden frames, and on a data set where one is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, final

import numpy as np

from ...bundle.store import Bundle
from ...core.errors import EnvironmentMissingError, UsageError
from ...core.prediction import Prediction
from ...core.progress import Progress, silent
from ...core.threshold import ORIGINAL_ENGINE, Threshold
from ...data.dataset import Dataset, Sample
from ...data.inputs.table import input_of
from ...data.notes import DataNotes
from ...data.records import relative
from ...host.environment import describe_environment
from ...runtime.engine import (
    Engine,
    EngineOptions,
    check_batch_size,
    check_deciding,
    open_engine,
    predict,
    proof_name,
    reference_engine,
)
from ...runtime.original_engine import open_original
from ...runtime.ranking import AUTO, reference_options, resolve_auto
from ..masks import Resolution
from ..part import check_same_part
from ..predictions import FrameBatch, Skipped, no_frames_left, read_batches, used_of
from .comparison import Comparison
from .paired import PairedMeter
from .report import ParityReport

#: Frames → scores and maps of the reference on them.
Truth = Callable[[FrameBatch], Prediction]


def verify(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    *,
    engine: str,
    options: EngineOptions | None = None,
    dataset: Dataset | None = None,
    reference: str | None = None,
    batch: int = 1,
    resolution: Resolution = "image",
    other_data: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """Compare an engine with the reference: verdicts, scores, maps, and accuracy where there are labels.

    Nothing is written: print the report, then keep it with ``eval.parity.proof.record_parity``.

    Args:
        bundle: always compared on its golden frames, whose reference outputs are stored in it.
        engine: name of the engine under test, or ``"auto"``.
        options: options of the engine under test; the reference gets ``runtime.ranking.reference_options``.
        dataset: data set whose test images are compared as well, with ``reference`` run on the same frames; its
            contents were checked, see ``check_contents``.
        reference: name of the engine that gives the reference on the data set, or ``"original"`` for the file that an
            imported bundle carries; None for PyTorch.
        batch: number of frames per call of both engines.
        resolution: resolution at which pixel AUROC and AUPRO are measured, see ``eval.masks``.
        other_data: whether a data set of another part than the bundle's is accepted, see ``check_same_part``.
        progress: called after each image.

    Raises:
        UsageError: there is no such engine, the engine is its own reference, or the bundle does not take such a batch.
        EnvironmentMissingError: the engine or the reference cannot run here.
        BadInputError: no image of the test split fits the bundle, or the images show another part.
    """
    check_batch_size(bundle, batch)
    part_note = check_same_part(bundle.manifest, dataset, other_data=other_data) if dataset else ""
    options, reference = options or EngineOptions(), reference or reference_engine()
    name = resolve_auto(bundle, engine, options=options)
    with closing(open_engine(bundle, name, options=options)) as under_test:
        meter = PairedMeter(bundle.manifest.preprocessing, resolution=resolution)
        threshold = bundle.manifest.threshold_for(proof_name(name, options))
        trial = Trial(bundle, under_test, threshold, batch, progress, meter=meter)
        trial.compare_golden()
        if dataset is not None:
            with closing(_open_reference(bundle, reference, engine=name, options=options)) as truth:
                trial.compare_images(dataset, lambda item: predict(truth, item.frames))
    report = trial.report(name, options, reference="golden" if dataset is None else reference)
    data = DataNotes.of(dataset) if dataset else DataNotes()
    return dataclasses.replace(report, part_note=part_note, data=data)


def _open_reference(bundle: Bundle, reference: str, *, engine: str, options: EngineOptions) -> Engine:
    if reference in (engine, AUTO):
        raise UsageError(
            f"The reference is {reference!r} and the engine under test {engine!r}: an engine compared with itself "
            "proves nothing. Name another engine as the reference, or leave the data set away to compare with the "
            "outputs stored in the bundle."
        )
    if reference == ORIGINAL_ENGINE:
        return open_original(bundle)
    check_deciding(reference, what="be a reference")
    try:
        return open_engine(bundle, reference, options=reference_options(reference, options))
    except EnvironmentMissingError as error:
        raise EnvironmentMissingError(
            f"The reference for the data set cannot run: {error} Or name another engine as the reference, or verify "
            "without a data set: the golden frames need no reference engine."
        ) from error


@final
class Trial:
    """Runs the engine under test on all frames and collects the comparison with the reference.

    Args:
        bundle: the bundle.
        under_test: its engine, open.
        threshold: the threshold of both sides.
        batch: number of frames per call.
        progress: called after each frame.
        meter: measures the accuracy of both sides.
        comparison: judges the frames; None judges by the bundle's own tolerances.
        scale: brings both sides to the units of the comparison; None leaves them in the bundle's.
    """

    def __init__(  # noqa: PLR0913 (what a trial needs, by name)
        self,
        bundle: Bundle,
        under_test: Engine,
        threshold: Threshold,
        batch: int,
        progress: Progress,
        *,
        meter: PairedMeter,
        comparison: Comparison | None = None,
        scale: Callable[[Prediction], Prediction] | None = None,
    ) -> None:
        self._bundle = bundle
        self._under_test = under_test
        self._threshold = threshold
        self._batch = batch
        self._progress = progress
        self._comparison = comparison or Comparison(bundle.manifest, threshold=threshold)
        self._scale = scale or (lambda prediction: prediction)
        self._meter = meter
        self._skipped: list[Skipped] = []
        self._root: Path | None = None
        self._labels: list[int] = []
        self._conversions = input_of(bundle.manifest.preprocessing).conversions()
        self._num_golden = 0
        self._details = under_test.describe()

    def compare_golden(self) -> None:
        """Compare with the outputs that are stored in the bundle."""
        golden = self._bundle.golden()
        self._num_golden = len(golden.frames)
        for start in range(0, self._num_golden, self._batch):
            part = slice(start, start + self._batch)
            stored = self._scale(Prediction(golden.reference.score[part], golden.reference.anomaly_map[part]))
            prediction = self._scale(predict(self._under_test, golden.frames[part]))
            self._comparison.add(golden.names[part], origin="golden", reference=stored, engine=prediction)
            self._progress("golden frames", min(start + self._batch, self._num_golden), self._num_golden)

    def compare_images(self, dataset: Dataset, truth: Truth) -> None:
        """Compare on the test images of a data set; ``truth`` gives the reference, in the units of the comparison."""
        self._root = dataset.root
        for item in read_batches(
            self._bundle, dataset.test, batch=self._batch, conversions=self._conversions, progress=self._progress
        ):
            if isinstance(item, Skipped):
                self._skipped.append(item)
                continue
            self._labels += [sample.label for sample in item.samples]
            self._compare_batch(item, truth, root=dataset.root)
        if not self._labels:
            raise no_frames_left(self._skipped, what="images of the test split")

    def _compare_batch(self, item: FrameBatch, truth: Truth, *, root: Path) -> None:
        expected, actual = truth(item), self._scale(predict(self._under_test, item.frames))
        files = [relative(sample.path, root) for sample in item.samples]
        labels = [sample.label for sample in item.samples]
        if not self._comparison.add(files, origin="data", reference=expected, engine=actual, labels=labels):
            return
        for index, sample in enumerate(item.samples):
            self._measure(sample, expected, actual, index)

    def _measure(self, sample: Sample, expected: Prediction, actual: Prediction, index: int) -> None:
        """Count a labelled frame for both sides, or for neither where one gives a value that is not finite."""
        scores = float(expected.score[index]), float(actual.score[index])
        if np.isfinite(scores).all():
            self._meter.update_score(*scores, label=sample.label)
        maps = expected.anomaly_map[index], actual.anomaly_map[index]
        mask = input_of(self._bundle.manifest.preprocessing).read_mask(sample)
        if mask is not None and all(np.isfinite(item).all() for item in maps):
            self._meter.update_map(*maps, mask=mask)

    def report(self, engine: str, options: EngineOptions, *, reference: str) -> ParityReport:
        """The report on all frames so far; ``reference`` names what gave the truth on the data set."""
        return ParityReport(
            bundle=self._bundle.manifest.name,
            model_sha256=self._bundle.model_sha256,
            decision=self._bundle.manifest.decision,
            engine=engine,
            proof_name=proof_name(engine, options),
            allow_fallback=options.allow_fallback,
            precision=self._bundle.manifest.precision,
            compute_dtype=options.compute_dtype,
            reference=reference,
            num_golden=self._num_golden,
            threshold=self._threshold.value,
            threshold_engine=self._threshold.engine,
            threshold_note=self._bundle.manifest.caveat_for(proof_name(engine, options)),
            skipped_frames=tuple(self._skipped),
            used=used_of(self._skipped, num_total=len(self._labels) + len(self._skipped), root=self._root),
            num_defective=sum(self._labels),
            conversions=self._conversions.summary_lines(),
            engine_details=self._details,
            environment=describe_environment(),
            **_fields(self._comparison.judge()),
            **_fields(self._meter.compute()),
            **_fields(self._meter.statistics(self._threshold)),
        )


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
