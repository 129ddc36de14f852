"""What benchmarks/costs.py counts, held to counts by hand: grids, gradients, and gradients of gradients."""

import importlib.util
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[1]
#: Operations of both layers below, two per product: 8 channels of 4³ cells, each from or to 3 × 4³ values.
ONCE = 2 * (8 * 4**3) * (3 * 4**3)


@pytest.fixture(scope="module")
def costs():
    spec = importlib.util.spec_from_file_location("benchmark_of_costs", ROOT / "benchmarks" / "costs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layer(*, is_transposed):
    torch.manual_seed(0)
    if is_transposed:
        return torch.nn.ConvTranspose3d(8, 3, 4, 2, 1, bias=False), torch.randn(1, 8, 4, 4, 4, requires_grad=True)
    return torch.nn.Conv3d(3, 8, 4, 2, 1, bias=False), torch.randn(1, 3, 8, 8, 8, requires_grad=True)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_step_counts_its_layer_three_times(is_transposed, costs):
    network, values = layer(is_transposed=is_transposed)
    with costs.operations() as counter:
        loss = network(values).sum()
        forward = counter.get_total_flops()
        loss.backward()
    assert forward == ONCE
    assert counter.get_total_flops() == 3 * ONCE  # forward, gradient of the values, gradient of the weights


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_gradient_penalty_counts_its_layer_four_times(is_transposed, costs):
    """Forward; the gradient of the values; and that one's own, by the weights and by what came from the next layer."""
    network, values = layer(is_transposed=is_transposed)
    live = costs._Live()
    with costs.operations() as counter, live.hooks():
        (slope,) = torch.autograd.grad(network(values).sum(), values, create_graph=True)
        slope.square().sum().backward()
    assert counter.get_total_flops() == 4 * ONCE
    counted = network.weight.grad.clone()
    network.weight.grad = None
    (slope,) = torch.autograd.grad(network(values).sum(), values, create_graph=True)
    slope.square().sum().backward()
    assert counted.abs().max() > 0
    torch.testing.assert_close(network.weight.grad, counted, rtol=0, atol=0)


def test_small_widths_tell_a_large_one(costs, monkeypatch):
    """Operations of a network whose layers have 3 → w → 2 w → 1 channels: 3 w + 2 w² + 2 w products at each place."""
    counted = []

    def fit(name, settings, *, num_images):
        width = settings["width"]
        counted.append((name, width, num_images))
        with costs.operations() as counter:
            torch.nn.Sequential(
                torch.nn.Conv3d(3, width, 1), torch.nn.Conv3d(width, 2 * width, 1), torch.nn.Conv3d(2 * width, 1, 1)
            )(torch.zeros(1, 3, 2, 2, 2))
        return {"flop": counter.get_total_flops()}

    monkeypatch.setattr(costs, "_fit", fit)
    told = costs._at_width("voxel_gan", {}, width=64, num_scans=5)
    assert told == {"flop": pytest.approx(2 * 8 * (3 * 64 + 2 * 64**2 + 2 * 64), rel=1e-12)}
    assert counted == [("voxel_gan", width, 5) for width in (2, 4, 8)]


def test_the_page_of_costs_is_rendered_from_its_figures(costs):
    page, kept = (ROOT / "docs" / "reproduce.md").read_text(), json.loads(costs.DATA.read_text())
    inside = page.partition(costs.START)[2].partition(costs.END)[0]
    assert inside.strip() == costs.table(kept, teraflops=10.0).strip(), "run: python benchmarks/costs.py --render"
