"""What ``run`` files beside each verdict: an overlay, and of a scan what it is laid over and its projections."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..bundle.store import Bundle
from ..core.spec import Frames
from ..data.inputs.base import View
from ..data.inputs.table import input_of
from ..line.inspect_files import Painter
from ..line.inspector import Verdict
from .overlays import draw, map_limits
from .panel import panel
from .projections import PROJECTED, projections

_OVERLAY_PX, _PROJECTION_PX = 384, 192


def painter(bundle: Bundle, *, view: str | None = None) -> Painter:
    """A function that draws the verdicts of a bundle with the limits of its golden frames.

    Of an image it gives the overlay, see ``draw``, at the size of the frame; of a scan a panel that says in words what
    it shows.

    Args:
        bundle: the bundle.
        view: what the map of a scan is laid over, ``"rgb"`` or ``"depth"``; None takes its colours where it has some.

    Raises:
        UsageError: the bundle's frames cannot be shown so.
    """
    handler, limits = input_of(bundle.manifest.preprocessing), map_limits(bundle)
    chosen = handler.check_view(view)
    if bundle.manifest.preprocessing.kind == "image":
        return partial(draw, bundle=bundle, limits=limits)
    return partial(_panel, bundle=bundle, limits=limits, view=chosen)


def _panel(
    frame: Frames, verdict: Verdict, *, bundle: Bundle, limits: tuple[float, float], view: View
) -> NDArray[np.uint8]:
    """Overlay and projections of a verdict on a scan: uint8 (H, W, 3)."""
    spec = bundle.manifest.preprocessing
    laid = draw(frame, verdict, bundle=bundle, limits=limits, view=view)
    words = (
        f"{verdict.verdict}: score {verdict.score:.4g}, threshold {verdict.threshold:.4g}. Heat from "
        f"{limits[0]:.3g} to {limits[1]:.3g} over {input_of(spec).view_words(view)}."
    )
    along = projections(frame, verdict.anomaly_map, spec, limits=limits)
    if not along:
        return panel([(_OVERLAY_PX, [(laid, words)])])
    return panel([(_OVERLAY_PX, [(laid, f"{words} Beside: {PROJECTED}.")]), (_PROJECTION_PX, along)])
