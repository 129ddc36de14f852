"""The chain behind the command ``export``: train where asked, export, verify, put the bundle in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle.place import bundle_folder, check_changeable, check_replaceable, check_space, occupy, reserved
from ..bundle.runs.folder import is_finished, newest_run, read_record, refuse_unfinished, run_detector
from ..bundle.store import Bundle, is_bundle, open_bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..data.notes import DataNotes
from ..detectors.training.from_folder import built_in_sample, train_on_sample
from ..detectors.training.operating import operation_of_run, recorded_dataset
from ..export.options import ExportOptions
from .acceptance import ANY_ENGINE, builds_plan, check_engine, check_environment, prove
from .export_result import ExportResult
from .placing import num_bytes, settle

#: The flags that are not spelled like their parameter.
_FLAGS = {
    "max_batch": "--batch",
    "max_false_reject": "--max-false-reject",
    "has_reference": "--no-reference",
    "is_sample": "--sample",
    "is_replacing": "--replace",
}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export, and for which engine.

    Attributes:
        source: name of a detector, or path of a run folder or a bundle.
        checkpoint: run folder to export where ``source`` is a detector's name; None takes the newest one.
        is_sample: whether the detector is trained on the built-in sample first.
        out: folder of the bundle; None names it after category and detector.
        engine: name of the engine that the bundle is meant for; ``"onnx"`` for none in particular.
        targets: GPU architectures that a trt-rtx plan is built for, such as ``"sm_89"``.
        is_verified: whether the bundle is verified on its golden frames.
        is_replacing: whether a bundle that holds a calibration, proofs, plans, profiles or a history is replaced.
        accept_undecided: whether an undecided verification counts as good enough to replace another bundle.
    """

    source: str
    checkpoint: Path | None = None
    is_sample: bool = False
    out: Path | None = None
    engine: str = ANY_ENGINE
    targets: tuple[str, ...] = ()
    is_verified: bool = True
    is_replacing: bool = False
    accept_undecided: bool = False


def export_and_prove(
    request: ExportRequest, *, options: ExportOptions | None = None, progress: Progress = silent
) -> ExportResult:
    """Export a run and prove the bundle, or build a plan into a bundle that exists.

    Args:
        request: what to export, and for which engine.
        options: choices about the bundle; None for the defaults.
        progress: called about every step.

    Raises:
        UsageError: an option would have no effect, or export does not know the engine.
        EnvironmentMissingError: no engine, or no TensorRT, is here for it. This and the next one are checked before
            any work.
        BundleError: the folder cannot be written, the disk is full, or the folder holds a bundle with records that may
            not be replaced.
        BadInputError: the run is unfinished, or its images are gone or changed.
    """
    check_engine(request.engine, request.targets)
    options, conversions = options or ExportOptions(), list[str]()
    if is_bundle(Path(request.source)):
        bundle = _finished(request, options)
        check_environment(request.engine, request.targets, is_verified=request.is_verified)
        if builds_plan(request.engine):
            check_changeable(bundle.path)
            check_space(bundle.path, bundle.model_path.stat().st_size)
        return _prove(bundle, request, (), progress)
    from ..export.bundle import check_run, export_bundle

    options.check()
    run = _run(request, options)
    record = read_record(run) if run else None
    if record:
        check_run(record, options)
    name = record.detector.name if record else request.source
    category = record.training.category if record else built_in_sample(name).category
    out = request.out or bundle_folder(category, name, options.precision)
    check_environment(request.engine, request.targets, is_verified=request.is_verified)
    check_replaceable(out, is_replacing=request.is_replacing)
    run = run or train_on_sample(request.source, progress=progress)
    check_space(out, num_bytes(run, has_reference=options.has_reference, precision=options.precision))
    with reserved(out, is_replacing=request.is_replacing) as place:
        exported = export_bundle(run, place.folder, options=options, conversions=conversions, progress=progress)
        bundle = dataclasses.replace(exported, path=occupy(place))
        proof = settle(place, _prove(bundle, request, conversions, progress), accept_undecided=request.accept_undecided)
    spec, threshold = proof.bundle.manifest.preprocessing, proof.bundle.manifest.threshold.value
    dataset = recorded_dataset(run, data=options.data)
    operation = operation_of_run(run, dataset, spec=spec, threshold=threshold, progress=progress)
    return dataclasses.replace(proof, operation=operation, data=DataNotes.of(dataset) if dataset else DataNotes())


def _prove(bundle: Bundle, request: ExportRequest, conversions: Sequence[str], progress: Progress) -> ExportResult:
    return prove(
        bundle,
        engine=request.engine,
        targets=request.targets,
        is_verified=request.is_verified,
        conversions=tuple(conversions),
        progress=progress,
    )


def _finished(request: ExportRequest, options: ExportOptions) -> Bundle:
    """Open the bundle that the request names; options that only an export of a run could honour are refused."""
    bundle = open_bundle(request.source)
    values = {item.name: (getattr(options, item.name), item.default) for item in dataclasses.fields(options)}
    ignored = [
        key for key, (value, default) in values.items() if value not in (default, getattr(bundle.manifest, key, ""))
    ]
    ignored += [key for key in ("checkpoint", "is_sample", "out", "is_replacing") if getattr(request, key)]
    if ignored:
        names = ", ".join(f"{key} ({_FLAGS.get(key, f'--{key}')})" for key in ignored)
        advice = "Export its training run again with that."
        if not bundle.manifest.training.is_known:
            advice = "It was imported, in the precision that it came in: convert the model, and import it again."
        raise UsageError(
            f"{bundle.path} is a bundle already ({bundle.manifest.precision}): {names} would change nothing in it. "
            f"{advice}"
        )
    return bundle


def _run(request: ExportRequest, options: ExportOptions) -> Path | None:
    """The run folder that a request names; None where the detector is trained on the built-in sample first."""
    source = Path(request.source)
    refuse_unfinished(source)
    if is_finished(source):
        if request.checkpoint or request.is_sample:
            raise UsageError(
                f"{source} is a run already; checkpoint (--checkpoint) and is_sample (--sample) go with a detector's "
                "name. Leave them out."
            )
        return source
    from ..detectors.table import DETECTORS

    if request.source not in DETECTORS:
        raise UsageError(
            f"{request.source!r} is no detector, run folder or bundle. Name one; the detectors are "
            f"{', '.join(sorted(DETECTORS))}."
        )
    if request.checkpoint is not None:
        refuse_unfinished(request.checkpoint)
        given = f"checkpoint (--checkpoint) is {request.checkpoint}"
        if request.is_sample:
            raise UsageError(f"{given}, and is_sample (--sample) trains anew. Leave one of them out.")
        detector = run_detector(request.checkpoint)
        if detector != request.source:
            raise UsageError(f"{given} and holds {detector or 'no finished run'}; expected a run of {request.source}.")
        return request.checkpoint
    if request.is_sample and options.tiles:
        raise UsageError("is_sample (--sample) learns whole frames; leave it or tiles (--tiles) out.")
    return None if request.is_sample else newest_run(request.source)
