"""CS-Flow from anomalib's tensors equals its formulas, written down here in float64, on torchvision's own network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytest.importorskip("FrEIA")
F = torch.nn.functional

from lineproof.core.errors import BadInputError  # noqa: E402

SETTINGS = {"cross_conv_hidden_channels": 6, "n_coupling_blocks": 2, "clamp": 3, "num_channels": 3}
SIZE = (128, 256)
CHANNELS, HALF, CLAMP = 304, 152, 3.0
EXTRACTOR = "feature_extractor.feature_extractor"


@pytest.fixture(scope="module")
def network():
    """An untrained EfficientNet-B5 whose statistics fit its weights, so that its features do not fade away."""
    torch.manual_seed(0)
    network = torchvision.models.efficientnet_b5(weights=None)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = None
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.2)
    for module in network.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.eval()
    with torch.no_grad():
        network.features[:7](torch.randn(2, 3, *SIZE))
    return network.eval()


def draw(drawn, network, *, is_twice=True):
    """The tensors of anomalib's model, by their shapes; releases from 2.x on hold the network twice."""
    state = network.state_dict()
    kept = {
        key: item for key, item in state.items() if key.startswith(tuple(f"features.{stage}." for stage in range(7)))
    }
    drawn.state |= {f"{EXTRACTOR}.feature_extractor.{key}": item for key, item in kept.items()}
    if is_twice:
        drawn.state |= {f"{EXTRACTOR}.backbone.{key}": item for key, item in state.items()}
    hidden = SETTINGS["cross_conv_hidden_channels"]
    for step, kernel in enumerate((3, 5)):
        for net in (1, 2):
            name = f"graph.graph.module_list.{2 * step + 1}.cross_convolution{net}"
            for scale in range(3):
                drawn.layer(f"{name}.conv_scale{scale}_0", hidden, HALF, kernel, kernel)
                drawn.layer(f"{name}.conv_scale{scale}_1", CHANNELS, hidden, kernel, kernel)
                drawn.uniform(f"{name}.gamma{scale}", 1, low=0.1, high=0.2)
            for place in ("up_conv10", "up_conv21", "down_conv01", "down_conv12"):
                drawn.layer(f"{name}.{place}", CHANNELS, hidden, kernel, kernel)
    return drawn.state


def subnet(state, name, levels):
    def conv(place, x, stride=1):
        weight = state[f"{name}.{place}.weight"]
        return F.conv2d(x, weight, state[f"{name}.{place}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def twice(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    a, b, c = (F.leaky_relu(conv(f"conv_scale{scale}_0", x), 0.1) for scale, x in enumerate(levels))
    sums = (
        conv("conv_scale0_1", a) + conv("up_conv10", twice(b)),
        conv("conv_scale1_1", b) + conv("down_conv01", a, 2) + conv("up_conv21", twice(c)),
        conv("conv_scale2_1", c) + conv("down_conv12", b, 2),
    )
    return [x * state[f"{name}.gamma{scale}"] for scale, x in enumerate(sums)]


def moved(halves, coefficients):
    scales = [(0.636 * CLAMP * torch.atan(item[:, :HALF] / CLAMP)).exp() for item in coefficients]
    return [x * scale + item[:, HALF:] for x, scale, item in zip(halves, scales, coefficients, strict=True)]


def reference(state, network, images):
    """Score (N,) and map (N, H, W)."""
    features = network.double().features[:7]
    levels = [features(images[:, :, ::step, ::step]) for step in (1, 2, 4)]
    for step in range(SETTINGS["n_coupling_blocks"]):
        order = np.random.default_rng(step).permutation(CHANNELS)
        levels = [level[:, order] for level in levels]
        name = f"graph.graph.module_list.{2 * step + 1}.cross_convolution"
        first, second = ([level[:, part] for level in levels] for part in (slice(0, HALF), slice(HALF, None)))
        first = moved(first, subnet(state, f"{name}2", second))
        second = moved(second, subnet(state, f"{name}1", first))
        levels = [torch.cat(pair, 1).clamp(-1e6, 1e6) for pair in zip(first, second, strict=True)]
    score = torch.cat([(level**2 / 2).flatten(1) for level in levels], 1).mean(1)
    anomaly_map = torch.ones(len(images), 1, *images.shape[2:], dtype=torch.float64)
    for level in levels:
        energy = (level**2).mean(1, keepdim=True)
        anomaly_map *= F.interpolate(energy, images.shape[2:], mode="bilinear", align_corners=False)
    network.float()
    return score.numpy(), anomaly_map[:, 0].numpy()


@torch.no_grad()
def test_it_is_anomalibs_function(imported, drawn, network):
    detector = imported(draw(drawn, network), SETTINGS, size=SIZE)
    images = torch.randn(2, 3, *SIZE, generator=drawn.generator)
    want = reference(drawn.double(), network, images.double())
    assert abs(want[0][0] / want[0][1] - 1.0) > 1e-3
    assert np.ptp(want[1]) > 0.3 * want[1].max()
    for got in (detector(images), detector.lower().eval()(images)):
        np.testing.assert_allclose(got[0].numpy(), want[0], rtol=1e-5)
        np.testing.assert_allclose(got[1].numpy(), want[1], rtol=0, atol=2e-5 * want[1].max())


def test_a_release_that_holds_the_network_once_is_known(imported, drawn, network):
    detector = imported(draw(drawn, network, is_twice=False), SETTINGS, size=SIZE)
    assert (detector.config.steps, detector.config.hidden_channels, detector.config.largest) == (2, 6, 1e6)


def test_a_size_that_cannot_be_halved_is_refused(imported, drawn, network):
    with pytest.raises(BadInputError, match="crop_px is 128x160; csflow halves maps of stride 32 twice"):
        imported(draw(drawn, network), SETTINGS, size=(128, 160))
