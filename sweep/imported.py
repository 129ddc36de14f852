"""The chain behind ``import onnx``: make a bundle of a model's file, verify it, put it in its place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..bundle.place import bundle_folder, check_replaceable, check_space, occupy, reserved
from ..core.progress import Progress, silent
from ..data.dataset import check_contents, open_dataset
from ..data.notes import DataNotes
from ..importers.onnx_file.options import ImportOptions
from .acceptance import ANY_ENGINE, check_environment, prove
from .export_result import ExportResult
from .placing import settle


@final
@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import, and where to.

    Attributes:
        source: the model's ONNX file.
        preprocessing: JSON file that says what it takes and gives.
        data: folder of the data set with good images.
        category: its category; None where it has one only.
        out: folder of the bundle; None names it after category and file.
        is_verified: whether the bundle is verified on its golden frames.
        is_replacing: whether a bundle that holds a calibration, proofs, plans, profiles or a history is replaced.
        accept_undecided: whether an undecided verification counts as good enough to replace another bundle.
    """

    source: Path
    preprocessing: Path
    data: Path
    category: str | None = None
    out: Path | None = None
    is_verified: bool = True
    is_replacing: bool = False
    accept_undecided: bool = False


def import_and_prove(
    request: ImportRequest, *, options: ImportOptions | None = None, progress: Progress = silent
) -> ExportResult:
    """Import a model's ONNX file and prove the bundle.

    Where TensorRT for RTX refuses the graph, a note says so: other engines may run it.

    Args:
        request: what to import, and where to.
        options: choices about the bundle; None for the defaults.
        progress: called about every step.

    Raises:
        BadInputError: a file cannot be read, they do not fit each other, or the data set lacks good images.
        UsageError: an option is out of its range, or the model does not take such a batch.
        EnvironmentMissingError: no engine is here that could verify the bundle.
        BundleError: the folder cannot be written, the disk is full, or the folder holds a bundle with records that may
            not be replaced.
    """
    options = options or ImportOptions()
    options.check()
    dataset = open_dataset(request.data, category=request.category)
    out = request.out or bundle_folder(dataset.category, request.source.stem, "fp32")
    check_environment(ANY_ENGINE, (), is_verified=request.is_verified)
    check_replaceable(out, is_replacing=request.is_replacing)
    from ..importers.onnx_file.bundle import import_onnx

    dataset = check_contents(dataset, "image")
    with reserved(out, is_replacing=request.is_replacing) as place:
        if request.source.is_file():
            check_space(out, (1 + options.has_reference) * request.source.stat().st_size)
        result = import_onnx(
            request.source,
            preprocessing=request.preprocessing,
            dataset=dataset,
            out=place.folder,
            options=options,
            progress=progress,
        )
        bundle = dataclasses.replace(result.bundle, path=occupy(place))
        proof = prove(
            bundle,
            engine=ANY_ENGINE,
            is_verified=request.is_verified,
            is_gate_required=False,
            conversions=result.conversions,
            progress=progress,
        )
        proof = dataclasses.replace(proof, notes=(*result.notes, *proof.notes))
        proof = settle(place, proof, accept_undecided=request.accept_undecided)
    return dataclasses.replace(proof, data=DataNotes.of(dataset))
