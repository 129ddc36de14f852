"""Training tasks: batches, losses, optimisers, and the validation on held-out good images.

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
    """The items that one step learns from.

    Attributes:
        indices: items of the source, int64 (B,).
        epoch: number of whole epochs before this one.
        step: number of steps before this one, over all epochs; a resumed training counts on.
        seed: seed of the training.
    """

    indices: Tensor
    epoch: int
    step: int
    seed: int

    def generator(self) -> torch.Generator:
        """Return a generator that depends on the seed and the step alone.

        What is drawn from it is the same in the main process and in any worker, and after a resume.
        """
        return torch.Generator().manual_seed((self.seed << 32) + self.step)


class BatchSource(Dataset[BatchT], ABC):
    """A source of batches, used in the main process or in workers: decoding, augmentation, cached features.

    A batch must depend on the draw alone: what is random comes from ``draw.generator()`` or is seeded with
    ``draw.seed``, ``draw.epoch`` and the index. Batches are made on the CPU; the task moves them.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items, each of which is drawn once per epoch."""

    @abstractmethod
    def __getitem__(self, draw: Draw) -> BatchT:
        """Return the batch of one step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimisation:
    """An optimiser with its learning-rate scheduler and gradient clipping.

    Attributes:
        optimiser: optimiser of the parameters that its loss trains.
        scheduler: scheduler of its learning rate, made with the same optimiser; None keeps the rate constant.
        scheduler_unit: whether the scheduler advances after each step of this optimiser or after each epoch.
        factor: what is minimised is the loss times this; progress and the run's record show the loss itself. It matters
            where something is added to the gradient, such as weight decay, or where gradients are clipped.
        largest_norm: gradients are scaled down to this norm, over all parameters of the optimiser, where they exceed
            it; infinity for no clipping.
    """

    optimiser: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    scheduler_unit: Literal["step", "epoch"] = "step"
    factor: float = 1.0
    largest_norm: float = math.inf

    def parameters(self) -> list[Tensor]:
        """Return all parameters of the optimiser, in its order."""
        return [item for group in self.optimiser.param_groups for item in group["params"]]


class TrainingTask(ABC, Generic[BatchT]):
    """A task that a ``Trainer`` runs, resumes and stops.

    Args:
        module: the module that is trained, on the device of the training. The state holds its trained parameters and
            buffers; frozen parameters are not saved, and must be there again when a training is resumed.
        source: source of the batches.
        name: name of the training. Where a fit has several trainings, one after the other, each has its own name.
    """

    def __init__(self, module: nn.Module, source: BatchSource[BatchT], *, name: str = TRAINING) -> None:
        self.module = module
        self.source = source
        self.name = name

    @abstractmethod
    def optimisers(self) -> Mapping[str, Optimisation]:
        """Return the optimisers by name; called once, before the first step."""

    @abstractmethod
    def step(self, batch: BatchT) -> Iterator[tuple[str, Tensor]]:
        """Yield each loss to be minimised with the name of the optimiser that does it, in order.

        After each the trainer clears that optimiser's gradients, differentiates the loss and takes one step, so that a
        loss that is computed later sees the parameters as they are then. A critic may be yielded several times
        before its generator is.

        Args:
            batch: a batch of the source.

        Yields:
            The name of an optimiser, and a scalar loss.
        """

    @abstractmethod
    def validate(self) -> float:
        """Return the mean loss of the held-out good images, by which the best epoch is chosen; smaller is better.

        The trainer calls it with the module in evaluation mode and without gradients; it must leave the module in
        evaluation mode. Buffers that it sets, such as the statistics of batch normalisations, are saved with the epoch.
        """


@final
class LossTask(TrainingTask[BatchT]):
    """One loss and one optimiser.

    Args:
        module: the module that is trained.
        optimisation: optimiser of its parameters, with scheduler and clipping.
        source: source of the batches.
        loss: maps a batch to a scalar loss.
        holdout_loss: returns the mean loss of the held-out good images; see ``TrainingTask.validate``.
        name: name of the training, of its loss and of its optimiser.
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
        """Return the only optimiser."""
        return {self.name: self._optimisation}

    def step(self, batch: BatchT) -> Iterator[tuple[str, Tensor]]:
        """Yield the only loss."""
        yield self.name, self._loss(batch)

    def validate(self) -> float:
        """Return the value of ``holdout_loss``."""
        return self._holdout_loss()
