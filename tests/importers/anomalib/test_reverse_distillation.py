"""Reverse Distillation from anomalib's tensors equals its formulas, written down here in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
F = torch.nn.functional
ndimage = pytest.importorskip("scipy.ndimage")

from lineproof.core.errors import BadInputError  # noqa: E402

#: backbone → expansion of its blocks, convolutions of a block, blocks per stage of the decoder, those of the embedding,
#: width of a decoder's block for 64 planes.
STUDENTS = {"resnet18": (1, 2, (2, 2, 2), 2, 64), "wide_resnet50_2": (4, 3, (3, 4, 6), 3, 128)}
LAYERS = ("layer1", "layer2", "layer3")


def teacher(backbone):
    torch.manual_seed(0)
    return timm.create_model(backbone, features_only=True, out_indices=(1, 2, 3)).eval()


def draw(drawn, backbone):
    """The tensors of anomalib's model, by their shapes."""
    drawn.network("encoder.feature_extractor", teacher(backbone))
    expansion, _, depths, embedding_depth, base = STUDENTS[backbone]
    for name, planes_in, planes in (("1", 64, 128), ("2", 128, 256), ("3", 128, 256)):
        drawn.layer(f"bottleneck.conv{name}", planes * expansion, planes_in * expansion, 3, 3, has_bias=False)
        drawn.norm(f"bottleneck.bn{name}", planes * expansion)
    drawn.layer("bottleneck.conv4", 512 * expansion, 1024 * expansion, 1, 1, has_bias=False)
    drawn.norm("bottleneck.bn4", 512 * expansion)
    _draw_stage(drawn, "bottleneck.bn_layer", 768 * expansion, 512, (backbone, embedding_depth, 512, False))
    channels = 512 * expansion
    for number, (planes, depth) in enumerate(zip((256, 128, 64), depths, strict=True), start=1):
        _draw_stage(drawn, f"decoder.layer{number}", channels, planes, (backbone, depth, planes * base // 64, True))
        channels = planes * expansion
    return drawn.state


def _draw_stage(drawn, name, channels_in, planes, what):
    backbone, depth, width, grows = what
    expansion = STUDENTS[backbone][0]
    channels_out = planes * expansion
    for block in range(depth):
        here = f"{name}.{block}"
        grown = grows and block == 0
        if expansion == 1:
            shapes = [(planes, channels_in, 3), (planes, planes, 3)]
        else:
            shapes = [(width, channels_in, 1), (width, width, 3), (channels_out, width, 1)]
        changing = 0 if expansion == 1 else 1
        for number, (out, into, kernel) in enumerate(shapes):
            if grown and number == changing:
                drawn.grown(f"{here}.conv{number + 1}", into, out)
            else:
                drawn.layer(f"{here}.conv{number + 1}", out, into, kernel, kernel, has_bias=False)
            drawn.norm(f"{here}.bn{number + 1}", out)
        if block == 0:
            shortcut = f"{here}.upsample" if grows else f"{here}.downsample"
            if grows:
                drawn.grown(f"{shortcut}.0", channels_in, channels_out)
            else:
                drawn.layer(f"{shortcut}.0", channels_out, channels_in, 1, 1, has_bias=False)
            drawn.norm(f"{shortcut}.1", channels_out)
        channels_in = channels_out


def normed(state, x, name):
    return F.batch_norm(x, *(state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")))


def stage(state, x, name, *, convolutions, grows):
    """Residual blocks; the convolution that changes the size is the first of two, the second of three."""
    block = 0
    while f"{name}.{block}.conv1.weight" in state:
        here, out, shortcut = f"{name}.{block}", x, x
        for number in range(1, convolutions + 1):
            weight = state[f"{here}.conv{number}.weight"]
            changes = block == 0 and number == convolutions - 1
            if changes and grows:
                out = F.conv_transpose2d(out, weight, stride=2)
            else:
                out = F.conv2d(out, weight, stride=2 if changes else 1, padding=weight.shape[-1] // 2)
            out = normed(state, out, f"{here}.bn{number}")
            out = out.relu() if number < convolutions else out
        if block == 0 and grows:
            shortcut = F.conv_transpose2d(x, state[f"{here}.upsample.0.weight"], stride=2)
            shortcut = normed(state, shortcut, f"{here}.upsample.1")
        elif block == 0:
            shortcut = F.conv2d(x, state[f"{here}.downsample.0.weight"], stride=2)
            shortcut = normed(state, shortcut, f"{here}.downsample.1")
        x = (out + shortcut).relu()
        block += 1
    return x


def reference(state, backbone, images, *, multiplies):
    maps = teacher(backbone).double()(images)
    convolutions = STUDENTS[backbone][1]

    def halved(x, number):
        weight = state[f"bottleneck.conv{number}.weight"]
        return normed(state, F.conv2d(x, weight, stride=2, padding=1), f"bottleneck.bn{number}").relu()

    fused = torch.cat([halved(halved(maps[0], 1), 2), halved(maps[1], 3), maps[2]], 1)
    item = stage(state, fused, "bottleneck.bn_layer", convolutions=convolutions, grows=False)
    restored = []
    for number in (1, 2, 3):
        item = stage(state, item, f"decoder.layer{number}", convolutions=convolutions, grows=True)
        restored.insert(0, item)
    grown = [
        F.interpolate(
            1.0 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))[:, None],
            images.shape[2:],
            mode="bilinear",
            align_corners=True,
        )[:, 0]
        for a, b in zip(maps, restored, strict=True)
    ]
    joined = grown[0] * grown[1] * grown[2] if multiplies else sum(grown)
    return np.stack([ndimage.gaussian_filter(item, 4.0, mode="mirror") for item in joined.numpy()])


@pytest.mark.parametrize(
    ("backbone", "mode"),
    [("resnet18", "add"), ("resnet18", "multiply"), pytest.param("wide_resnet50_2", "add", marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_it_is_anomalibs_function(imported, drawn, backbone, mode):
    settings = {"backbone": backbone, "layers": LAYERS, "anomaly_map_mode": mode, "pre_trained": True}
    detector = imported(draw(drawn, backbone), settings, size=(64, 96))
    images = torch.randn(2, 3, 64, 96, generator=drawn.generator)
    want = reference(drawn.double(), backbone, images.double(), multiplies=mode == "multiply")
    assert np.ptp(want) > 0.05
    for score, anomaly_map in (detector(images), detector.lower().eval()(images)):
        np.testing.assert_allclose(anomaly_map.numpy(), want, rtol=0, atol=1e-5 * np.ptp(want))
        np.testing.assert_allclose(score.numpy(), want.max((1, 2)), rtol=1e-5)


def test_other_layers_are_refused(imported, drawn):
    settings = {"backbone": "resnet18", "layers": ["layer2", "layer3"]}
    with pytest.raises(
        BadInputError, match=r"layers = \['layer2', 'layer3'\]; expected \['layer1', 'layer2', 'layer3'\]"
    ):
        imported(draw(drawn, "resnet18"), settings)


def test_an_unknown_mode_is_refused(imported, drawn):
    with pytest.raises(BadInputError, match="anomaly_map_mode 'max'; expected add or multiply"):
        imported(draw(drawn, "resnet18"), {"backbone": "resnet18", "anomaly_map_mode": "max"})


def test_what_is_not_known_is_named(imported, drawn):
    state = draw(drawn, "resnet18") | {"decoder.layer4.0.conv1.weight": torch.zeros(1)}
    with pytest.raises(BadInputError, match=r"model\.decoder\.layer4\.0\.conv1\.weight"):
        imported(state, {"backbone": "resnet18"})
