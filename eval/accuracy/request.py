"""What is judged, and how: bundles that are run on a data set, or outputs that were saved."""

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
from ...data.dataset import check_contents, open_category
from ...runtime.engine import EngineOptions
from ..masks import Resolution
from .outputs import Outputs, collect_outputs
from .outputs_file import open_outputs


@final
@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What to run, and how.

    Attributes:
        data: data set folder; None where only saved outputs are read.
        category: its category; None takes the one that the bundle was trained on.
        engine: engine, or ``"auto"``.
        options: of the engine.
        batch: frames per call.
        threshold: judge by this one instead of the bundle's.
        corrections: file of corrections to the ground truth.
        fpr_limit: end of the AUPRO integral.
        resolution: where maps and masks meet, see ``eval.masks``.
        min_used: share of the images that must be usable, 0 to 1.
        lists_all: name every image that was not used, in the sentences too.
        other_data: accept a data set of another part than the bundle was trained on.

    Raises:
        UsageError: a threshold that is not finite.
    """

    data: Path | None = None
    category: str | None = None
    engine: str = "auto"
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
    """Outputs of a bundle, which is run for it, or those saved in a file; judged by the threshold chosen.

    Raises:
        UsageError: a bundle without a data set.
        BadInputError: no such bundle, file or data set.
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
    # What the masks hold is looked at, so that a mask that says nothing is none.
    dataset = check_contents(open_category(request.data, request.category, own=bundle.manifest.training.category))
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
