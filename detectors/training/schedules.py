"""The length of a training, and a learning-rate schedule that torch does not have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ...core.errors import UsageError
from ...core.words import counted

_WARM_SHARE = 0.08


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, batches and precision of a training.

    Attributes:
        epochs: largest number of passes over the items.
        batch_size: items per step.
        patience: epochs without a lower held-out loss before training stops; 0 never stops early.
        keeps: epoch whose weights are kept: ``"best"`` for the one with the lowest held-out loss, or ``"last"``.
        ema_decay: decay of exponential moving averages of the weights, which are validated and kept instead of the
            weights and move by ``1 − ema_decay`` of the way at each step. 0 for no averages.
        precision: precision that the losses are computed in; bf16 and fp16 need CUDA.

    Raises:
        UsageError: there is no epoch, batches are empty, or the decay lies outside [0, 1).
    """

    epochs: int
    batch_size: int
    patience: int
    keeps: Literal["best", "last"] = "best"
    ema_decay: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError(
                f"Training has {counted(self.epochs, 'epoch')} of batches of {self.batch_size}; expected at least 1."
            )
        if not 0.0 <= self.ema_decay < 1.0:
            raise UsageError(f"ema_decay is {self.ema_decay}; expected 0 for no averages, or a share below 1.")


@final
class WarmCosine(LRScheduler):
    """A learning rate that warms up from a tenth over 8 % of the steps, then falls by a cosine to a thousandth.

    Args:
        optimiser: optimiser, its learning rate the highest one.
        num_steps: number of steps of the whole training.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, *, num_steps: int) -> None:
        self._num_steps = num_steps
        super().__init__(optimiser)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of the next step, one per parameter group."""
        rate = 1e-3 + (1.0 - 1e-3) * 0.5 * (1.0 + math.cos(math.pi * self.last_epoch / self._num_steps))
        warm = min(1.0, 0.1 + 0.9 * self.last_epoch / (_WARM_SHARE * self._num_steps))
        return [peak * rate * warm for peak in self.base_lrs]
