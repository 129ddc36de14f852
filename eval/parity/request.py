"""A verification as it is asked for: which engine, and where images are given, which data set and which reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ...bundle.store import Bundle
from ...core.errors import UsageError
from ...core.progress import Progress, silent
from ...data.notes import DataNotes
from ...runtime.engine import EngineOptions
from ...runtime.ranking import AUTO, resolve_auto
from ..masks import Resolution
from ..part import open_part_data
from .foreign import ForeignReference, check_library, verify_against
from .proof import pick_reference
from .report import ParityReport
from .verify import verify


@final
@dataclass(frozen=True, kw_only=True)
class ParityRequest:
    """What is compared with what.

    Attributes:
        engine: name of the engine under test, or ``"auto"``.
        options: options of the engine under test; the reference gets ``runtime.ranking.reference_options``.
        data: folder of a data set whose test images are compared besides the golden frames; None for those alone.
        category: its category; None for the one that the bundle was trained on.
        reference: engine that gives the reference on the data set; None for PyTorch, or where it is missing an engine
            that is proved.
        batch: number of frames per call.
        resolution: resolution at which pixel AUROC and AUPRO are measured, see ``eval.masks``.
        other_data: whether a data set of another part than the bundle's is accepted.
        foreign: library that is the reference on the data set of an imported bundle; None for an engine of ours.
    """

    engine: str = AUTO
    options: EngineOptions = field(default_factory=EngineOptions)
    data: Path | None = None
    category: str | None = None
    reference: str | None = None
    batch: int = 1
    resolution: Resolution = "image"
    other_data: bool = False
    foreign: ForeignReference | None = None


def foreign_reference(against: str | None, *, checkpoint: Path | None, python: Path | None) -> ForeignReference | None:
    """The library that a verification asks for as its reference; None where it asks for none.

    Args:
        against: name of the library.
        checkpoint: the checkpoint that was imported.
        python: interpreter of the environment that the library is installed in.

    Raises:
        UsageError: something of it is missing, or is given without the library.
    """
    if against is None:
        if checkpoint or python:
            raise UsageError(
                "checkpoint (--checkpoint) and anomalib_python (--anomalib-python) go with against (--against "
                "anomalib). Give it too, or leave them out."
            )
        return None
    check_library(against)
    if checkpoint is None or python is None:
        raise UsageError(
            f"against (--against) is {against}; expected with it the checkpoint that was imported (--checkpoint) and "
            "the Python that anomalib is installed in (--anomalib-python)."
        )
    return ForeignReference(checkpoint=checkpoint, python=python)


def verify_as_asked(
    bundle: Bundle,
    request: ParityRequest,
    *,
    say_data: Callable[[DataNotes], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
) -> ParityReport:
    """Verify a bundle as a request says; see ``eval.parity.verify.verify``. Nothing is written.

    Args:
        bundle: the bundle.
        request: what is compared with what.
        say_data: called with what the data set holds and lacks, before the images are run.
        warn: called with a sentence where another engine than PyTorch is the reference; "" where none is needed.
        progress: called after each image.

    Raises:
        UsageError: there is no such engine, it is its own reference, or the bundle does not take such a batch.
        EnvironmentMissingError: the engine or a reference cannot run here.
        BadInputError: no such data set, no image of it fits the bundle, or it shows another part.
    """
    engine = resolve_auto(bundle, request.engine, options=request.options)
    dataset, reference = None, None
    if request.foreign:
        return _verify_against(bundle, request, request.foreign, engine=engine, say_data=say_data, progress=progress)
    if request.data:
        dataset = open_part_data(bundle.manifest, request.data, request.category)
        say_data(DataNotes.of(dataset))
        reference, notice = pick_reference(bundle, request.reference, engine=engine)
        warn(notice)
    return verify(
        bundle,
        engine=engine,
        options=request.options,
        dataset=dataset,
        reference=reference,
        batch=request.batch,
        resolution=request.resolution,
        other_data=request.other_data,
        progress=progress,
    )


def _verify_against(
    bundle: Bundle,
    request: ParityRequest,
    foreign: ForeignReference,
    *,
    engine: str,
    say_data: Callable[[DataNotes], None],
    progress: Progress,
) -> ParityReport:
    if request.data is None or request.reference is not None:
        raise UsageError(
            "against (--against) makes the library the reference on a data set: give its folder (--data), and leave "
            "out reference (--reference)."
        )
    dataset = open_part_data(bundle.manifest, request.data, request.category)
    say_data(DataNotes.of(dataset))
    return verify_against(
        bundle,
        engine=engine,
        dataset=dataset,
        reference=foreign,
        options=request.options,
        batch=request.batch,
        resolution=request.resolution,
        other_data=request.other_data,
        progress=progress,
    )
