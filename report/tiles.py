"""One judged image on a page: image, mask, map and overlay; of a scan its other view and its projections too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.geometry import mask_on_map
from ..core.inputs import InputSpec, VoxelPreprocessing
from ..core.spec import Frames
from ..data.files import files_read
from ..data.inputs.base import View
from ..data.inputs.table import input_of
from ..eval.accuracy.outputs import Outputs
from .overlays import Tile, contour, heat_map, overlay
from .projections import PROJECTED, SIDES_WORDS, projections, projections_in_one


def tiles_of(
    outputs: Outputs,
    index: int,
    *,
    caption: str,
    limits: tuple[float, float],
    view: View,
    spot: tuple[slice, slice] | None = None,
) -> list[Tile]:
    """Image, mask, map and overlay at the map's size: a page of images at a camera's size is too large.

    Args:
        outputs: scores, maps and truth of the images.
        index: index of the image.
        caption: what stands below the image.
        limits: map values shown as cold and as hot.
        view: what is shown of a scan, and what its map is laid over.
        spot: rows and columns of the map to draw a frame around.
    """
    anomaly_map = np.asarray(outputs.anomaly_map[index])
    spec, (low, high) = outputs.source.preprocessing, limits
    shape = anomaly_map.shape[0], anomaly_map.shape[1]
    heat = heat_map(anomaly_map, low=low, high=high)
    frame = read_shown(Path(outputs.source.root) / outputs.files[index], spec)
    base = heat if frame is None else seen_at(frame, spec, shape, view=view)
    mask = mask_on_map(outputs.mask_of(index), spec, map_shape=shape)
    laid = overlay(base, anomaly_map, low=low, high=high)
    if spot:
        frame_of_spot = np.zeros(shape, np.bool_)
        frame_of_spot[spot] = True
        laid = contour(laid, frame_of_spot, colour=(255, 64, 64))
    words = "mask" if mask.any() else ("no mask" if not outputs.has_mask[index] else "good: no mask")
    tiles = [
        (base, caption if frame is not None else f"{caption} (the image is missing)"),
        (contour(base, mask) if mask.any() else base, words),
        (heat, f"map, {low:.3g} to {high:.3g}"),
        (contour(laid, mask, colour=(0, 255, 255)) if mask.any() else laid, "overlay"),
    ]
    if frame is None or spec.kind == "image":
        return tiles
    tiles[-1] = (tiles[-1][0], f"overlay on {view}")
    others = [item for item in input_of(spec).views if item != view]
    tiles += [(seen_at(frame, spec, shape, view=item), item) for item in others]
    along = projections(frame, anomaly_map, spec, limits=limits)
    return [*tiles, projections_in_one(along)] if along else tiles


def legend(spec: InputSpec, view: View) -> tuple[str, ...]:
    """What the tiles of scans show, in sentences; none of images."""
    if spec.kind == "image":
        return ()
    handler = input_of(spec)
    shown = [f"Shown of each scan: {'; '.join(handler.view_words(item) for item in handler.views)}."]
    if isinstance(spec, VoxelPreprocessing):
        shown.append(f"Projections: {PROJECTED}. {SIDES_WORDS}.")
    return (f"Maps are laid over {view}.", *shown)


def read_shown(path: Path, spec: InputSpec) -> Frames | None:
    """The frame of an image or a scan; None where a file of it is gone."""
    if not all(file.is_file() for file in files_read(path, spec.reads)):
        return None
    return input_of(spec).read(path)


def seen_at(frame: Frames, spec: InputSpec, shape: tuple[int, int], *, view: View | None = None) -> NDArray[np.uint8]:
    """The part of a frame that the map covers, at the map's size: uint8 (h, w, 3)."""
    (top, bottom), (left, right) = (axis_px.edges_px for axis_px in spec.axes)
    shown = Image.fromarray(input_of(spec).as_rgb(frame, view))
    return np.asarray(shown.resize((shape[1], shape[0]), Image.Resampling.BOX, box=(left, top, right, bottom)))
