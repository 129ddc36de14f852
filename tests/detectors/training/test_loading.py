"""Batches are the same in the training's process and in workers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.training.loading import EpochOrder, make_loader  # noqa: E402
from lineproof.detectors.training.task import BatchSource  # noqa: E402


class Augmented(BatchSource):
    """Values with noise that is drawn anew at every step; says which process made them."""

    def __len__(self):
        return 7

    def __getitem__(self, draw):
        noise = torch.randn(len(draw.indices), 3, generator=draw.generator())
        worker = torch.utils.data.get_worker_info()
        return draw.indices[:, None] + noise, draw.epoch, draw.step, -1 if worker is None else worker.id


def epochs_of(num_workers, *, seed=5):
    order = EpochOrder(7, 3, seed=seed)
    loader = make_loader(Augmented(), order, num_workers=num_workers, seed=seed)
    batches = []
    for epoch in range(3):
        order.epoch = epoch
        batches += list(loader)
    return batches


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_make_the_same_batches():
    here, there = epochs_of(0), epochs_of(2)
    assert {batch[3] for batch in here} == {-1}
    assert {batch[3] for batch in there} == {0, 1}
    assert len(here) == len(there) == 9
    for one, other in zip(here, there, strict=True):
        assert one[1:3] == other[1:3]
        np.testing.assert_array_equal(one[0].numpy(), other[0].numpy())


def test_steps_count_over_all_epochs_and_no_two_draw_alike():
    batches = epochs_of(0)
    assert [batch[1:3] for batch in batches] == [(step // 3, step) for step in range(9)]
    assert len({float(batch[0][0, 0] % 1) for batch in batches}) == 9


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    epochs_of(0)
    np.testing.assert_array_equal(torch.get_rng_state().numpy(), before.numpy())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("num_workers", "is_pinned"), [(0, False), (0, True), (2, True)])
def test_batches_are_pinned_where_that_is_asked_for(num_workers, is_pinned):
    loader = make_loader(Augmented(), EpochOrder(7, 3, seed=5), num_workers=num_workers, seed=5, is_pinned=is_pinned)
    assert (loader.pin_memory, loader.prefetch_factor) == (is_pinned, 2 if num_workers else None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_pinned_batches_are_the_same(num_workers):
    loader = make_loader(Augmented(), EpochOrder(7, 3, seed=5), num_workers=num_workers, seed=5, is_pinned=True)
    for pinned, plain in zip(loader, epochs_of(0), strict=False):
        assert pinned[0].is_pinned()
        np.testing.assert_array_equal(pinned[0].numpy(), plain[0].numpy())
