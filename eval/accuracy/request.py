"""Evaluation requests: bundles to run on a data set, or saved outputs to judge."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ...bundle.store import open_bundle
from ...core.errors import UsageError
from ...core.progress import Progress, silent
from ...core.threshold import check_threshold
from ...core.used import MIN_USED
from ...runtime.engine import EngineOptions
from ...runtime.ranking import AUTO
from ..masks import Resolution
from ..part import open_part_data
from .outputs import Outputs, collect_outputs
from .outputs_file import open_outputs


@final
@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Data set, engine and settings of an evaluation.

    Attributes:
        data: folder of the data set; None where only saved outputs are read.
        category: category of the data set; None for the one that the bundle was trained on.
        engine: name of an engine, or ``"auto"``.
        options: options of the engine.
        batch: number of frames per call of the engine.
        threshold: threshold to judge by, in units of the score; None for the bundle's.
        corrections: file of corrections to the ground truth; None for none.
        fpr_limit: false-positive rate at which the AUPRO integral ends, in (0, 1].
        resolution: resolution at which maps and masks are compared, see ``eval.masks``.
        min_used: share of the images that must be usable, 0 to 1.
        lists_all: whether the text names every image that was not used; the JSON always does.
        other_data: whether a data set of another part than the bundle was trained on is accepted.

    Raises:
        UsageError: the threshold is not finite.
    """

    data: Path | None = None
    category: str | None = None
    engine: str = AUTO
    options: EngineOptions = field(default_factory=EngineOptions)
    batch: int = 1
    threshold: float | None = None
    corrections: Path | None = None
    fpr_limit: float = 0.3
    resolution: Resolution = "image"
    min_used: float = MIN_USED
    lists_all: bool = False
    other_data: bool = False

    def __post_init__(self) -> None:
        # Before the images are run, which takes long, and not after.
        if self.threshold is not None:
            check_threshold(self.threshold)


@contextmanager
def target_outputs(target: Path, request: EvaluationRequest, *, progress: Progress = silent) -> Iterator[Outputs]:
    """The outputs of a bundle, which is run, or those saved in a file, judged by the threshold of the request.

    Raises:
        UsageError: the target is a bundle, and the request names no data set.
        BadInputError: the bundle, the file or the data set does not exist or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="lineproof-") as scratch:
        outputs = _load(target, request, Path(scratch), progress)
        yield outputs if request.threshold is None else outputs.with_threshold(request.threshold)


def _load(target: Path, request: EvaluationRequest, scratch: Path, progress: Progress) -> Outputs:
    if target.is_file():
        return open_outputs(target)
    bundle = open_bundle(target)
    if request.data is None:
        raise UsageError(f"{target} is a bundle, and no images were given to run it on. Give --data DIR.")
    dataset = open_part_data(bundle.manifest, request.data, request.category)
    return collect_outputs(
        bundle,
        dataset,
        engine=request.engine,
        options=request.options,
        batch=request.batch,
        scratch=scratch,
        other_data=request.other_data,
        progress=progress,
    )
