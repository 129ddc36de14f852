"""The two fits of a training with ``refit``: one that sets the threshold, then one on all good images.

A fifth of the good images is held out, so that the threshold rests on images that the detector was not fitted to. A
detector learns from more where these are given back to it; what they then score says nothing about other good parts.
So the scores of the first fit are kept, on disk too: an interrupted second fit goes on, and the first is not repeated.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ...bundle.atomic import write_json
from ...bundle.runs.folder import FIRST_FIT, REFIT
from ...bundle.runs.record import FirstFit
from ...core.words import counted
from ..base import DetectorConfig, FitContext
from .task import TRAINING


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """What is fitted to what.

    Attributes:
        config: parameters of the detector.
        fitted: good images to fit on.
        held_out: good images for early stopping.
        context: seed, device, progress and run folder.
    """

    config: DetectorConfig
    fitted: list[Path]
    held_out: list[Path]
    context: FitContext


def refit_job(job: Job, first: FirstFit) -> Job:
    """Return the second fit: to all good images, with the same settings, each training as long as the first one kept.

    The held-out images are fitted now, so that they cannot end it early or choose an epoch; nor does a time limit,
    which the first fit has kept to. Its state lies in a folder of its own.

    Args:
        job: the first fit.
        first: what it came to.
    """
    run = job.context.run and job.context.run / REFIT
    if run:
        run.mkdir(exist_ok=True)
    return Job(
        config=job.config,
        fitted=[*job.fitted, *job.held_out],
        held_out=job.held_out,
        context=dataclasses.replace(job.context, run=run, time_limit_s=0.0, epochs=first.epochs),
    )


def refit_words(first: FirstFit, num_images: int) -> str:
    """Return what a second fit to so many images does, in words."""
    lengths = [
        f"{counted(count, 'epoch')}{'' if name == TRAINING else f' of its {name}'}"
        for name, count in first.epochs.items()
    ]
    return ", ".join([f"fits again on all {num_images} good images", *lengths])


def refit_report(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report of the second fit, whose figures of held-out images are figures of images held out before."""
    return {
        key.replace("holdout", "former_holdout"): refit_report(value) if isinstance(value, dict) else value
        for key, value in report.items()
    }


def keep_first_fit(run: Path, first: FirstFit) -> FirstFit:
    """Write what the first fit came to, after which it is not repeated, and return it."""
    write_json(run / FIRST_FIT, dataclasses.asdict(first))
    return first
