"""HTML page of a comparison: figures, and the images whose maps differ most."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.inputs.table import input_of
from ..eval.accuracy.compare import ComparisonResult
from ..eval.accuracy.outputs import Outputs
from .overlays import heat_map
from .page import Page


def write_compare_page(result: ComparisonResult, left: Outputs, right: Outputs, *, path: Path) -> None:
    """Write a comparison as a page, with the maps of the images that differ most side by side.

    Args:
        result: the comparison.
        left: outputs of the left side.
        right: outputs of the right side, on the same images in the same order.
        path: HTML file to write.
    """
    page = Page("lineproof compare", f"{result.left} and {result.right} on the same images.")
    page.lines(result.summary_lines())
    page.heading("Images whose maps differ most")
    places = {file: index for index, file in enumerate(left.files)}
    for file, error in result.worst:
        index = places[file]
        maps = np.asarray(left.anomaly_map[index]), np.asarray(right.anomaly_map[index])
        low, high = min(float(item.min()) for item in maps), max(float(item.max()) for item in maps)
        high = high if high > low else low + 1.0
        shown = [(heat_map(item, low=low, high=high), name) for item, name in zip(maps, ("left", "right"), strict=True)]
        change = np.abs(maps[1].astype(np.float64) - maps[0])
        shown.append((heat_map(change, low=0.0, high=max(error, 1e-30)), f"|right − left|, up to {error:.3g}"))
        image = Path(left.source.root) / file
        if image.is_file():
            frame_input = input_of(left.source.preprocessing)
            shown.insert(0, (frame_input.as_rgb(frame_input.read(image)), file))
        page.images(shown)
    page.write(path)
