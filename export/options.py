"""What a bundle shall be: what a command asks for, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..core.errors import UsageError
from ..core.spec import Fit, check_fit
from ..core.threshold import MAX_FALSE_REJECT

EXPORT_PRECISIONS = ("fp32", "fp16")


@final
@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the bundle shall be.

    Attributes:
        frame: height, width and channels (3 RGB, 1 mono) of the camera frame in pixels; None takes the size of
            the training images, RGB.
        max_batch: largest batch.
        precision: ``fp32`` or ``fp16``.
        max_false_reject: share of good parts that may be rejected, for the threshold.
        has_reference: put the PyTorch weights into the bundle, so that the torch engine can run it.
        fit: how images of another size become frames, see ``data.inputs.fitting``; None takes what the run was
            trained with.
        data: where the data set of the run lies now; None for where it lay when the run was trained.
    """

    frame: tuple[int, int, int] | None = None
    max_batch: int = 8
    precision: str = "fp32"
    max_false_reject: float = MAX_FALSE_REJECT
    has_reference: bool = True
    fit: Fit | None = None
    data: Path | None = None

    def check(self) -> None:
        """Raise UsageError where a bundle cannot be that."""
        if self.precision not in EXPORT_PRECISIONS:
            raise UsageError(f"--precision {self.precision}: export writes {' or '.join(EXPORT_PRECISIONS)}.")
        if self.max_batch < 1:
            raise UsageError(f"--batch ends at {self.max_batch}; expected at least 1.")
        if self.fit is not None:
            check_fit(self.fit)
