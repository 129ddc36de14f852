"""Images on the page of an evaluation: the extremes of either class, as the detector sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np

from ..data.inputs.table import input_of
from ..eval.accuracy.evaluate import TargetEvaluation
from .overlays import show_limits
from .page import Section
from .tiles import legend, tiles_of

_LABELS = (("defective", True), ("good", False))


@final
@dataclass
class Examples:
    """Collects sections of images, one for each evaluation, while its maps are at hand.

    Attributes:
        view: what is shown of scans, ``"rgb"`` or ``"depth"``; None for their colours where there are some.
        sections: a heading, what is shown in words, and rows of images.
    """

    view: str | None = None
    sections: list[Section] = field(default_factory=list)

    def add(self, item: TargetEvaluation) -> None:
        """Add the highest and the lowest score of the defective and of the good images.

        Raises:
            UsageError: the frames cannot be shown as ``view`` says.
        """
        outputs = item.outputs
        view = input_of(outputs.source.preprocessing).check_view(self.view)
        limits = show_limits(outputs.anomaly_map, ~outputs.label)
        rows = []
        for words, label in _LABELS:
            members = np.flatnonzero(outputs.label == label)
            ordered = members[np.argsort(-outputs.score[members], kind="stable")].tolist()
            for end, index in zip(("highest", "lowest"), dict.fromkeys([*ordered[:1], *ordered[-1:]]), strict=False):
                caption = f"{outputs.files[index]}: {end} score of {words} images, {float(outputs.score[index]):.4g}"
                rows.append(tiles_of(outputs, index, caption=caption, limits=limits, view=view))
        heading = f"{outputs.source}, {outputs.source.category}: highest and lowest scores"
        self.sections.append((heading, legend(outputs.source.preprocessing, view), rows))
