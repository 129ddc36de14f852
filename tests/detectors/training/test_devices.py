"""Devices by name, moves to them, and what float32 means there; a GPU is imitated where none is needed."""

from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")

from lineproof.core.errors import EnvironmentMissingError  # noqa: E402
from lineproof.detectors.training.devices import (  # noqa: E402
    current,
    describe_device,
    find_device,
    full_precision,
    moved,
)

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes torch find so many GPUs."""

    def set_count(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return set_count


@pytest.mark.parametrize(
    ("name", "device"), [("cpu", CPU), ("cuda", torch.device("cuda", 0)), ("cuda:1", torch.device("cuda", 1))]
)
def test_a_device_that_is_there_is_found_by_its_name(gpus, name, device):
    gpus(2)
    assert find_device(name) == device


@pytest.mark.parametrize(
    ("count", "name", "there"), [(1, "cuda:1", "cuda:0 alone"), (4, "cuda:4", "cuda:0 to cuda:3"), (4, "cuda:44", "3")]
)
def test_an_index_that_no_gpu_has_is_refused_with_those_that_are_there(gpus, count, name, there):
    gpus(count)
    with pytest.raises(EnvironmentMissingError, match=rf"is {name}, and torch finds .*{there}\. Give one of these"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_no_gpu_is_never_a_cpu(gpus, name):
    gpus(0)
    with pytest.raises(EnvironmentMissingError, match=rf"is {name}, and torch .* finds no CUDA GPU"):
        find_device(name)


def test_the_gpu_of_the_training_is_the_current_one(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: seen.append(device) or current(CPU))
    with current(torch.device("cuda", 1)), current(CPU):
        assert seen == [torch.device("cuda", 1)]


def test_a_batch_moves_whole_and_keeps_its_form():
    """To the device ``meta``, which every machine has."""
    batch = (torch.zeros(2), {"a": [torch.ones(1), "word"]}, None)
    first, second, third = moved(batch, torch.device("meta"))
    assert first.device.type == second["a"][0].device.type == "meta"
    assert (second["a"][1], third) == ("word", None)
    assert isinstance(second["a"], list)
    assert moved(batch, CPU)[0] is batch[0]

    class Pair(NamedTuple):
        first: torch.Tensor
        second: torch.Tensor

    pair = moved(Pair(torch.zeros(1), torch.ones(2)), torch.device("meta"))
    assert isinstance(pair, Pair)
    assert pair.second.shape == (2,)


def test_only_copies_to_a_gpu_are_not_waited_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda _, device, *, non_blocking: asked.append((device, non_blocking)))
    for name in ("cpu", "cuda:1"):
        moved([torch.zeros(1)], torch.device(name))
    assert asked == [(CPU, False), (torch.device("cuda", 1), True)]


def test_in_full_precision_nothing_is_rounded_and_what_was_set_comes_back():
    device = torch.device("cuda", 1)
    before = describe_device(device)
    assert before == {"device": "cuda:1", "fp32": {"matrix products": "none", "convolutions": "tf32"}}, "torch's own"
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with full_precision():
            assert set(describe_device(device)["fp32"].values()) == {"ieee"}
        assert set(describe_device(device)["fp32"].values()) == {"tf32"}
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert describe_device(device) == before


def test_of_a_cpu_nothing_is_recorded():
    assert describe_device(CPU) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_in_full_precision_a_gpu_convolves_as_a_cpu():
    """Inputs rounded to 10 bits of mantissa would be off by 1e-4 of the values."""
    torch.manual_seed(0)
    images, weight = torch.randn(2, 256, 32, 32), torch.randn(256, 256, 3, 3) / 48
    want = torch.nn.functional.conv2d(images.double(), weight.double())
    with full_precision():
        got = torch.nn.functional.conv2d(*moved((images, weight), torch.device("cuda"))).cpu()
    assert float((got - want).abs().max()) < 2e-5 * float(want.abs().max())
