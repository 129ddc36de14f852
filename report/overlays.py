"""Anomaly maps as images: heat maps, overlays on the frame, contours, and PNG for HTML reports."""

import base64
import io
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundle.store import Bundle
from ..core.errors import BadInputError, UsageError
from ..core.geometry import enlarge_map, seen_part
from ..core.spec import Frames
from ..data.inputs.base import View
from ..data.inputs.table import input_of
from ..line.inspector import Verdict

#: An image with its caption: uint8 (H, W, 3) RGB, and words.
Tile: TypeAlias = tuple[NDArray[np.uint8], str]

# Black, violet, red, orange, pale yellow: the luma only rises, so that the map also reads in grey and to eyes that
# do not tell red from green.
_CONTROL_RGB = (
    (0, 0, 8),
    (40, 10, 88),
    (102, 14, 116),
    (170, 36, 84),
    (220, 76, 44),
    (244, 136, 16),
    (250, 196, 52),
    (255, 253, 180),
)


def heat_map(anomaly_map: NDArray[np.floating[Any]], *, low: float, high: float) -> NDArray[np.uint8]:
    """Colour an anomaly map.

    Args:
        anomaly_map: float (h, w), finite.
        low: value that becomes black, and everything below it.
        high: value that becomes pale yellow, and everything above it; larger than ``low``.

    Returns:
        uint8 (h, w, 3) RGB, 0 to 255.

    Raises:
        BadInputError: the map is not two-dimensional or holds NaN or infinity.
        UsageError: ``low`` is not below ``high``.
    """
    return _colours(_relative(anomaly_map, low, high))


def overlay(
    frame: NDArray[np.uint8], anomaly_map: NDArray[np.floating[Any]], *, low: float, high: float, alpha: float = 0.5
) -> NDArray[np.uint8]:
    """Lay an anomaly map over the frame it belongs to.

    The colour covers the frame by ``alpha`` times the value's place between ``low`` and ``high``: where nothing is
    anomalous the frame stays as it is.

    Args:
        frame: uint8 (H, W, 3) RGB.
        anomaly_map: float (h, w), finite; resized bilinearly to (H, W).
        low: value at which the colour begins to show.
        high: value at which it covers by ``alpha``; larger than ``low``.
        alpha: largest share of the colour, 0 to 1.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        BadInputError: the frame or the map has another shape or dtype, or the map holds NaN or infinity.
        UsageError: ``low`` is not below ``high``, or ``alpha`` is not within 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}; expected a share between 0 and 1.")
    _check_frame(frame)
    relative = _relative(anomaly_map, low, high)
    size = (frame.shape[1], frame.shape[0])
    relative = np.asarray(Image.fromarray(relative).resize(size, Image.Resampling.BILINEAR))
    share = (alpha * relative)[:, :, None]
    return np.asarray(np.rint(frame * (1 - share) + _colours(relative) * share), dtype=np.uint8)


def contour(
    frame: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    *,
    colour: tuple[int, int, int] = (0, 255, 64),
    width_px: int = 2,
) -> NDArray[np.uint8]:
    """Draw the outline of a mask on a copy of the frame.

    Args:
        frame: uint8 (H, W, 3) RGB.
        mask: bool (H, W).
        colour: RGB, 0 to 255 each.
        width_px: width of the line, which lies inside the mask's edge; at least 1. At the image's border there is
            no line.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        BadInputError: the frame or the mask has another shape or dtype.
        UsageError: ``width_px`` is less than 1.
    """
    _check_frame(frame)
    if mask.dtype != np.bool_ or mask.shape != frame.shape[:2]:
        raise BadInputError(
            f"The mask is {mask.dtype} {mask.shape}; expected bool {frame.shape[:2]} like the frame. Resize it first."
        )
    if width_px < 1:
        raise UsageError(f"width_px is {width_px}; expected at least 1.")
    inner = mask
    for _ in range(width_px):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = frame.copy()
    drawn[mask & ~inner] = colour
    return drawn


def png_data_uri(image: NDArray[np.uint8]) -> str:
    """Encode an image for an ``img`` element that needs no file beside the page.

    Args:
        image: uint8 (H, W, 3) RGB or (H, W) grey.

    Returns:
        ``data:image/png;base64,...``

    Raises:
        BadInputError: the array is no such image.
    """
    if image.dtype != np.uint8 or (image.ndim != 2 and image.shape[2:] != (3,)) or 0 in image.shape:
        raise BadInputError(f"The image is {image.dtype} {image.shape}; expected uint8 (H, W, 3) or (H, W).")
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _check_frame(frame: NDArray[Any]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise BadInputError(f"The frame is {frame.dtype} {frame.shape}; expected uint8 (H, W, 3) RGB.")


def _relative(anomaly_map: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.float32]:
    """float32 (h, w) in 0 to 1: where each value lies between ``low`` and ``high``."""
    if not low < high:
        raise UsageError(f"low is {low} and high is {high}; expected low < high.")
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise BadInputError(f"The anomaly map has shape {anomaly_map.shape}; expected (h, w). Give one frame's map.")
    if not np.isfinite(anomaly_map).all():
        raise BadInputError(
            "The anomaly map holds NaN or infinity; expected finite values. Do not trust the engine that gave "
            "it: run lineproof verify."
        )
    scaled = (anomaly_map.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0, 1).astype(np.float32)


def _colours(relative: NDArray[np.float32]) -> NDArray[np.uint8]:
    table = np.array(_CONTROL_RGB, dtype=np.float64)
    places = np.linspace(0, 1, len(table))
    return np.stack([np.rint(np.interp(relative, places, table[:, c])) for c in range(3)], axis=-1).astype(np.uint8)


def map_limits(bundle: Bundle) -> tuple[float, float]:
    """Map values shown as cold and as hot, from the golden frames that are good; see ``show_limits``."""
    reference = bundle.golden().reference
    return show_limits(reference.anomaly_map, ~bundle.manifest.threshold.is_defect(reference.score))


def show_limits(maps: NDArray[np.float32], is_good: NDArray[np.bool_]) -> tuple[float, float]:
    """Map values shown as cold and as hot, so that what good parts never reach begins to glow.

    Args:
        maps: float32 (N, h, w), anomaly maps.
        is_good: bool (N,), True for the maps of good images.

    Returns:
        The median of the good maps, and twice as far above it as nearly all good maps reach (the 95 % quantile of their
        maxima). Where no map is good: median and maximum of all.
    """
    places = np.flatnonzero(is_good)
    if len(places):
        low = float(np.median([np.median(maps[i]) for i in places]))
        high = 2 * float(np.quantile([maps[i].max() for i in places], 0.95)) - low
    else:
        low = float(np.median([np.median(item) for item in maps]))
        high = max(float(item.max()) for item in maps)
    return low, max(high, low + 1e-9)


def draw(
    frame: Frames, verdict: Verdict, *, bundle: Bundle, limits: tuple[float, float], view: View | None = None
) -> NDArray[np.uint8]:
    """Lay the heat map of a verdict over its frame, where the detector sees it.

    Args:
        frame: one frame of the bundle, as it was inspected.
        verdict: the verdict on it, with its anomaly map.
        bundle: bundle that inspected it.
        limits: map values shown as cold and as hot, see ``map_limits``.
        view: what is shown of a scan; None takes its default, see ``AbstractInput.views``.

    Returns:
        uint8 (H, W, 3) RGB, at the size of the frame.
    """
    spec = bundle.manifest.preprocessing
    colour = input_of(spec).as_rgb(frame, view)
    part = seen_part(spec)
    drawn = colour.copy()
    drawn[part] = overlay(
        np.ascontiguousarray(colour[part]), enlarge_map(verdict.anomaly_map, spec), low=limits[0], high=limits[1]
    )
    return drawn
