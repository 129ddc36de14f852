"""How to train: what a command asks for, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ...core.spec import Fit


@final
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train.

    Attributes:
        holdout: share of the good training images held out for the threshold and for early stopping, where the
            data set has no validation split of its own; 0 < share < 1.
        seed: of everything random.
        device: ``"cpu"`` or ``"cuda"``, never chosen silently.
        time_limit_s: stop after the epoch that exceeds it; 0 for no limit.
        fit: how images of several sizes become frames of one, see ``data.inputs.fitting``.
        frame: height and width of the frames; None chooses, see ``choose_frame``.
        bit_depth: bits that the camera used in 16-bit images; None for all.
        num_workers: processes that load and augment images for a detector that learns from images; 0 loads them in
            the training's own process. The weights are the same.
        command: the command line that asked for this, without its ``--out``: what an unfinished run names as the way
            to finish it. "" where there is none.
    """

    holdout: float = 0.2
    seed: int = 0
    device: str = "cpu"
    time_limit_s: float = 0.0
    fit: Fit = "none"
    frame: tuple[int, int] | None = None
    bit_depth: int | None = None
    num_workers: int = 0
    command: str = ""
