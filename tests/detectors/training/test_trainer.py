"""The training loop: the best epoch is kept, an interrupted run resumes bit by bit, and every failure is reported."""

import re
import signal
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from lineproof.bundle.runs.folder import epochs_kept, epochs_kept_words  # noqa: E402
from lineproof.core.errors import LineproofError, UsageError  # noqa: E402
from lineproof.detectors.base import FitContext  # noqa: E402
from lineproof.detectors.training.devices import moved  # noqa: E402
from lineproof.detectors.training.schedules import Schedule  # noqa: E402
from lineproof.detectors.training.state import write_state  # noqa: E402
from lineproof.detectors.training.task import BatchSource, LossTask, Optimisation  # noqa: E402
from lineproof.detectors.training.trainer import Trainer  # noqa: E402
from lineproof.detectors.training.watch import PAUSES_S, LossWatch  # noqa: E402

NUM_IMAGES = 7
TARGETS = torch.randn(NUM_IMAGES, 4, generator=torch.Generator().manual_seed(3))


class InterruptionError(Exception):
    pass


class Indices(BatchSource):
    """Batches that are their own indices."""

    def __len__(self):
        return NUM_IMAGES

    def __getitem__(self, draw):
        return draw.indices


def network(seed=0):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    # A permutation is kept as a parameter by some libraries; it is not learned.
    module.register_parameter("frozen", torch.nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False))
    return module


def trainer_of(module, schedule, context=None, *, loss=None, holdout_loss=None, optimiser=None, **around):
    trained = [item for item in module.parameters() if item.requires_grad]
    optimiser = optimiser or torch.optim.Adam(trained, 0.05, weight_decay=1e-3)
    task = LossTask(
        module,
        Optimisation(optimiser=optimiser, **around),
        source=Indices(),
        loss=loss or loss_of(module),
        holdout_loss=holdout_loss or holdout_of(module),
    )
    return Trainer(task, schedule=schedule, context=context or FitContext())


def schedule_of(epochs, *, patience=0, batch_size=3, **others):
    return Schedule(epochs=epochs, batch_size=batch_size, patience=patience, **others)


def loss_of(module, *, orders=None, stop_at_step=None):
    calls = []

    def loss(indices):
        calls.append(indices)
        if orders is not None:
            orders.append(indices.tolist())
        if stop_at_step is not None and len(calls) > stop_at_step:
            raise InterruptionError
        return (module(TARGETS[indices]) - TARGETS[indices]).square().mean()

    return loss


def holdout_of(module):
    return lambda: float((module(TARGETS) - TARGETS).detach().abs().mean())


def state_of(module):
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_the_best_epoch_wins_and_patience_ends_it():
    losses = [5.0, 3.0, 4.0, 2.0, 2.5, 2.0, 9.0, 1.0]
    module, after = network(), []

    def holdout_loss():
        after.append(state_of(module))
        return losses[len(after) - 1]

    report = trainer_of(module, schedule_of(8, patience=3), holdout_loss=holdout_loss).run()
    # Epoch 3 is the best; the equal loss of epoch 5 is no improvement, so the fall to 1.0 is never reached.
    assert (report["epochs"], report["best_epoch"], report["best_holdout_loss"]) == (7, 3, 2.0)
    assert report["stopped"] == "patience"
    assert set(report) == {"epochs", "best_epoch", "best_holdout_loss", "seconds", "stopped"}
    assert_same(after[3], state_of(module))
    assert not module.training


def test_the_last_epoch_is_kept_where_it_is_asked_for():
    losses, module, after = iter([1.0, 2.0, 3.0]), network(), []

    def holdout_loss():
        after.append(state_of(module))
        return next(losses)

    report = trainer_of(module, schedule_of(3, keeps="last"), holdout_loss=holdout_loss).run()
    assert (report["best_epoch"], report["keeps"]) == (0, "last")
    assert_same(after[2], state_of(module))
    assert not np.array_equal(after[0]["0.weight"], after[2]["0.weight"])


def test_without_patience_every_epoch_runs():
    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    report = trainer_of(network(), schedule_of(5), holdout_loss=lambda: next(losses)).run()
    assert (report["epochs"], report["best_epoch"], report["stopped"]) == (5, 0, "epochs")


def test_every_epoch_sees_every_image_once_in_another_order():
    orders, module = [], network()
    trainer_of(module, schedule_of(3), FitContext(seed=4), loss=loss_of(module, orders=orders)).run()
    assert [len(batch) for batch in orders] == [3, 3, 1] * 3
    epochs = [[index for batch in orders[start : start + 3] for index in batch] for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(NUM_IMAGES)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("keeps", "kept"), [("last", 4), ("best", 2)])
def test_the_epochs_behind_the_weights_that_are_kept_are_told(keeps, kept):
    losses, heard = iter([3.0, 1.0, 2.0, 2.0]), []
    context = FitContext(trained=lambda *told: heard.append(told))
    schedule = schedule_of(9, patience=2, keeps=keeps)
    trainer_of(network(), schedule, context, holdout_loss=lambda: next(losses)).run()
    assert heard == [("training", kept)]


def test_a_context_names_another_length_of_which_the_last_epoch_is_kept():
    losses, module, after = iter([1.0, 2.0, 3.0]), network(), []

    def holdout_loss():
        after.append(state_of(module))
        return next(losses)

    context = FitContext(epochs={"training": 3, "encoder": 1})
    report = trainer_of(module, schedule_of(9, patience=1), context, holdout_loss=holdout_loss).run()
    assert (report["epochs"], report["best_epoch"], report["stopped"], report["keeps"]) == (3, 0, "epochs", "last")
    assert_same(after[2], state_of(module))


def test_time_limit_stops_after_an_epoch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lineproof.detectors.training.trainer.time.perf_counter", lambda: now[0])

    def ten_seconds_later():
        now[0] += 10.0
        return -now[0]

    context = FitContext(time_limit_s=25.0)
    report = trainer_of(network(), schedule_of(50), context, holdout_loss=ten_seconds_later).run()
    assert (report["epochs"], report["seconds"], report["stopped"]) == (3, 30.0, "time limit")


def test_a_run_broken_after_its_time_limit_still_ends_its_epoch(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lineproof.detectors.training.trainer.time.perf_counter", lambda: now[0])

    def slow(loss):
        def ten_seconds_later(indices):
            now[0] += 10.0
            return loss(indices)

        return ten_seconds_later

    context = FitContext(time_limit_s=15.0, run=tmp_path, save_every_s=1e-9)
    broken = network()
    with pytest.raises(InterruptionError):
        trainer_of(broken, schedule_of(50), context, loss=slow(loss_of(broken, stop_at_step=2))).run()
    resumed, orders = network(), []
    report = trainer_of(resumed, schedule_of(50), context, loss=slow(loss_of(resumed, orders=orders))).run()
    assert (report["epochs"], report["stopped"], len(orders)) == (1, "time limit", 1)


@pytest.mark.parametrize("keeps", ["best", "last"])
@pytest.mark.parametrize("stop_at_step", [0, 2, 3, 10, 17])
def test_a_broken_run_goes_on_to_the_same_bits(tmp_path, stop_at_step, keeps):
    schedule = schedule_of(6, keeps=keeps)
    module = network()
    whole = trainer_of(module, schedule, FitContext(seed=1)).run()
    context = FitContext(seed=1, run=tmp_path, save_every_s=1e-9)
    broken = network()
    with pytest.raises(InterruptionError):
        trainer_of(broken, schedule, context, loss=loss_of(broken, stop_at_step=stop_at_step)).run()
    orders = []
    resumed = network(seed=99 if stop_at_step else 0)  # before the first state the start decides
    report = trainer_of(resumed, schedule, context, loss=loss_of(resumed, orders=orders)).run()
    assert len(orders) == 3 * 6 - stop_at_step
    assert_same(state_of(module), state_of(resumed))
    for key in ("epochs", "best_epoch", "best_holdout_loss", "stopped"):
        assert report[key] == whole[key]


def test_a_run_that_was_killed_between_an_epoch_and_its_judgement_is_judged(tmp_path):
    module, schedule = network(), schedule_of(4)
    whole = trainer_of(module, schedule).run()
    broken, calls = network(), []

    def holdout_loss():
        calls.append(None)
        if len(calls) == 2:
            raise InterruptionError
        return holdout_of(broken)()

    context = FitContext(run=tmp_path, save_every_s=1e-9)
    with pytest.raises(InterruptionError):
        trainer_of(broken, schedule, context, holdout_loss=holdout_loss).run()
    orders, resumed = [], network(seed=99)
    report = trainer_of(resumed, schedule, context, loss=loss_of(resumed, orders=orders)).run()
    assert len(orders) == 2 * 3
    assert_same(state_of(module), state_of(resumed))
    assert report["best_holdout_loss"] == whole["best_holdout_loss"]


def pressing(module, at_steps):
    """A loss during which Ctrl-C is pressed at some steps; the steps that it was computed for."""
    loss, steps = loss_of(module), []

    def pressed(indices):
        steps.append(len(steps) + 1)
        if steps[-1] in at_steps:
            signal.raise_signal(signal.SIGINT)
        return loss(indices)

    return pressed, steps


def test_after_ctrl_c_a_step_is_finished_and_saved(tmp_path):
    schedule, context = schedule_of(4), FitContext(run=tmp_path)
    module = network()
    trainer_of(module, schedule).run()
    stopped = network()
    loss, steps = pressing(stopped, {5})
    with pytest.raises(KeyboardInterrupt):
        trainer_of(stopped, schedule, context, loss=loss).run()
    assert len(steps) == 5
    assert epochs_kept(tmp_path) == (1, 2, 4)
    assert epochs_kept_words(tmp_path) == "step 2 of epoch 2 of 4"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    orders, resumed = [], network(seed=99)
    trainer_of(resumed, schedule, context, loss=loss_of(resumed, orders=orders)).run()
    assert len(orders) == 4 * 3 - 5
    assert_same(state_of(module), state_of(resumed))


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    module = network()

    def loss(_indices):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one was ignored")

    with pytest.raises(KeyboardInterrupt):
        trainer_of(module, schedule_of(2), FitContext(run=tmp_path), loss=loss).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, []), (25.0, [3, 6, 8]), (1e9, [8])])
def test_the_state_is_saved_after_so_many_seconds_and_at_the_end(tmp_path, monkeypatch, seconds, saved):
    now, seen = [0.0], []
    monkeypatch.setattr("lineproof.detectors.training.trainer.time.perf_counter", lambda: now[0])

    def ten_seconds_later():
        now[0] += 10.0
        return -now[0]

    def note(path, state):
        seen.append(state.progress["epoch"])
        write_state(path, state)

    monkeypatch.setattr("lineproof.detectors.training.trainer.write_state", note)
    context = FitContext(run=tmp_path, save_every_s=seconds)
    trainer_of(network(), schedule_of(8), context, holdout_loss=ten_seconds_later).run()
    assert seen == saved
    assert bool(list(tmp_path.iterdir())) == bool(saved)


@pytest.mark.parametrize(
    ("keeps", "losses", "is_kept_twice"),
    [("last", [1.0, 2.0], False), ("best", [2.0, 1.0], False), ("best", [1.0, 2.0], True)],
)
def test_what_is_kept_is_written_beside_the_present_weights_only_where_it_differs(
    tmp_path, keeps, losses, is_kept_twice
):
    module, values = network(), iter(losses)
    context, schedule = FitContext(run=tmp_path), schedule_of(2, keeps=keeps)
    trainer = trainer_of(module, schedule, context, holdout_loss=lambda: next(values))
    trainer.run()
    names = load_file(tmp_path / "trainer.safetensors")
    assert any(name.startswith("kept/") for name in names) == is_kept_twice
    assert bool(trainer._kept) == (keeps == "best")
    again = network(seed=9)
    trainer_of(again, schedule, context).run()
    assert_same(state_of(module), state_of(again))


def test_a_run_killed_at_its_very_end_does_not_train_on(tmp_path):
    """Stopped by patience, killed before the weights were written: the same command must give the same answer."""
    losses = iter([1.0, 2.0, 3.0])
    context, schedule = FitContext(run=tmp_path), schedule_of(9, patience=2)
    module = network()
    first = trainer_of(module, schedule, context, holdout_loss=lambda: next(losses)).run()
    orders, again = [], network(seed=5)
    loss = loss_of(again, orders=orders)
    second = trainer_of(again, schedule, context, loss=loss, holdout_loss=lambda: 0.0).run()
    assert orders == []
    assert second == first
    assert_same(state_of(module), state_of(again))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(value):
    module, calls = network(), []

    def loss(indices):
        calls.append(indices)
        return loss_of(module)(indices) * (value if len(calls) == 5 else 1.0)

    message = rf"training loss became {value} in epoch 2, step 2\. Lower the learning rate"
    with pytest.raises(LineproofError, match=message):
        trainer_of(module, schedule_of(3), loss=loss).run()


class TestWithoutWaiting:
    """Losses read as on CUDA: rarely, at an epoch's end, and before anything is saved or judged."""

    @pytest.fixture(autouse=True)
    def readings(self, monkeypatch):
        """Numbers of losses in each reading that found any."""
        sizes, read = [], LossWatch.read

        def noted(watch):
            values = read(watch)
            if values:
                sizes.append(len(values))
            return values

        monkeypatch.setattr(LossWatch, "read", noted)
        monkeypatch.setitem(PAUSES_S, "cpu", 1e9)
        return sizes

    def test_the_bits_are_the_same(self, monkeypatch, readings):
        states = []
        for pause in (0.0, 1e9):
            monkeypatch.setitem(PAUSES_S, "cpu", pause)
            module = network()
            trainer_of(module, schedule_of(2)).run()
            states.append(state_of(module))
        assert_same(*states)
        assert readings == [1] * 6 + [1, 2, 3]

    def test_progress_shows_the_last_loss_that_was_read(self):
        told = []
        trainer_of(network(), schedule_of(2), FitContext(progress=lambda *item: told.append(item[3]))).run()
        losses = [re.search(r"training loss ([\d.]+)", words)[1] for words in told]
        assert losses[0] == losses[1] == losses[2] != losses[3] == losses[4] == losses[5]

    @pytest.mark.parametrize("bad", [2, 4, 5, 6, 9])
    def test_a_loss_that_is_not_finite_is_found_within_its_epoch_and_nothing_is_saved(self, tmp_path, bad):
        module, calls, judged = network(), [], []

        def loss(indices):
            calls.append(indices)
            return loss_of(module)(indices) * (float("nan") if len(calls) == bad else 1.0)

        def holdout_loss():
            judged.append(len(calls))
            return 1.0

        epoch, step = divmod(bad - 1, 3)
        trainer = trainer_of(
            module, schedule_of(3), FitContext(run=tmp_path, save_every_s=1e9), loss=loss, holdout_loss=holdout_loss
        )
        with pytest.raises(LineproofError, match=rf"training loss became nan in epoch {epoch + 1}, step {step + 1}\."):
            trainer.run()
        assert judged == [3 * (number + 1) for number in range(epoch)]
        assert not list(tmp_path.iterdir())

    def test_a_state_is_saved_only_after_its_losses_were_read(self, tmp_path):
        """Ctrl-C during the step whose loss is not finite, which was not read yet."""
        module, calls = network(), []

        def loss(indices):
            calls.append(indices)
            if len(calls) == 5:
                signal.raise_signal(signal.SIGINT)
                return loss_of(module)(indices) * float("inf")
            return loss_of(module)(indices)

        with pytest.raises(LineproofError, match=r"training loss became inf in epoch 2, step 2\."):
            trainer_of(module, schedule_of(3), FitContext(run=tmp_path), loss=loss).run()
        assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_steps_on_cuda_do_not_wait_for_it(monkeypatch):
    device, waits = torch.device("cuda"), []
    module, targets = network().to(device), TARGETS.to(device)

    def loss(indices):
        chosen = targets[moved(indices, device)]
        waits.append(torch.cuda.get_sync_debug_mode())
        return (module(chosen) - chosen).square().mean()

    monkeypatch.setitem(PAUSES_S, "cuda", 1e9)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            context = FitContext(device=device, save_every_s=0.0)
            trainer_of(module, schedule_of(20, batch_size=1), context, loss=loss, holdout_loss=lambda: 1.0).run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 20 * NUM_IMAGES
    # The first step's loss is read, then that of each epoch.
    assert len([item for item in caught if "synchronizing" in str(item.message)]) <= 21


def test_a_held_out_loss_that_is_not_finite_ends_training(tmp_path):
    """Otherwise no epoch would be the best and the untrained weights would be returned."""
    losses = iter([1.0, float("nan")])
    trainer = trainer_of(network(), schedule_of(3), FitContext(run=tmp_path), holdout_loss=lambda: next(losses))
    with pytest.raises(LineproofError, match=r"held-out loss became nan in epoch 2\. Lower"):
        trainer.run()


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 3), (-1, 3), (3, 0)])
def test_a_schedule_without_steps_is_refused(epochs, batch_size):
    with pytest.raises(UsageError, match=rf"{epochs} epochs of batches of {batch_size}; expected at least 1"):
        schedule_of(epochs, batch_size=batch_size)


def test_a_decay_that_forgets_nothing_is_refused():
    with pytest.raises(UsageError, match=r"ema_decay is 1\.0; expected 0 for no averages, or a share below 1"):
        schedule_of(1, ema_decay=1.0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_never_a_silent_fp32(precision):
    with pytest.raises(UsageError, match=rf"{precision} was asked for on cpu; expected CUDA"):
        trainer_of(network(), schedule_of(1, precision=precision))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_on_cuda(tmp_path, precision):
    device, seen = torch.device("cuda"), []
    module, targets = network().to(device), TARGETS.to(device)

    def loss(indices):
        restored = module(targets[indices.to(device)])
        seen.append(restored.dtype)
        return (restored.float() - targets[indices.to(device)]).square().mean()

    report = trainer_of(
        module,
        schedule_of(3, precision=precision),
        FitContext(device=device, run=tmp_path),
        loss=loss,
        holdout_loss=lambda: float(loss(torch.arange(NUM_IMAGES))),
    ).run()
    assert report["precision"] == precision
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}


def test_progress_counts_every_step_of_every_epoch_and_says_where_it_stands():
    told = []
    context = FitContext(progress=lambda *item: told.append(item))
    trainer_of(network(), schedule_of(2), context).run()
    assert [item[:3] for item in told] == [("training", done, 6) for done in range(1, 7)]
    words = r"epoch 2 of 2, step 1 of 3, training loss [\d.]+, at most 1 s left"
    assert re.fullmatch(words, told[3][3])


def test_long_gradients_are_shortened_and_short_ones_are_not():
    """Under plain descent with rate 1 a step is as long as its gradient."""
    lengths = {}
    for largest in (float("inf"), 1e3, 0.05):
        module = network()
        trained = [item for item in module.parameters() if item.requires_grad]
        flat = [torch.cat([item.detach().flatten() for item in trained])]
        trainer_of(
            module,
            schedule_of(1, batch_size=NUM_IMAGES),
            optimiser=torch.optim.SGD(trained, 1.0),
            largest_norm=largest,
        ).run()
        flat.append(torch.cat([item.detach().flatten() for item in trained]))
        lengths[largest] = float((flat[1] - flat[0]).norm())
    assert lengths[float("inf")] > 0.2
    assert lengths[1e3] == lengths[float("inf")]
    assert lengths[0.05] == pytest.approx(0.05, rel=1e-3)


def test_the_averages_are_what_is_validated_and_kept(tmp_path):
    module, seen, validated = network(), [], []

    def note(*_):
        seen.append(state_of(module))

    def holdout_loss():
        validated.append(state_of(module))
        return 1.0 / len(validated)

    context = FitContext(progress=note, run=tmp_path)
    report = trainer_of(module, schedule_of(2, ema_decay=0.75), context, holdout_loss=holdout_loss).run()
    # The trainer tells after it has averaged, so that what was seen are the weights after each step.
    expected = {name: value.astype(np.float64) for name, value in seen[0].items()}
    for state in seen[1:]:
        expected = {name: 0.75 * value + 0.25 * state[name] for name, value in expected.items()}
    for name, value in state_of(module).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert_same(validated[1], state_of(module))
    assert np.abs(seen[-1]["0.weight"] - expected["0.weight"]).max() > 1e-3
    assert report["ema_decay"] == 0.75
    np.testing.assert_array_equal(module.frozen.numpy(), [2, 0, 1])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_fit_with_workers_has_the_same_bits():
    states = []
    for num_workers in (0, 2):
        module = network()
        trainer_of(module, schedule_of(3), FitContext(seed=2, num_workers=num_workers)).run()
        states.append(state_of(module))
    assert_same(*states)


def test_a_factor_scales_the_gradient_and_not_what_is_shown():
    """Under plain descent the factor is a factor of the learning rate."""
    states, told = [], []
    for factor, rate in ((1.0, 0.5), (8.0, 0.0625)):
        module = network()
        optimiser = torch.optim.SGD([item for item in module.parameters() if item.requires_grad], rate)
        context = FitContext(progress=lambda *item: told.append(re.search(r"loss [\d.]+", item[3]).group()))
        trainer_of(module, schedule_of(2), context, optimiser=optimiser, factor=factor).run()
        states.append(state_of(module))
    assert_same(*states)
    assert told[:6] == told[6:]
