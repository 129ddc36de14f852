"""Options of an export; importing them needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..core.errors import UsageError
from ..core.spec import Fit, check_fit
from ..core.threshold import MAX_FALSE_REJECT
from ..core.tiles import Tiles

EXPORT_PRECISIONS = ("fp32", "fp16")


@final
@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        frame: height and width of the camera frame in pixels, and its channels (3 for RGB, 1 for mono); None takes
            the size of the training frames, RGB.
        max_batch: largest batch of the graph.
        precision: ``fp32`` or ``fp16``.
        max_false_reject: share of good parts that the threshold may reject, in [0, 1).
        has_reference: put the PyTorch weights into the bundle, so that the torch engine can run it.
        fit: rule by which images of another size become frames, see ``data.inputs.fitting``; None takes the rule of
            the training.
        tiles: how frames are cut into tiles; None takes the tiles of the training, if any.
        data: folder where the data set of the run lies now; None for the folder where it lay during the training.
    """

    frame: tuple[int, int, int] | None = None
    max_batch: int = 8
    precision: str = "fp32"
    max_false_reject: float = MAX_FALSE_REJECT
    has_reference: bool = True
    fit: Fit | None = None
    tiles: Tiles | None = None
    data: Path | None = None

    def check(self) -> None:
        """Check every option.

        Raises:
            UsageError: an option is out of its range.
        """
        if self.precision not in EXPORT_PRECISIONS:
            raise UsageError(
                f"precision (--precision) is {self.precision}; export writes {' or '.join(EXPORT_PRECISIONS)}."
            )
        if self.max_batch < 1:
            raise UsageError(f"max_batch (--batch) is {self.max_batch}; expected at least 1.")
        if self.fit is not None:
            check_fit(self.fit)
