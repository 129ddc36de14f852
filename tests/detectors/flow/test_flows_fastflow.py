"""Lowered FastFlow flows equal FrEIA's, away from the initialisation where many folds would be invisible."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("FrEIA")

from torch import nn  # noqa: E402

from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.flow.fastflow import FastFlow, FastFlowConfig, _subnet, likelihood_map, normalise  # noqa: E402
from lineproof.detectors.flow.flows import LoweredFlow, build_flow  # noqa: E402
from lineproof.detectors.nn.graph import SmoothUpsample  # noqa: E402
from lineproof.detectors.training.train import image_set  # noqa: E402

SIZE = (5, 3)
#: channels, steps, only 3x3 kernels
FLOWS = [(16, 4, False), (16, 4, True), (7, 5, False), (9, 1, True), (2, 3, False), (3, 8, False)]


def random_flow(channels, steps, only_3x3, *, seed=0):
    """A flow as after long training: global scales and offsets of both signs, outputs of order one."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    config = FastFlowConfig(steps=steps, only_3x3=only_3x3)
    flow = build_flow(channels, SIZE, steps=steps, clamp=config.clamp, subnet=lambda step: _subnet(config, step))
    with torch.no_grad():
        for block in flow.module_list:
            # 0.1 · softplus(g, beta 0.5) lies around one where g lies around ten.
            block.global_scale.copy_(10.0 + 4.0 * torch.randn_like(block.global_scale))
            block.global_offset.copy_(0.7 * torch.randn_like(block.global_offset))
            for layer in (block.subnet[0], block.subnet[2]):
                layer.weight.mul_(2.0)
                layer.bias.copy_(torch.randn_like(layer.bias))
    return flow.eval()


def reference_energy(flow, maps):
    """Channel mean of z² by FrEIA in float64."""
    with torch.no_grad():
        return flow.double()(maps.double())[0].square().mean(1)


def relative_error(lowered, want, maps):
    with torch.no_grad():
        return float((lowered(maps).double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize(("channels", "steps", "only_3x3"), FLOWS)
def test_lowered_flow_equals_freia(channels, steps, only_3x3):
    flow = random_flow(channels, steps, only_3x3)
    maps = torch.randn(2, channels, *SIZE, generator=torch.Generator().manual_seed(1))
    lowered = LoweredFlow(flow)
    assert relative_error(lowered, reference_energy(flow, maps), maps) < 1e-5


def test_kernels_alternate_from_three():
    flow = random_flow(8, 4, False)
    assert [block.subnet[0].kernel_size for block in flow.module_list] == [(3, 3), (1, 1), (3, 3), (1, 1)]
    assert {block.subnet[0].kernel_size for block in random_flow(8, 4, True).module_list} == {(3, 3)}


@pytest.mark.parametrize(
    "place", ["couplings.0.first.weight", "couplings.2.last.weight", "couplings.1.last.bias", "couplings.2.offset",
              "couplings.1.order", "offset", "energy.weight"]
)  # fmt: skip
def test_a_broken_fold_is_seen(place):
    flow = random_flow(16, 4, False)
    maps = torch.randn(2, 16, *SIZE, generator=torch.Generator().manual_seed(1))
    want = reference_energy(flow, maps)
    lowered = LoweredFlow(flow)
    value = lowered.state_dict()[place]
    with torch.no_grad():
        value.copy_(value.roll(1, 0) if place.endswith("order") else value * 1.01)
    assert relative_error(lowered, want, maps) > 1e-5


def test_offsets_reach_padded_convolutions_only_inside():
    """A pending offset must be added before the padding, not folded into a bias: borders differ from the interior."""
    flow = random_flow(8, 3, True)
    maps = torch.zeros(1, 8, *SIZE)
    want = reference_energy(flow, maps)
    assert float((want[0, 0, 0] - want[0, 2, 2]).abs()) > 1e-3
    assert relative_error(LoweredFlow(flow), want, maps) < 1e-5


def test_lowered_flow_has_no_gradient_and_fewer_operations():
    lowered = LoweredFlow(random_flow(16, 4, False))
    assert not [name for name, item in lowered.named_parameters() if item.requires_grad]
    assert {type(module) for module in lowered.modules() if not list(module.children())} <= {nn.Conv2d}


def test_layer_normalisation_is_torchs():
    maps = 3.0 + 5.0 * torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = nn.functional.layer_norm(maps, maps.shape[1:])
    np.testing.assert_allclose(normalise(maps).numpy(), want.numpy(), rtol=0, atol=1e-12)


def test_likelihood_is_the_mean_over_maps_upsampled():
    energies = [torch.rand(2, 4, 4) * 3, torch.rand(2, 2, 2) * 3]
    upsamples = nn.ModuleList(SmoothUpsample((size, size), (16, 16), sigma=0.0, align_corners=False) for size in (4, 2))
    score, anomaly_map = likelihood_map(energies, upsamples)
    grown = [
        nn.functional.interpolate(-torch.exp(-0.5 * item[:, None]), (16, 16), mode="bilinear", align_corners=False)
        for item in energies
    ]
    want = torch.cat(grown, 1).mean(1)
    np.testing.assert_allclose(anomaly_map.numpy(), want.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(score.numpy(), anomaly_map.flatten(1).max(1).values.numpy())
    assert float(anomaly_map.min()) >= -1.0
    assert float(anomaly_map.max()) <= 0.0


def test_weight_decay_is_small_beside_the_gradient(dataset, monkeypatch):
    """The likelihood is summed over dimensions: divided by their number, the decay would rule the global scales."""
    settings = FastFlow.quick_settings() | {"resize_px": 64, "crop_px": 64, "steps": 2, "epochs": 3}
    detector = build_detector("fastflow", make_config("fastflow", settings))
    scales = [block.global_scale for flow in detector.flows for block in flow.module_list]
    ratios, step = [], torch.optim.Adam.step

    def noted(optimiser, *arguments, **options):
        decay = torch.cat([optimiser.param_groups[0]["weight_decay"] * item.detach().flatten() for item in scales])
        gradient = torch.cat([item.grad.flatten() for item in scales])
        ratios.append(float(decay.norm() / gradient.norm()))
        return step(optimiser, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    paths = [sample.path for sample in dataset.train]
    report = detector.fit(image_set(detector, paths[:8]), image_set(detector, paths[8:]), context=FitContext())
    num_values = sum(
        channels * math.prod(size) for channels, size in zip(detector.backbone.channels, detector.sizes, strict=True)
    )
    assert len(ratios) == 6
    assert max(ratios) < 1e-3
    # Beside a mean over dimensions it would be large even at this size, a hundredth of the paper's.
    assert min(ratios) * num_values > 0.1
    # What is reported is the loss per dimension.
    assert abs(report["best_holdout_loss"]) < 2.0
