"""What a training is made of: batches, losses, optimisers, and a judgement of held-out good images.

A method that minimises one loss needs no class of its own: ``LossTask`` takes the loss as a function. One with several
losses and optimisers, as a generative adversarial network has them, extends ``TrainingTask``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

BatchT = TypeVar("BatchT")

#: Name of a training that is alone in its fit.
TRAINING = "training"


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """What one step learns from.

    Attributes:
        indices: items of the source, int64 (B,).
        epoch: passes over the source before this one.
        step: steps before this one, over all epochs; a resumed training counts on.
        seed: of the training.
    """

    indices: Tensor
    epoch: int
    step: int
    seed: int

    def generator(self) -> torch.Generator:
        """A generator that depends on the seed and the step alone.

        What is drawn from it is the same in the main process and in any worker, and after a resume.
        """
        return torch.Generator().manual_seed((self.seed << 32) + self.step)


class BatchSource(Dataset[BatchT], ABC):
    """Makes batches, in the main process or in workers: decoding, augmentation, cached features.

    A batch must depend on the draw alone: what is random comes from ``draw.generator()`` or is seeded with
    ``draw.seed``, ``draw.epoch`` and the index. Batches are made on the CPU; the task moves them.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of items, each of which is drawn once per epoch."""

    @abstractmethod
    def __getitem__(self, draw: Draw) -> BatchT:
        """The batch of one step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimisation:
    """An optimiser and what is done around its steps.

    Attributes:
        optimiser: over the parameters that its loss trains.
        scheduler: of its learning rate, made with the same optimiser; None keeps the rate.
        scheduler_unit: whether the scheduler moves on after each step of this optimiser or after each epoch.
        largest_norm: gradients whose norm, over all parameters of the optimiser, is larger are shortened to it.
    """

    optimiser: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    scheduler_unit: Literal["step", "epoch"] = "step"
    largest_norm: float = math.inf

    def parameters(self) -> list[Tensor]:
        """All parameters of the optimiser, in its order."""
        return [item for group in self.optimiser.param_groups for item in group["params"]]


class TrainingTask(ABC, Generic[BatchT]):
    """What a ``Trainer`` runs, resumes and stops.

    Args:
        module: all that is trained, on the device of the training. Its trained parameters and its buffers are the
            state that is kept; frozen parameters are not, and must be there again when a training is resumed.
        source: of the batches.
        name: of the training. A fit of several trainings, one after the other, gives each its own.
    """

    def __init__(self, module: nn.Module, source: BatchSource[BatchT], *, name: str = TRAINING) -> None:
        self.module = module
        self.source = source
        self.name = name

    @abstractmethod
    def optimisers(self) -> Mapping[str, Optimisation]:
        """Optimisers by name; asked for once, before the first step."""

    @abstractmethod
    def step(self, batch: BatchT) -> Iterator[tuple[str, Tensor]]:
        """Yield each loss to be minimised with the name of the optimiser that does it, in order.

        After each the trainer clears that optimiser's gradients, differentiates the loss and takes one step, so that a
        loss that is computed later sees the parameters as they are then. A critic may be yielded several times
        before its generator is.

        Args:
            batch: from the source.

        Yields:
            Name of an optimiser, scalar loss.
        """

    @abstractmethod
    def validate(self) -> float:
        """The loss over the held-out good images, by which the best epoch is chosen; smaller is better.

        The module comes in evaluation mode and without gradients, and is left in evaluation mode. What is set here,
        such as the statistics of batch normalisations, belongs to the epoch and is kept with it.
        """


@final
class LossTask(TrainingTask[BatchT]):
    """One loss and one optimiser.

    Args:
        module: what is trained.
        optimisation: over its parameters.
        source: of the batches.
        loss: batch → scalar loss.
        holdout_loss: mean loss of the held-out good images; see ``TrainingTask.validate``.
        name: of the training, of its loss and of its optimiser.
    """

    def __init__(
        self,
        module: nn.Module,
        optimisation: Optimisation,
        *,
        source: BatchSource[BatchT],
        loss: Callable[[BatchT], Tensor],
        holdout_loss: Callable[[], float],
        name: str = TRAINING,
    ) -> None:
        super().__init__(module, source, name=name)
        self._optimisation = optimisation
        self._loss = loss
        self._holdout_loss = holdout_loss

    def optimisers(self) -> Mapping[str, Optimisation]:
        """The only one."""
        return {self.name: self._optimisation}

    def step(self, batch: BatchT) -> Iterator[tuple[str, Tensor]]:
        """The only loss."""
        yield self.name, self._loss(batch)

    def validate(self) -> float:
        """What ``holdout_loss`` says."""
        return self._holdout_loss()
