"""CFlow from anomalib's tensors equals its formulas for one image, written down here in float64."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("FrEIA")
F = torch.nn.functional

from lineproof.core.errors import BadInputError  # noqa: E402

CHANNELS = (128, 256, 512)
STEPS, CLAMP = 2, 1.3
SETTINGS = {
    "backbone": "resnet18", "coupling_blocks": STEPS, "clamp_alpha": CLAMP, "fiber_batch_size": 64,
    "decoder": "freia-cflow", "condition_vector": 128, "permute_soft": False, "lr": 1e-4, "pre_trained": True,
}  # fmt: skip


def teacher(num_levels):
    torch.manual_seed(0)
    return timm.create_model("resnet18", features_only=True, out_indices=tuple(range(2, 2 + num_levels))).eval()


def draw(drawn, num_levels, *, rotates):
    """The tensors of anomalib's model, by their shapes."""
    drawn.network("encoder.feature_extractor", teacher(num_levels))
    for level, channels in enumerate(CHANNELS[:num_levels]):
        for step in range(STEPS):
            name = f"decoders.{level}.module_list.{step}"
            # γ = 0.1 · softplus(g) with beta 0.5 lies around one where g lies around ten.
            drawn.uniform(f"{name}.global_scale", 1, channels, low=8.0, high=12.0)
            drawn.normal(f"{name}.global_offset", 1, channels, scale=0.3)
            gauss = torch.randn(channels, channels, generator=drawn.generator)
            order = torch.randperm(channels, generator=drawn.generator)
            matrix = torch.linalg.qr(gauss)[0] if rotates else torch.eye(channels)[order]
            drawn.state |= {f"{name}.w_perm": matrix, f"{name}.w_perm_inv": matrix.T.contiguous()}
            seen = channels - channels // 2 + 128
            drawn.layer(f"{name}.subnet.0", 2 * seen, seen)
            drawn.layer(f"{name}.subnet.2", channels // 2 * 2, 2 * seen)
            # Features of a random network hardly vary: without a gain nor would the likelihoods.
            drawn.state[f"{name}.subnet.2.weight"] *= 5.0
    return drawn.state


def code(y, x):
    """64 values of the column, then 64 of the row."""
    values = []
    for place in (x, y):
        for pair in range(32):
            angle = place / 10000.0 ** (2 * pair / 64)
            values += [math.sin(angle), math.cos(angle)]
    return values


def likelihoods(state, name, maps):
    """log N(z; 0, 1) + log|J|, over C, of one image's vectors: (h, w)."""
    _, channels, height, width = maps.shape
    z = maps[0].permute(1, 2, 0).reshape(-1, channels)
    codes = torch.tensor([code(y, x) for y in range(height) for x in range(width)], dtype=torch.float64)
    log_jacobian = torch.zeros(len(z), dtype=torch.float64)
    for step in range(STEPS):
        here = {key: state[f"{name}.module_list.{step}.{key}"] for key in ("global_scale", "global_offset", "w_perm")}
        first, second = z[:, : channels - channels // 2], z[:, channels - channels // 2 :]
        hidden = torch.cat([first, codes], 1)
        for layer in (0, 2):
            weight, bias = (state[f"{name}.module_list.{step}.subnet.{layer}.{leaf}"] for leaf in ("weight", "bias"))
            hidden = hidden @ weight.T + bias
            hidden = hidden.relu() if layer == 0 else 0.1 * hidden
        log_scale = CLAMP * hidden[:, : channels // 2].tanh()
        second = second * log_scale.exp() + hidden[:, channels // 2 :]
        gain = 0.1 * torch.log1p((0.5 * here["global_scale"]).exp()) / 0.5
        z = (torch.cat([first, second], 1) * gain + here["global_offset"]) @ here["w_perm"].T
        log_jacobian += log_scale.sum(1) + gain.log().sum()
    density = -0.5 * z.square().sum(1) - 0.5 * channels * math.log(2.0 * math.pi)
    return ((density + log_jacobian) / channels).reshape(height, width)


def reference(state, num_levels, image):
    """anomalib's map of a batch of this image alone."""
    total = 0.0
    for level, maps in enumerate(teacher(num_levels).double()(image[None])):
        values = likelihoods(state, f"decoders.{level}", maps)
        probability = (values - values.max()).exp()[None, None]
        total = total + F.interpolate(probability, image.shape[1:], mode="bilinear", align_corners=True)[0, 0]
    return (total.max() - total).numpy()


@pytest.mark.parametrize("rotates", [False, True])
@pytest.mark.parametrize("num_levels", [3, 2])
@torch.no_grad()
def test_it_is_anomalibs_function_of_one_image(imported, drawn, num_levels, rotates):
    settings = SETTINGS | {"layers": ("layer2", "layer3", "layer4")[:num_levels]}
    detector = imported(draw(drawn, num_levels, rotates=rotates), settings, size=(64, 96))
    images = torch.randn(3, 3, 64, 96, generator=drawn.generator)
    want = np.stack([reference(drawn.double(), num_levels, image) for image in images.double()])
    assert np.ptp(want) > 0.1
    for score, anomaly_map in (detector(images), detector.lower().eval()(images)):
        np.testing.assert_allclose(anomaly_map.numpy(), want, rtol=0, atol=1e-5 * np.ptp(want))
        np.testing.assert_allclose(score.numpy(), want.max((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"layers": ["layer1", "layer2"]},
            r"layers = \['layer1', 'layer2'\]; expected \['layer2', 'layer3', 'layer4'\]",
        ),
        ({"condition_vector": 64}, "condition_vector = 64; expected 128"),
        ({"temperature": 2}, "temperature = 2"),
    ],
)
def test_other_settings_are_refused(imported, drawn, changed, words):
    with pytest.raises(BadInputError, match=words):
        imported(draw(drawn, 3, rotates=False), SETTINGS | changed)


def test_a_level_that_is_missing_is_named(imported, drawn):
    state = draw(drawn, 3, rotates=False)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("decoders.1.module_list.1.subnet.2")}
    with pytest.raises(
        BadInputError, match=r"(?s)do not fit its settings .*flows\.1\.module_list\.1\.subnet\.2\.weight"
    ):
        imported(state, SETTINGS)
