"""CS-Flow: sizes of the paper, the subnet against its definition, lowered against trained, score and map."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("FrEIA")
import torch.nn.functional as F  # noqa: E402

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.flow import csflow  # noqa: E402
from lineproof.detectors.flow.cross_scale import CrossScale  # noqa: E402
from lineproof.detectors.flow.csflow import CsFlow  # noqa: E402
from lineproof.detectors.flow.glow import pack, unpack  # noqa: E402

SIZES = ((8, 8), (4, 4), (2, 2))
SMALL = {
    "backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, "stride": 8, "hidden_channels": 12,
    "steps": 2, "last_kernel": 1,
}  # fmt: skip


def small(**settings):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    return build_detector("csflow", make_config("csflow", SMALL | settings))


def excited(detector):
    """Subnets start at γ = 0, where the flow is but a permutation."""
    for name, item in detector.flow.named_parameters():
        if name.endswith("gamma"):
            item.data.uniform_(0.5, 1.0)
    return detector


@pytest.mark.parametrize(
    ("last_kernel", "extra"), [(1, 148_218_520), (5, 275_227_288)], ids=["seed paper: 148.2 M", "published: 275.2 M"]
)
def test_extra_parameters_are_the_papers(last_kernel, extra):
    config = make_config("csflow", {"weights": "random", "last_kernel": last_kernel})
    with torch.device("meta"):
        detector = CsFlow(config)
    assert detector.extra_parameters() == extra
    assert detector.backbone.channels == (304,)
    assert detector.sizes == ((24, 24), (12, 12), (6, 6))
    assert sum(item.numel() for item in detector.backbone_parameters()) == 17_543_204


def test_other_backbones_give_their_last_map():
    assert small().backbone.channels == (128,)
    assert small().sizes == SIZES


def test_a_size_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(
        UsageError, match=r"crop_px is 64x104; csflow halves maps of stride 8 twice.* multiples of 32\. Set"
    ):
        build_detector("csflow", make_config("csflow", SMALL | {"resize_px": (104, 104), "crop_px": (64, 104)}))


@pytest.mark.parametrize(("width", "columns"), [(64, (2, 1, 1)), (128, (4, 2, 1))])
def test_the_smallest_maps_have_one_position(width, columns):
    size = {"resize_px": (64, width), "crop_px": (64, width)}
    detector = excited(build_detector("csflow", make_config("csflow", SMALL | size | {"stride": 32})))
    assert detector.sizes == tuple(zip((2, 1, 1), columns, strict=True))
    images = torch.randn(2, 3, 64, width)
    with torch.no_grad():
        for got, want in zip(detector.lower().eval()(images), detector(images), strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0, atol=1e-5 * float(want.max()))


def test_packing_is_undone():
    maps = tuple(torch.randn(2, 5, *size) for size in SIZES)
    packed = pack(maps)
    assert packed.shape == (2, 5, 84)
    for got, want in zip(unpack(packed, SIZES), maps, strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("sizes", [SIZES, ((4, 12), (2, 6), (1, 3)), ((12, 2), (6, 1), (3, 1))])
@torch.no_grad()
def test_the_subnet_is_its_definition(sizes):
    torch.manual_seed(0)
    net = CrossScale(3, 6, hidden=5, kernel=3, sizes=sizes)
    packed = torch.randn(2, 3, sum(height * width for height, width in sizes))
    np.testing.assert_array_equal(net(packed).numpy(), 0.0)
    net.gamma.copy_(torch.tensor([0.5, -1.0, 2.0]))

    def conv(layer, x, stride=1):
        return F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=1)

    def like(x, other):
        return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)

    y0, y1, y2 = (F.leaky_relu(conv(layer, x), 0.1) for layer, x in zip(net.first, unpack(packed, sizes), strict=True))
    want = (
        0.5 * (conv(net.same[0], y0) + conv(net.up[0], like(y1, y0))),
        -1.0 * (conv(net.same[1], y1) + conv(net.down[0], y0, 2) + conv(net.up[1], like(y2, y1))),
        2.0 * (conv(net.same[2], y2) + conv(net.down[1], y1, 2)),
    )
    np.testing.assert_allclose(net(packed).numpy(), pack(want).numpy(), rtol=0, atol=1e-5)


@torch.no_grad()
def test_lowered_is_trained():
    detector = excited(small())
    images = torch.randn(3, 3, 64, 64)
    maps = [torch.randn(3, 128, *size) for size in SIZES]
    detector.standardise.learn(pack(tuple(maps)) * 3 + 1)
    lowered = detector.lower().eval()
    values = detector.standardise(pack(tuple(maps)))
    z = detector.flow(values)[0]
    assert abs(float(z.square().mean() / values.square().mean()) - 1) > 0.05
    for got, want in zip(lowered.head(tuple(maps)), unpack(z, SIZES), strict=True):
        want = want.square().mean(1).numpy()
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-5 * want.max())
    for got, want in zip(lowered(images), detector(images), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0, atol=1e-5 * float(want.max()))


@torch.no_grad()
def test_score_is_half_the_mean_square():
    detector = small()  # γ = 0: z is a permutation of the features
    images = torch.randn(2, 3, 64, 64)
    score, anomaly_map = detector(images)
    maps = [detector.backbone(images[:, :, ::step, ::step])[0].numpy() for step in (1, 2, 4)]
    values = np.concatenate([item.reshape(2, -1) for item in maps], 1)
    np.testing.assert_allclose(score.numpy(), 0.5 * (values**2).mean(1), rtol=1e-5)
    want = F.interpolate(
        torch.from_numpy((maps[0] ** 2).mean(1))[:, None], size=(64, 64), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(anomaly_map.numpy(), want[:, 0].numpy(), rtol=0, atol=1e-5 * float(want.max()))


@torch.no_grad()
def test_the_map_may_be_the_product_of_all_scales():
    detector = small(combination="product")  # γ = 0: z is a permutation of the features
    images = torch.randn(2, 3, 64, 64)
    score, anomaly_map = detector(images)
    want = torch.ones(2, 64, 64, dtype=torch.float64)
    for step in (1, 2, 4):
        energy = detector.backbone(images[:, :, ::step, ::step])[0].double().square().mean(1, keepdim=True)
        want *= F.interpolate(energy, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(anomaly_map.numpy(), want.numpy(), rtol=0, atol=1e-5 * float(want.max()))
    np.testing.assert_array_equal(score.numpy(), small()(images)[0].numpy())
    for got, reference in zip(detector.lower().eval()(images), (score, anomaly_map), strict=True):
        np.testing.assert_allclose(got.numpy(), reference.numpy(), rtol=0, atol=1e-5 * float(reference.max()))


@torch.no_grad()
def test_what_leaves_a_block_may_be_cut():
    """Block by block, so that what is cut goes on into the next one; names and weights stay."""
    plain, detector = excited(small()), excited(small(largest=2.0))
    assert list(plain.state_dict()) == list(detector.state_dict())
    detector.load_state_dict(plain.state_dict())
    images = 3.0 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    values = pack(csflow.pyramid_maps(plain.backbone, images))
    for permutation, block in zip(plain.flow.module_list[::2], plain.flow.module_list[1::2], strict=True):
        (values,), _ = block(permutation([values])[0])
        assert float(values.abs().max()) > 2.0
        values = values.clamp(-2.0, 2.0)
    want = tuple(item.square().mean(1) for item in unpack(values, SIZES))
    score = 0.5 * torch.cat([item.flatten(1) for item in want], 1).mean(1)
    lowered = detector.lower().eval()
    for got in (detector(images), lowered(images)):
        np.testing.assert_allclose(got[0].numpy(), score.numpy(), rtol=1e-5)
    for got, item in zip(lowered.head(lowered.backbone(images)), want, strict=True):
        np.testing.assert_allclose(got.numpy(), item.numpy(), rtol=0, atol=1e-5 * float(item.max()))
    assert float(plain(images)[0].min() - score.max()) > 0.1


def test_checkpoints_have_the_names_that_they_had():
    """Those of the release before scales could be multiplied."""
    names = set(small().state_dict())
    assert {"upsample.rows", "upsample.columns", "standardise.mean", "standardise.rate"} < names
    assert {name.partition(".")[0] for name in names} == {"upsample", "standardise", "backbone", "flow"}


def test_gradients_are_no_longer_than_1(monkeypatch):
    """Adam is told gradients of norm 1 at most, as in the paper."""
    seen = []

    class Recorder(torch.optim.Adam):
        def step(self, closure=None):
            gradients = [item.grad for group in self.param_groups for item in group["params"]]
            seen.append(float(torch.stack([item.norm() for item in gradients]).norm()))
            return super().step(closure)

    class Images:
        """Far from what an excited flow thinks likely."""

        values = 30.0 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

        def __len__(self):
            return len(self.values)

        def batch(self, indices):
            return self.values[list(indices)]

    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    for largest in (float("inf"), csflow.LARGEST_NORM):
        monkeypatch.setattr(csflow, "LARGEST_NORM", largest)
        detector = excited(small(epochs=1, batch_size=2))
        detector.fit(Images(), Images(), context=FitContext())
    assert seen[0] > 1.5
    np.testing.assert_allclose(seen[1], 1.0, rtol=1e-4)
