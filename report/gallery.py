"""Gallery of bad cases: image, mask, map and overlay of each on an HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from ..core.errors import UsageError
from ..core.inputs import InputSpec
from ..core.progress import Progress, silent
from ..core.used import UsedShare
from ..data.inputs.base import View
from ..data.inputs.table import input_of
from ..data.notes import DataNotes
from ..eval.accuracy.badcases import BadCase, find_bad_cases
from ..eval.accuracy.corrections import correct, read_corrections
from ..eval.accuracy.outputs import Outputs
from ..eval.accuracy.report import Accuracy, measure_accuracy
from ..eval.accuracy.request import EvaluationRequest, target_outputs
from ..eval.masks import RESOLUTIONS, Resolution
from ..metrics.operating import no_class_lines
from .overlays import Tile, show_limits
from .page import Page
from .tiles import legend, tiles_of

_TITLES = {
    "false accept": "False accepts: defective, and let through",
    "false reject": "False rejects: good, and thrown out",
    "hot spot": "Hot spots outside the mask of a defective image: perhaps defects that nobody drew",
}
_SIDES = {
    "false accept": "below the threshold",
    "false reject": "above the threshold",
    "hot spot": "above what good images show",
}
_METRICS = (("image AUROC", "image_auroc"), ("pixel AUROC", "pixel_auroc"), ("AUPRO", "aupro"))


@final
@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Bad cases, and the accuracy before and after corrections of the ground truth.

    Attributes:
        source: name of the bundle, its precision and the engine.
        category: category of the data set.
        cases: the bad cases, the worst first within each kind.
        before: accuracy by the ground truth of the data set.
        after: accuracy by the corrected ground truth; None without corrections.
        page: the HTML file that was written.
        used: number of the data set's test images that were judged, and the reasons for the others.
        request: the request that was evaluated.
        data: description of the data set, alone in a tuple.
        notices: what a person should know about the images, in sentences.
    """

    source: str
    category: str
    cases: tuple[BadCase, ...]
    before: Accuracy
    after: Accuracy | None
    page: Path
    used: UsedShare
    request: EvaluationRequest
    data: tuple[DataNotes, ...]
    notices: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise BadInputError where fewer of the images were used than was asked for."""
        self.used.check(self.request.min_used)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "category": self.category,
            "used": self.used.to_dict(),
            "pixel_resolution": self.request.resolution,
            "cases": [{key: value for key, value in vars(case).items() if key != "index"} for case in self.cases],
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "page": str(self.page),
            "data": [item.to_dict() for item in self.data],
            "conversions": list(self.notices),
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        verdicts = (self.after or self.before).verdicts
        lines = [
            *no_class_lines(num_good=verdicts.num_good, num_defective=verdicts.num_defective),
            *self.used.lines(lists_all=self.request.lists_all),
            f"{self.source}, {self.category}: {self.before.verdicts.sentence()}.",
            f"Hot spots {RESOLUTIONS[self.request.resolution]}.",
        ]
        for kind in _TITLES:
            cases = [case for case in self.cases if case.kind == kind]
            lines.append(f"{kind}s shown: {len(cases)}")
            lines += [f"  {case.file} ({case.defect}): {_margin_words(case)}" for case in cases]
        if self.after:
            changes = [f"{name} {before} -> {after}" for name, before, after in self.changes()]
            lines.append(f"Corrected ground truth: {', '.join(changes)}; {self.after.verdicts.sentence()}.")
        return (*lines, f"Gallery: {self.page}")

    def changes(self) -> list[tuple[str, str, str]]:
        """Rows of metric, figure before and figure after the corrections; empty without corrections."""
        if self.after is None:
            return []
        return [(name, _figure(self.before.value(key)), _figure(self.after.value(key))) for name, key in _METRICS]


def _margin_words(case: BadCase) -> str:
    """The score, and the distance of the score or of the hot spot from the right side."""
    what = "spot " if case.kind == "hot spot" else ""
    return f"score {case.score:.4g}, {what}{case.margin:.3g} {_SIDES[case.kind]}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def show_bad_cases(
    target: Path,
    request: EvaluationRequest,
    *,
    top: int = 20,
    out: Path,
    view: str | None = None,
    progress: Progress = silent,
) -> Gallery:
    """Find bad cases and write their gallery; with corrections, by the corrected ground truth.

    Args:
        target: bundle, or file of saved outputs.
        request: data set, engine, threshold, corrections.
        top: largest number of cases of each kind, at least 1.
        out: HTML file to write.
        view: what is shown of scans, ``"rgb"`` or ``"depth"``; None for their colours where there are some.
        progress: called after each image.

    Raises:
        UsageError: ``top`` is below 1, or the frames cannot be shown so.
    """
    if top < 1:
        raise UsageError(f"top (--top) is {top}; expected at least 1.")
    with target_outputs(target, request, progress=progress) as outputs:
        shown = input_of(outputs.source.preprocessing).check_view(view)
        before, after = _measure(outputs, request), None
        used = outputs.used
        if request.corrections:
            outputs = correct(outputs, read_corrections(request.corrections))
            after = _measure(outputs, request)
        cases = find_bad_cases(outputs, top=top, resolution=request.resolution)
        gallery = Gallery(
            source=str(outputs.source),
            category=outputs.source.category,
            cases=cases,
            before=before,
            after=after,
            page=out,
            used=used,
            request=request,
            data=(outputs.source.data,),
            notices=outputs.source.notices,
        )
        _write_page(gallery, outputs, shown)
    return gallery


def _measure(outputs: Outputs, request: EvaluationRequest) -> Accuracy:
    return measure_accuracy(outputs, fpr_limit=request.fpr_limit, resolution=request.resolution)


def _write_page(gallery: Gallery, outputs: Outputs, view: View) -> None:
    page = Page("lineproof badcases", f"{gallery.source}, {gallery.category}.")
    page.lines((*gallery.summary_lines(), *legend(outputs.source.preprocessing, view)))
    if gallery.after:
        page.table(("metric", "before", "with corrections"), gallery.changes())
    limits = show_limits(outputs.anomaly_map, ~outputs.label)
    for kind, title in _TITLES.items():
        page.heading(title)
        cases = [case for case in gallery.cases if case.kind == kind]
        if not cases:
            page.lines(["None."])
        for case in cases:
            page.images(_images(case, outputs, limits, resolution=gallery.request.resolution, view=view))
    page.write(gallery.page)


def _images(
    case: BadCase, outputs: Outputs, limits: tuple[float, float], *, resolution: Resolution, view: View
) -> list[Tile]:
    """What is shown of a case, see ``tiles_of``."""
    spec, shape = outputs.source.preprocessing, outputs.anomaly_map.shape[1:]
    spot = _drawn_box(case.box, spec, (shape[0], shape[1]), resolution) if case.box else None
    caption = f"{case.file}: {_margin_words(case)}"
    return tiles_of(outputs, case.index, caption=caption, limits=limits, view=view, spot=spot)


def _drawn_box(
    box: tuple[int, int, int, int], spec: InputSpec, shape: tuple[int, int], resolution: Resolution
) -> tuple[slice, slice]:
    """A hot spot's rows and columns on the map, with two pixels around it."""
    sides = []
    for axis_px, num_map, ends in zip(spec.axes, shape, ((box[0], box[2]), (box[1], box[3])), strict=True):
        first, last = axis_px.to_map(np.array(ends), num_map) if resolution == "image" else ends
        sides.append(slice(max(int(np.floor(first)) - 2, 0), int(np.ceil(last)) + 2))
    return sides[0], sides[1]
