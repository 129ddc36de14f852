"""Loading of an epoch's batches, in the training's process or in workers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TypeVar, final

import torch
from torch.utils.data import DataLoader, Sampler

from .task import BatchSource, Draw

ItemT = TypeVar("ItemT")


@final
class EpochOrder(Sampler[Draw]):
    """The draws of one epoch; the order of epoch e depends on (seed, e) alone.

    Args:
        num_items: items of the source.
        batch_size: items per step; the last step may have fewer.
        seed: seed of the training.

    Attributes:
        epoch: number of the epoch that is drawn, from 0; the trainer sets it before each epoch.
        num_done: number of its steps that were done before an interruption, which are left out; set likewise.
    """

    def __init__(self, num_items: int, batch_size: int, *, seed: int) -> None:
        self._num_items = num_items
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0
        self.num_done = 0

    def __len__(self) -> int:
        return -(-self._num_items // self._batch_size)

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed((self._seed << 20) + self.epoch)
        order = torch.randperm(self._num_items, generator=generator)
        before = self.epoch * len(self)
        for number, indices in enumerate(order.split(self._batch_size)[self.num_done :], self.num_done):
            yield Draw(indices=indices, epoch=self.epoch, step=before + number, seed=self._seed)


def make_loader(
    source: BatchSource[ItemT], order: EpochOrder, *, num_workers: int, seed: int, is_pinned: bool = False
) -> DataLoader[ItemT]:
    """Return a loader of whole batches; its workers live as long as it does, so that each decodes an image once.

    Args:
        source: source that makes a batch from a draw.
        order: draws of an epoch.
        num_workers: processes that make batches ahead; 0 makes them in the training's own process.
        seed: seed of the workers' global generators. The training's own global generator is left alone.
        is_pinned: whether batches are put into pinned memory, which a GPU copies from while the host goes on; a thread
            does so ahead where there are workers. Needs CUDA.
    """
    return DataLoader(
        source,
        batch_size=None,
        sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=is_pinned,
        collate_fn=_as_it_is,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator().manual_seed(seed),
    )


def _ignore_interrupt(_number: int) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the trainer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: ItemT) -> ItemT:
    """Return the batch unchanged: the source has collated it."""
    return batch
