"""Options of a training; importing them needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ...bundle.runs.record import PresetRecord
from ...core.spec import Fit
from ...core.tiles import Tiles


@final
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training.

    Attributes:
        holdout: share of the good training images held out for the threshold and for early stopping, where the
            data set has no validation split of its own; 0 < share < 1.
        refit: fit the detector again on all good images, the held-out ones included, once these have set the threshold.
        seed: seed of every random choice; the same seed gives the same bits on a CPU.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, see ``find_device``; CUDA is never chosen silently.
        save_every_s: seconds after which the trainer's state is saved again, between two steps; it is also saved at the
            end and at Ctrl-C. 0 never saves it: an interrupted training begins again.
        time_limit_s: training stops after the epoch that exceeds this time, in seconds; 0 for no limit.
        fit: rule by which images of several sizes become frames of one size: ``"none"``, ``"stretch"``, ``"pad"`` or
            ``"crop"``; see ``data.inputs.fitting``.
        frame: height and width of the frames in pixels; None chooses them by the images, see ``choose_frame``.
        tiles: how frames are cut into tiles, each of which is learned as an image; None leaves them whole.
        bit_depth: bits that the camera used in 16-bit images; None for all 16.
        num_workers: processes that load and augment images for a detector that learns from images; 0 loads them in
            the training's own process. The trained weights do not depend on it.
        preset: preset that the parameters began from, for the run's record; None where there is none.
        command: command line that asked for the training, without its ``--out``; an unfinished run names it as the
            command that finishes it. "" where there is none.
    """

    holdout: float = 0.2
    refit: bool = False
    seed: int = 0
    device: str = "cpu"
    save_every_s: float = 600.0
    time_limit_s: float = 0.0
    fit: Fit = "none"
    frame: tuple[int, int] | None = None
    tiles: Tiles | None = None
    bit_depth: int | None = None
    num_workers: int = 0
    preset: PresetRecord | None = None
    command: str = ""
