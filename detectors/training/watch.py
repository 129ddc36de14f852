"""The losses of the steps, read from the device now and then."""

from __future__ import annotations

import math
import time
from typing import final

import torch
from torch import Tensor

#: Seconds between two readings by type of device. To read makes the host wait until the device has done all steps, so
#: that it stands idle until the next one arrives; a CPU has nothing to wait for.
PAUSES_S = {"cpu": 0.0, "cuda": 1.0}


@final
class LossWatch:
    """Keeps the losses of all steps on the device until they are read: none is lost, and none is waited for.

    Args:
        device: device that the losses are computed on.

    Attributes:
        latest: the last loss that was read, by the name of its optimiser.
    """

    def __init__(self, device: torch.device) -> None:
        self.latest: dict[str, float] = {}
        self._pause_s = PAUSES_S[device.type]
        self._waiting: list[tuple[int, str, Tensor]] = []
        self._read_at = -math.inf

    def add(self, step: int, name: str, loss: Tensor) -> None:
        """Note a scalar loss, of any float dtype, by the number of its step in the epoch."""
        self._waiting.append((step, name, loss.detach()))

    def is_due(self) -> bool:
        """Whether so much time has passed that the losses should be read."""
        return time.monotonic() - self._read_at >= self._pause_s

    def read(self) -> list[tuple[int, str, float]]:
        """Return step, name and value of every loss that was noted since the last reading, in order."""
        if not self._waiting:
            return []
        steps, names, losses = zip(*self._waiting, strict=True)
        self._waiting = []
        # One copy for all. float64 holds every value of a smaller dtype.
        values: list[float] = torch.stack([loss.double().reshape(()) for loss in losses]).tolist()
        self.latest |= dict(zip(names, values, strict=True))
        self._read_at = time.monotonic()
        return list(zip(steps, names, values, strict=True))
