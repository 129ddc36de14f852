"""The training loop: the best epoch wins, a broken run goes on bit by bit, and nothing goes wrong in silence."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.core.errors import BadInputError, LineproofError, UsageError  # noqa: E402
from lineproof.detectors.base import FitContext  # noqa: E402
from lineproof.detectors.training.trainer import Schedule, Trainer, follow_cosine, steps_taken, write_json  # noqa: E402

NUM_IMAGES = 7
TARGETS = torch.randn(NUM_IMAGES, 4, generator=torch.Generator().manual_seed(3))


class InterruptionError(Exception):
    pass


def make(schedule, context, *, seed=0):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    module.register_parameter("frozen", torch.nn.Parameter(torch.ones(2), requires_grad=False))
    trained = [item for item in module.parameters() if item.requires_grad]
    optimiser = torch.optim.Adam(trained, 0.05, weight_decay=1e-3)
    return module, Trainer(module, optimiser, schedule=schedule, context=context)


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
    module, trainer = make(Schedule(epochs=8, batch_size=3, patience=3), FitContext())
    after = []

    def holdout_loss():
        after.append(state_of(module))
        return losses[len(after) - 1]

    report = trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_loss)
    # Epoch 3 is the best; the equal loss of epoch 5 is no improvement, so the fall to 1.0 is never reached.
    assert (report["epochs"], report["best_epoch"], report["best_holdout_loss"]) == (7, 3, 2.0)
    assert report["stopped"] == "patience"
    assert_same(after[3], state_of(module))
    assert not module.training


def test_without_patience_every_epoch_runs():
    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    module, trainer = make(Schedule(epochs=5, batch_size=3, patience=0), FitContext())
    report = trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=lambda: next(losses))
    assert (report["epochs"], report["best_epoch"], report["stopped"]) == (5, 0, "epochs")


def test_every_epoch_sees_every_image_once_in_another_order():
    orders = []
    module, trainer = make(Schedule(epochs=3, batch_size=3, patience=0), FitContext(seed=4))
    trainer.run(NUM_IMAGES, loss=loss_of(module, orders=orders), holdout_loss=holdout_of(module))
    assert [len(batch) for batch in orders] == [3, 3, 1] * 3
    epochs = [[index for batch in orders[start : start + 3] for index in batch] for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(NUM_IMAGES)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_time_limit_stops_after_an_epoch(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("lineproof.detectors.training.trainer.time.perf_counter", lambda: float(next(clock)))
    module, trainer = make(Schedule(epochs=50, batch_size=3, patience=0), FitContext(time_limit_s=25.0))
    report = trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_of(module))
    assert (report["epochs"], report["seconds"], report["stopped"]) == (3, 30.0, "time limit")


@pytest.mark.parametrize("stop_at_step", [0, 2, 3, 10, 17])
def test_a_broken_run_goes_on_to_the_same_bits(tmp_path, stop_at_step):
    schedule = Schedule(epochs=6, batch_size=3, patience=0)
    module, trainer = make(schedule, FitContext(seed=1))
    whole = trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_of(module))
    context = FitContext(seed=1, run=tmp_path)
    broken, trainer = make(schedule, context)
    with pytest.raises(InterruptionError):
        trainer.run(
            NUM_IMAGES, loss=loss_of(broken, stop_at_step=stop_at_step), holdout_loss=holdout_of(broken)
        )  # fmt: skip
    orders = []
    resumed, trainer = make(schedule, context, seed=99)
    if stop_at_step < 3:
        resumed.load_state_dict(make(schedule, context)[0].state_dict())  # no epoch was saved: the start decides
    report = trainer.run(NUM_IMAGES, loss=loss_of(resumed, orders=orders), holdout_loss=holdout_of(resumed))
    assert len(orders) == 3 * (6 - stop_at_step // 3)
    assert_same(state_of(module), state_of(resumed))
    for key in ("epochs", "best_epoch", "best_holdout_loss", "stopped"):
        assert report[key] == whole[key]


def test_a_run_killed_at_its_very_end_does_not_train_on(tmp_path):
    """Stopped by patience, killed before the weights were written: the same command must give the same answer."""
    losses = iter([1.0, 2.0, 3.0])
    context = FitContext(run=tmp_path)
    schedule = Schedule(epochs=9, batch_size=3, patience=2)
    module, trainer = make(schedule, context)
    first = trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=lambda: next(losses))
    orders = []
    again, trainer = make(schedule, context, seed=5)
    second = trainer.run(NUM_IMAGES, loss=loss_of(again, orders=orders), holdout_loss=lambda: 0.0)
    assert orders == []
    assert second == first
    assert_same(state_of(module), state_of(again))


def test_a_state_that_is_not_finite_is_not_gone_on_from(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path, context = tmp_path / "trainer.safetensors", FitContext(run=tmp_path)
    module, trainer = make(Schedule(epochs=1, batch_size=4, patience=0), context)
    trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_of(module))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    state["best/0.weight"][0, 1] = torch.nan
    save_file(state, path, metadata)
    module, trainer = make(Schedule(epochs=2, batch_size=4, patience=0), context)
    with pytest.raises(
        BadInputError, match=r"trainer\.safetensors cannot be gone on from: best/0\.weight holds 1 value"
    ):
        trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_of(module))


def test_frozen_parameters_stay_out_of_the_state(tmp_path):
    from safetensors.torch import load_file

    module, trainer = make(Schedule(epochs=1, batch_size=3, patience=0), FitContext(run=tmp_path))
    trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_of(module))
    names = set(load_file(tmp_path / "trainer.safetensors"))
    assert "current/0.weight" in names
    assert not [name for name in names if "frozen" in name]
    np.testing.assert_array_equal(module.frozen.numpy(), 1.0)
    assert [item.name for item in tmp_path.iterdir()] == ["trainer.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(value):
    module, trainer = make(Schedule(epochs=3, batch_size=3, patience=0), FitContext())

    def loss(indices):
        return loss_of(module)(indices) * value

    with pytest.raises(LineproofError, match=rf"training loss became {value} in epoch 1\. Lower the learning rate"):
        trainer.run(NUM_IMAGES, loss=loss, holdout_loss=holdout_of(module))


def test_a_held_out_loss_that_is_not_finite_ends_training(tmp_path):
    """Otherwise no epoch would be the best and the untrained weights would be returned."""
    losses = iter([1.0, float("nan")])
    module, trainer = make(Schedule(epochs=3, batch_size=3, patience=0), FitContext(run=tmp_path))
    with pytest.raises(LineproofError, match=r"held-out loss became nan in epoch 2"):
        trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=lambda: next(losses))


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 3), (-1, 3), (3, 0)])
def test_a_schedule_without_steps_is_refused(epochs, batch_size):
    with pytest.raises(UsageError, match=rf"{epochs} epochs of batches of {batch_size}; expected at least 1"):
        make(Schedule(epochs=epochs, batch_size=batch_size, patience=0), FitContext())


def test_progress_counts_every_step_of_every_epoch():
    told = []
    context = FitContext(progress=lambda *item: told.append(item))
    module, trainer = make(Schedule(epochs=2, batch_size=3, patience=0), context)
    trainer.run(NUM_IMAGES, loss=loss_of(module), holdout_loss=holdout_of(module))
    assert told == [("training", done, 6) for done in range(1, 7)]


def test_json_is_sorted_and_whole(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5], "b": 1}


def rates(num_steps, *, resumed_at=None):
    """Learning rate of every step of a training of two levels in turn."""
    flows = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])

    def make():
        optimiser = torch.optim.Adam(flows.parameters(), 2e-4)
        counts = [lambda flow=flow: steps_taken(optimiser, flow.parameters()) for flow in flows]
        follow_cosine(optimiser, num_steps=num_steps, taken=lambda: sum(count() for count in counts))
        return optimiser

    optimiser, seen = make(), []
    for step in range(num_steps):
        if step == resumed_at:
            kept = optimiser.state_dict()["state"]
            optimiser = make()
            optimiser.load_state_dict({"state": kept, "param_groups": optimiser.state_dict()["param_groups"]})
        optimiser.zero_grad(set_to_none=True)
        flows[step % 2](torch.ones(1)).sum().backward()
        optimiser.step()
        seen.append(optimiser.param_groups[0]["lr"])
    return seen


def test_learning_rate_warms_up_then_falls_by_a_cosine():
    seen = rates(200)
    assert seen[0] == pytest.approx(2e-5)
    assert seen[8] == pytest.approx(0.55 * 2e-4, rel=0.01)
    assert max(seen) == pytest.approx(2e-4, rel=0.02)
    assert 15 <= int(np.argmax(seen)) <= 17
    assert seen[100] == pytest.approx(1e-4, rel=0.01)
    assert seen[-1] == pytest.approx(2e-7, rel=0.1)
    np.testing.assert_array_less(np.diff(seen[17:]), 0.0)


def test_learning_rate_goes_on_after_a_resume():
    assert rates(40, resumed_at=15) == rates(40)
