"""The progress of a training in words: epoch, step, losses, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Position of a training after a step, and the time that it took.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: largest number of epochs.
        step: number of the step in its epoch, from 1.
        steps: number of steps in an epoch.
        seconds: time of all steps up to this one, those before an interruption included.
        limit_s: seconds after which no new epoch begins; 0 for no limit.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float
    limit_s: float = 0.0

    @property
    def done(self) -> int:
        """Number of steps done, over all epochs."""
        return (self.epoch - 1) * self.steps + self.step

    @property
    def total(self) -> int:
        """Number of steps of all epochs."""
        return self.epochs * self.steps

    def seconds_left(self) -> float:
        """Return the longest time left, in seconds, at the pace so far; early stopping may end the training before."""
        left = self.seconds * (self.total - self.done) / self.done
        if self.limit_s <= 0:
            return left
        # The epoch that exceeds the limit is finished.
        rest_of_epoch = self.seconds * (self.steps - self.step) / self.done
        return min(left, max(self.limit_s - self.seconds, rest_of_epoch))

    def words(self, losses: Mapping[str, float]) -> str:
        """Return the position as ``"epoch 3 of 30, step 2 of 8, training loss 0.1234, at most 5 min left"``."""
        shown = "".join(f", {name} loss {value:.4g}" for name, value in losses.items())
        where = f"epoch {self.epoch} of {self.epochs}, step {self.step} of {self.steps}"
        return f"{where}{shown}, at most {duration_words(self.seconds_left())} left"


def duration_words(seconds: float) -> str:
    """Return ``"45 s"``, ``"12 min"`` or ``"3 h 20 min"``, rounded up to seconds below two minutes, else to minutes."""
    whole = int(-(-seconds // 1))
    if whole < 120:
        return f"{whole} s"
    minutes = -(-whole // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
