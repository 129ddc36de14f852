"""Bad cases: images where the detector is wrong, or perhaps the ground truth; section 4.1.3 of Zheng et al. (2022).

Three kinds: defective images that are accepted, good images that are rejected, and spots on defective images that
light up outside the mask, which may be defects that nobody drew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ...core.geometry import seen_part
from ...metrics.kernels.components import component_sizes
from ..masks import Resolution
from .outputs import Outputs

Kind = Literal["false accept", "false reject", "hot spot"]
#: Share of the good images' map maxima that lie below a hot spot.
_LEVEL_QUANTILE = 0.95
#: Smoothing carries a defect over its mask's edge: what is this near, as a share of the longer side, is the defect.
_BORDER = 1 / 32


@final
@dataclass(frozen=True, kw_only=True)
class BadCase:
    """One image to look at.

    Attributes:
        kind: what is wrong.
        index: index of the image in the outputs.
        file: the image, as the outputs name it.
        defect: type of defect of the image, or ``"good"``.
        score: score of the image.
        margin: distance to the right side, in units of the score or the map: |score − threshold|, or for a hot spot its
            peak minus ``hot_level``.
        box: top, left, bottom, right of the hot spot, the last two exclusive; None otherwise. In pixels of the image
            at the image's resolution, of the map at the map's.
    """

    kind: Kind
    index: int
    file: str
    defect: str
    score: float
    margin: float
    box: tuple[int, int, int, int] | None = None


def find_bad_cases(outputs: Outputs, *, top: int = 20, resolution: Resolution = "image") -> tuple[BadCase, ...]:
    """Find what should be looked at, the worst first within each kind.

    Args:
        outputs: scores, maps and truth of the images.
        top: largest number of cases of each kind.
        resolution: resolution at which hot spots are searched, see ``eval.masks``.
    """
    rejected, label = outputs.is_rejected, outputs.label
    cases = []
    kinds: tuple[tuple[Kind, NDArray[np.bool_]], ...] = (
        ("false accept", label & ~rejected),
        ("false reject", ~label & rejected),
    )
    for kind, members in kinds:
        of_kind = [_case(outputs, kind, int(i)) for i in np.flatnonzero(members)]
        cases += sorted(of_kind, key=lambda case: -case.margin)[:top]
    return (*cases, *_hot_spots(outputs, resolution)[:top])


def hot_level(outputs: Outputs, *, resolution: Resolution = "image") -> float | None:
    """Map value that 95 % of the good images stay below everywhere; None without good images."""
    good = np.flatnonzero(~outputs.label)
    if not len(good):
        return None
    peaks = [float(outputs.map_of(index, resolution=resolution).max()) for index in good.tolist()]
    return float(np.quantile(peaks, _LEVEL_QUANTILE))


def _case(outputs: Outputs, kind: Kind, index: int) -> BadCase:
    score = float(outputs.score[index])
    margin = abs(score - outputs.source.threshold)
    return BadCase(
        kind=kind, index=index, file=outputs.files[index], defect=outputs.defects[index], score=score, margin=margin
    )


def _hot_spots(outputs: Outputs, resolution: Resolution) -> list[BadCase]:
    """The highest spot apart from the mask of each defective image, where there is one; the highest first."""
    level = hot_level(outputs, resolution=resolution)
    if level is None:
        return []
    rows, columns = seen_part(outputs.source.preprocessing)
    top, left = (rows.start, columns.start) if resolution == "image" else (0, 0)
    spots = []
    for index in np.flatnonzero(outputs.label & outputs.has_mask).tolist():
        anomaly_map, mask = outputs.pixels_of(index, resolution=resolution)
        near = grow(mask, max(1, round(max(anomaly_map.shape) * _BORDER)))
        peak, box = _highest_apart(anomaly_map, near, level)
        if box:
            case = BadCase(
                kind="hot spot",
                index=index,
                file=outputs.files[index],
                defect=outputs.defects[index],
                score=float(outputs.score[index]),
                margin=peak - level,
                box=(box[0] + top, box[1] + left, box[2] + top, box[3] + left),
            )
            spots.append(case)
    return sorted(spots, key=lambda case: -case.margin)


def _highest_apart(
    anomaly_map: NDArray[Any], near: NDArray[np.bool_], level: float
) -> tuple[float, tuple[int, int, int, int] | None]:
    """Peak and box of the highest stretch above ``level`` without a pixel of ``near``; no box where none is."""
    pixels = np.flatnonzero(anomaly_map > level)
    if not len(pixels):
        return level, None
    components, sizes = component_sizes(pixels, *near.shape)
    touches = np.zeros(len(sizes), np.bool_)
    touches[components[near.reshape(-1)[pixels]]] = True
    apart = ~touches[components]
    if not apart.any():
        return level, None
    pixels, components = pixels[apart], components[apart]
    values = anomaly_map.reshape(-1)[pixels]
    best = int(np.argmax(values))
    rows, columns = np.divmod(pixels[components == components[best]], near.shape[1])
    return float(values[best]), (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)


def grow(mask: NDArray[np.bool_], num_px: int) -> NDArray[np.bool_]:
    """The mask grown by a square of ``2 num_px + 1`` pixels: bool (h, w)."""
    grown = mask
    for axis in (0, 1):
        # How many pixels are set before each place; a window holds one where that rises from its start to its end.
        padding = [(0, 0), (0, 0)]
        padding[axis] = (1, 0)
        before = np.cumsum(np.pad(grown, padding), axis=axis, dtype=np.int32)
        places = np.arange(mask.shape[axis])
        ends = np.minimum(places + num_px + 1, mask.shape[axis])
        starts = np.maximum(places - num_px, 0)
        grown = np.take(before, ends, axis=axis) > np.take(before, starts, axis=axis)
    return grown
