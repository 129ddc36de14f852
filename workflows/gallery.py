"""A gallery of bad cases: picture, mask, map and overlay of whatever should be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import UsageError
from ..core.linear import centre_crop_offset
from ..core.progress import Progress, silent
from ..core.spec import Preprocessing
from ..data.decode import decode_image
from ..data.overlay import contour, heat_map, overlay
from ..eval.accuracy import Accuracy, measure_accuracy
from ..eval.badcases import BadCase, find_bad_cases
from ..eval.corrections import correct, read_corrections
from ..eval.outputs import Outputs
from .evaluation import Choice, target_outputs
from .inspection import show_limits
from .page import Page

_TITLES = {
    "false accept": "False accepts: defective, and let through",
    "false reject": "False rejects: good, and thrown out",
    "hot spot": "Hot spots outside the mask of a defective picture: perhaps defects that nobody drew",
}
_METRICS = (("image AUROC", "image_auroc"), ("pixel AUROC", "pixel_auroc"), ("AUPRO", "aupro"))


@final
@dataclass(frozen=True)
class Gallery:
    """Bad cases, and what corrections of the ground truth change.

    Attributes:
        source: bundle and engine.
        category: category of the data set.
        cases: what to look at; the worst first within each kind.
        before: accuracy by the ground truth as it came.
        after: accuracy by the corrected one; None without corrections.
        page: the page written.
    """

    source: str
    category: str
    cases: tuple[BadCase, ...]
    before: Accuracy
    after: Accuracy | None
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "category": self.category,
            "cases": [{key: value for key, value in vars(case).items() if key != "index"} for case in self.cases],
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "page": str(self.page),
        }

    def sentences(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        lines = [f"{self.source}, {self.category}: {self.before.verdicts.sentence()}."]
        for kind in _TITLES:
            found = [case for case in self.cases if case.kind == kind]
            lines.append(f"{kind}s shown: {len(found)}")
            lines += [f"  {case.file} ({case.defect}): score {case.score:.4g}, by {case.margin:.3g}" for case in found]
        if self.after:
            changes = [f"{name} {before} -> {after}" for name, before, after in self.changes()]
            lines.append(f"Corrected ground truth: {', '.join(changes)}; {self.after.verdicts.sentence()}.")
        return (*lines, f"Gallery: {self.page}")

    def changes(self) -> list[tuple[str, str, str]]:
        """Metric, before, after the corrections."""
        if self.after is None:
            return []
        return [(name, _figure(self.before.value(key)), _figure(self.after.value(key))) for name, key in _METRICS]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def show_bad_cases(target: Path, choice: Choice, *, top: int = 20, out: Path, progress: Progress = silent) -> Gallery:
    """Find bad cases and write their gallery; with corrections, by the corrected ground truth.

    Args:
        target: bundle, or file of saved outputs.
        choice: data set, engine, threshold, corrections.
        top: at most so many of each kind.
        out: page to write.
        progress: told after each picture.

    Raises:
        UsageError: ``top`` is below 1.
    """
    if top < 1:
        raise UsageError(f"--top is {top}; expected at least 1.")
    with target_outputs(target, choice, progress=progress) as outputs:
        before, after = measure_accuracy(outputs, fpr_limit=choice.fpr_limit), None
        if choice.corrections:
            outputs = correct(outputs, read_corrections(choice.corrections))
            after = measure_accuracy(outputs, fpr_limit=choice.fpr_limit)
        cases = find_bad_cases(outputs, top=top)
        gallery = Gallery(str(outputs.source), outputs.source.category, cases, before, after, out)
        _write_page(gallery, outputs)
    return gallery


def _write_page(gallery: Gallery, outputs: Outputs) -> None:
    page = Page("lineproof badcases", f"{gallery.source}, {gallery.category}.")
    page.lines(gallery.sentences())
    if gallery.after:
        page.table(("metric", "before", "with corrections"), gallery.changes())
    limits = show_limits(outputs.anomaly_map, ~outputs.label)
    for kind, title in _TITLES.items():
        page.heading(title)
        found = [case for case in gallery.cases if case.kind == kind]
        if not found:
            page.lines(["None."])
        for case in found:
            page.pictures(_pictures(case, outputs, limits))
    page.write(gallery.page)


def _pictures(case: BadCase, outputs: Outputs, limits: tuple[float, float]) -> list[tuple[NDArray[np.uint8], str]]:
    anomaly_map = np.asarray(outputs.anomaly_map[case.index])
    low, high = limits
    heat = heat_map(anomaly_map, low=low, high=high)
    frame = _seen(Path(outputs.source.root) / case.file, outputs.source.preprocessing, anomaly_map.shape)
    mask = np.asarray(outputs.mask[case.index])
    base = heat if frame is None else frame
    laid = overlay(base, anomaly_map, low=low, high=high)
    if case.box:
        top, left, bottom, right = case.box
        spot = np.zeros(mask.shape, np.bool_)
        spot[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = True
        laid = contour(laid, spot, colour=(255, 64, 64))
    drawn = contour(base, mask) if mask.any() else base
    words = "mask" if mask.any() else ("no mask" if not outputs.has_mask[case.index] else "good: no mask")
    caption = f"{case.file}: score {case.score:.4g}, by {case.margin:.3g}"
    return [
        (base, caption if frame is not None else f"{caption} (picture not found)"),
        (drawn, words),
        (heat, f"map, {low:.3g} to {high:.3g}"),
        (contour(laid, mask, colour=(0, 255, 255)) if mask.any() else laid, "overlay"),
    ]


def _seen(path: Path, spec: Preprocessing, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The part of the picture that the map covers, at the map's size: uint8 (h, w, 3); None where the file is gone."""
    if not path.is_file():
        return None
    frame = Image.fromarray(decode_image(path))
    frame = frame.resize((spec.resize_width_px, spec.resize_height_px), Image.Resampling.BOX)
    left = centre_crop_offset(spec.resize_width_px, spec.crop_width_px)
    top = centre_crop_offset(spec.resize_height_px, spec.crop_height_px)
    frame = frame.crop((left, top, left + spec.crop_width_px, top + spec.crop_height_px))
    return np.asarray(frame.resize((shape[1], shape[0]), Image.Resampling.BOX))
