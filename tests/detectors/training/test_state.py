"""The state of a training: a resumed one gets all of it back, and a state that does not fit is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from lineproof.core.errors import BadInputError, LineproofError  # noqa: E402
from lineproof.detectors.base import FitContext  # noqa: E402
from lineproof.detectors.training.schedules import Schedule, WarmCosine  # noqa: E402
from lineproof.detectors.training.state import (  # noqa: E402
    TrainerState,
    check_states,
    kept_tensors,
    read_state,
    restore_tensors,
    write_state,
)
from lineproof.detectors.training.task import BatchSource, LossTask, Optimisation  # noqa: E402
from lineproof.detectors.training.trainer import Trainer  # noqa: E402

VALUES = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


class Values(BatchSource):
    def __len__(self):
        return len(VALUES)

    def __getitem__(self, draw):
        return VALUES[draw.indices]


def network(width=4, seed=0):
    """A network with statistics, and dropout, which draws from torch's own generator."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width), torch.nn.Dropout(0.3), torch.nn.Linear(width, 3)
    )
    module.register_parameter("frozen", torch.nn.Parameter(torch.ones(2), requires_grad=False))
    return module


def fit(module, epochs, run=None, *, unit="step", scheduler=None):
    """Train up to an epoch, which may come before the scheduler's end: the report, and the rate of every step."""
    optimiser = torch.optim.Adam([item for item in module.parameters() if item.requires_grad], 0.01)
    made = scheduler(optimiser) if scheduler else WarmCosine(optimiser, num_steps=18)
    rates = []

    def loss(batch):
        rates.append(optimiser.param_groups[0]["lr"])
        return (module(batch) - batch).square().mean()

    def holdout_loss():
        return float((module(VALUES) - VALUES).abs().mean())

    task = LossTask(
        module,
        Optimisation(optimiser=optimiser, scheduler=made, scheduler_unit=unit),
        source=Values(),
        loss=loss,
        holdout_loss=holdout_loss,
    )
    schedule = Schedule(epochs=epochs, batch_size=2, patience=0, keeps="last")
    report = Trainer(task, schedule=schedule, context=FitContext(run=run)).run()
    return SimpleNamespace(report=report, rates=rates)


SCHEDULERS = {
    "cosine": ("step", lambda optimiser: WarmCosine(optimiser, num_steps=18)),
    "one cycle": ("step", lambda optimiser: torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=18)),
    "exponential": ("epoch", lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)),
    "plateau": (
        "epoch",
        lambda optimiser: torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=0, threshold=0.5),
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_statistics_and_generators_go_on(tmp_path, name):
    unit, scheduler = SCHEDULERS[name]
    whole = network()
    expected = fit(whole, 6, unit=unit, scheduler=scheduler)
    first = fit(network(), 3, tmp_path, unit=unit, scheduler=scheduler)
    resumed = network(seed=7)
    second = fit(resumed, 6, tmp_path, unit=unit, scheduler=scheduler)
    assert first.rates + second.rates == expected.rates
    assert len(set(expected.rates)) > 2
    for key, value in whole.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[key].numpy(), value.numpy(), err_msg=key)
    assert int(resumed[1].num_batches_tracked) == 18
    assert expected.report["best_holdout_loss"] == second.report["best_holdout_loss"]


def test_the_rate_warms_up_then_falls_by_a_cosine():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 2e-4)
    scheduler, seen = WarmCosine(optimiser, num_steps=200), []
    for _ in range(200):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert seen[0] == pytest.approx(2e-5)
    assert seen[8] == pytest.approx(0.55 * 2e-4, rel=0.01)
    assert max(seen) == pytest.approx(2e-4, rel=0.02)
    assert 15 <= int(np.argmax(seen)) <= 17
    assert seen[100] == pytest.approx(1e-4, rel=0.01)
    assert seen[-1] == pytest.approx(2e-7, rel=0.1)
    np.testing.assert_array_less(np.diff(seen[17:]), 0.0)


def changed(path, *, tensors=None, **metadata):
    """Write a state again with other tensors or other metadata; None takes an entry away."""
    with safe_open(path, framework="pt") as file:
        kept = {**file.metadata(), **metadata}
    state = {**load_file(path), **(tensors or {})}
    save_file(state, path, {key: value for key, value in kept.items() if value is not None})


def test_a_state_that_is_not_finite_is_not_gone_on_from(tmp_path):
    path = tmp_path / "trainer.safetensors"
    fit(network(), 1, tmp_path)
    bad = load_file(path)["current/0.weight"]
    bad[0, 1] = torch.nan
    changed(path, tensors={"current/0.weight": bad})
    message = r"trainer\.safetensors cannot be gone on from: current/0\.weight holds 1 value"
    with pytest.raises(BadInputError, match=message):
        fit(network(), 2, tmp_path)


def test_a_state_of_a_former_release_is_refused(tmp_path):
    """It held no buffers, no rates and no generators: the steps that it led to cannot be taken again."""
    path = tmp_path / "trainer.safetensors"
    weights = {name: item for name, item in network().state_dict().items() if name.endswith(("weight", "bias"))}
    tensors = {f"{kind}/{name}": item.clone() for kind in ("current", "best") for name, item in weights.items()}
    tensors |= {"optimiser/0/exp_avg": torch.zeros(4, 3), "optimiser/0/step": torch.tensor(3.0)}
    progress = {"epoch": 1, "best_epoch": 0, "best_loss": 0.5, "seconds": 2.0}
    save_file(tensors, path, {"progress": json.dumps(progress), "epochs": "6"})
    before = path.read_bytes()
    message = (
        r"trainer\.safetensors holds a training in format 1, as another release of lineproof wrote it; this one goes "
        r"on from format 3 only\. Finish it with the release that began it, or train again, into a new --out\."
    )
    for ask in (lambda: fit(network(), 6, tmp_path), lambda: check_states(tmp_path)):
        with pytest.raises(BadInputError, match=message):
            ask()
    assert path.read_bytes() == before


def test_a_state_of_whole_epochs_is_refused(tmp_path):
    """Format 2, whose trainings began from another initialisation or learned another loss."""
    fit(network(), 1, tmp_path)
    changed(tmp_path / "trainer.safetensors", format="2")
    with pytest.raises(BadInputError, match=r"holds a training in format 2, .*from format 3 only\. Finish it with the"):
        fit(network(), 2, tmp_path)


def test_a_state_of_a_later_release_is_refused(tmp_path):
    fit(network(), 1, tmp_path)
    changed(tmp_path / "trainer.safetensors", format="4")
    with pytest.raises(BadInputError, match="holds a training in format 4"):
        fit(network(), 2, tmp_path)


def test_a_broken_state_is_refused(tmp_path):
    (tmp_path / "trainer.safetensors").write_bytes(b"broken")
    with pytest.raises(BadInputError, match=r"trainer\.safetensors cannot be read .* Train again, into a new --out"):
        fit(network(), 2, tmp_path)


@pytest.mark.parametrize("damage", ["shape", "scheduler"])
def test_a_state_of_another_training_is_refused(tmp_path, damage):
    fit(network(), 1, tmp_path)
    if damage == "scheduler":
        changed(tmp_path / "trainer.safetensors", others=json.dumps({"items": []}))
    with pytest.raises(BadInputError, match=r"trainer\.safetensors does not fit what is trained \("):
        fit(network(width=4 if damage == "scheduler" else 5), 2, tmp_path)


def test_frozen_parameters_stay_out_of_the_state_and_buffers_do_not(tmp_path):
    module = network()
    fit(module, 1, tmp_path)
    names = set(load_file(tmp_path / "trainer.safetensors"))
    assert {"current/0.weight", "current/1.running_mean", "current/1.running_var"} <= names
    assert not [name for name in names if "frozen" in name]
    np.testing.assert_array_equal(module.frozen.numpy(), 1.0)
    assert [item.name for item in tmp_path.iterdir()] == ["trainer.safetensors"]


def state(**others):
    return TrainerState(progress={}, epochs=1, current={}, kept={}, ema={}, others=others)


def test_nested_states_come_back_as_they_were(tmp_path):
    path = tmp_path / "trainer.safetensors"
    values = {"a": {0: {"step": torch.tensor(3.0), "none": None}}, "b": [1, 2.5, "word", True, float("inf")], "c": {}}
    write_state(path, state(**values))
    read = read_state(path).others
    assert read["b"] == values["b"]
    assert read["c"] == {}
    assert list(read["a"]) == [0]
    assert read["a"][0]["none"] is None
    np.testing.assert_array_equal(read["a"][0]["step"].numpy(), 3.0)


def test_tensors_that_share_memory_are_written_each(tmp_path):
    path, values = tmp_path / "trainer.safetensors", torch.arange(6.0)
    write_state(path, state(a=values, b=values, c=values[2:4], d=values.view(2, 3).T))
    read = read_state(path).others
    for name, expected in {"a": range(6), "b": range(6), "c": [2, 3], "d": [[0, 3], [1, 4], [2, 5]]}.items():
        np.testing.assert_array_equal(read[name].numpy(), np.array(expected, np.float32))


def test_a_state_that_no_file_can_hold_is_an_error(tmp_path):
    with pytest.raises(
        LineproofError, match=r"others/a/0 is a function, which a trainer's state cannot hold; expected"
    ):
        write_state(tmp_path / "trainer.safetensors", state(a=[network]))
    assert list(tmp_path.iterdir()) == []


def test_only_the_tensors_of_the_same_module_are_restored():
    module = network()
    tensors = kept_tensors(module)
    del tensors["0.bias"]
    with pytest.raises(RuntimeError, match=r"it holds other tensors: 0\.bias"):
        restore_tensors(module, tensors)
