"""GLOW blocks: FrEIA's against the definition, folded ones against FrEIA's; rotations; folded batch norms."""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("FrEIA")
from torch import nn  # noqa: E402

from lineproof.detectors.flow.glow import (  # noqa: E402
    LoweredGlow,
    Standardise,
    build_glow,
    folded,
    glow_loss,
    pyramid_maps,
    soft_clamp,
)
from lineproof.detectors.flow.rotations import Rotate, fixed_angles, rotation_indices  # noqa: E402
from lineproof.detectors.nn.batch_norm import fold_batch_norm  # noqa: E402

CLAMP = 1.7


def subnet(num_in, num_out):
    return nn.Sequential(nn.Linear(num_in, 16), nn.ReLU(), nn.Linear(16, num_out))


class Lowered(nn.Module):
    def __init__(self, net, gains):
        super().__init__()
        self.first, self.last = net[0], folded(net[2], gains)

    def forward(self, levels):
        return tuple(self.last(torch.relu(self.first(level))) for level in levels)


@pytest.fixture
def flow():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    made = build_glow(7, steps=3, clamp=CLAMP, subnet=lambda _: subnet)
    for item in made.parameters():
        if item.requires_grad:
            item.data *= 2.0
    return made.eval()


def by_definition(flow, x):
    """The blocks as the module's docstring states them, in float64."""

    def dense(net, values):
        first, last = net[0], net[2]
        hidden = np.maximum(values @ first.weight.double().numpy().T + first.bias.double().numpy(), 0)
        return hidden @ last.weight.double().numpy().T + last.bias.double().numpy()

    def moved(values, coefficients):
        s, t = np.split(coefficients, 2, 1)
        s = 0.636 * CLAMP * np.arctan(s / CLAMP)
        return values * np.exp(s) + t, s.sum(1)

    total = 0.0
    blocks = list(flow.module_list)
    for permutation, block in zip(blocks[::2], blocks[1::2], strict=True):
        x = x[:, permutation.perm.numpy()]
        first, second = x[:, : block.split_len1], x[:, block.split_len1 :]
        first, gained = moved(first, dense(block.subnet2, second))
        second, more = moved(second, dense(block.subnet1, first))
        x, total = np.concatenate([first, second], 1), total + gained + more
    return x, total


@torch.no_grad()
def test_the_flow_is_its_definition(flow):
    x = np.random.default_rng(0).normal(size=(5, 7))
    z, log_jacobian = flow(torch.from_numpy(x).float())
    want, want_jacobian = by_definition(flow, x)
    assert np.abs(want - x).max() > 0.5
    np.testing.assert_allclose(z.numpy(), want, rtol=0, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(log_jacobian.numpy(), want_jacobian, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        float(glow_loss(flow, torch.from_numpy(x).float())),
        np.mean(0.5 * (want**2).sum(1) - want_jacobian) / 7,
        rtol=1e-5,
    )


def test_the_log_jacobian_is_the_determinant(flow):
    x = torch.randn(7, generator=torch.Generator().manual_seed(1))
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value[None])[0][0], x)
    np.testing.assert_allclose(
        float(flow(x[None])[1].detach()), float(torch.linalg.slogdet(jacobian.double()).logabsdet), atol=1e-4
    )


def test_the_clamp_bounds_and_is_linear_at_0():
    s = torch.tensor([-1e9, 0.0, 1e-4, 1e9])
    got = (CLAMP * soft_clamp(s, CLAMP)).numpy()
    np.testing.assert_allclose(
        got, [-CLAMP * 0.636 * np.pi / 2, 0, 0.636e-4, CLAMP * 0.636 * np.pi / 2], rtol=1e-5, atol=1e-12
    )


@torch.no_grad()
def test_the_folded_flow_is_the_flow(flow):
    before = {name: item.clone() for name, item in flow.state_dict().items()}
    lowered = LoweredGlow(flow, Lowered).eval()
    levels = tuple(torch.randn(count, 7, generator=torch.Generator().manual_seed(count)) for count in (4, 9))
    for got, level in zip(lowered(levels), levels, strict=True):
        want = flow(level)[0].numpy()
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-5 * np.abs(want).max())
    for name, item in flow.state_dict().items():
        np.testing.assert_array_equal(item.numpy(), before[name].numpy(), err_msg=name)


def test_permutations_follow_the_seed():
    def drawn(seed):
        np.random.seed(seed)  # noqa: NPY002
        flow = build_glow(64, steps=2, clamp=CLAMP, subnet=lambda _: subnet)
        return np.stack([block.perm.numpy() for block in list(flow.module_list)[::2]])

    np.testing.assert_array_equal(drawn(3), drawn(3))
    assert (drawn(3) != drawn(4)).any()
    assert (drawn(3)[0] != drawn(3)[1]).any()


def test_standardise_learns_mean_and_deviation():
    values = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 40.0, 0.0])[:, None]
    values = values + torch.tensor([5.0, -7.0, 2.0])[:, None]
    module = Standardise(3)
    np.testing.assert_array_equal(module(values).numpy(), values.numpy())
    module.learn(values)
    out = module(values).double()
    np.testing.assert_allclose(out.mean((0, 2)).numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(out[:, :2].std((0, 2)).numpy(), 1, atol=1e-2)
    # A constant channel stays finite and small.
    assert float(module(values + 0.1)[:, 2].abs().max()) < 1.0
    maps = values[:, :, :, None]
    np.testing.assert_allclose(module(maps)[..., 0].numpy(), out.float().numpy(), atol=1e-5)


def test_pyramid_takes_every_second_and_fourth_pixel():
    image = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    whole, half, quarter = pyramid_maps(lambda x: (x,), image)
    np.testing.assert_array_equal(whole.numpy(), image.numpy())
    np.testing.assert_array_equal(half.numpy(), image.numpy()[:, :, ::2, ::2])
    np.testing.assert_array_equal(quarter.numpy(), image.numpy()[:, :, ::4, ::4])


@pytest.mark.parametrize("size", [8, 9])
def test_right_angles_only_reorder_pixels(size):
    image = torch.randn(2, 3, size, size)
    views = Rotate((size, size), fixed_angles(4), black=[-1.0, -2.0, -3.0])(image).unflatten(0, (2, 4))
    for turns in range(4):
        np.testing.assert_array_equal(views[:, turns].numpy(), torch.rot90(image, turns, (2, 3)).numpy())


@pytest.mark.parametrize("size", [(65, 65), (41, 123), (123, 41)])
def test_rotations_are_pillows_and_black_outside(size):
    angle = 25.0
    drawing = np.random.default_rng(0).integers(1, 256, size, dtype=np.uint8)
    want = np.asarray(Image.fromarray(drawing).rotate(angle, resample=Image.Resampling.NEAREST))
    image = torch.from_numpy(drawing).float().expand(1, 3, -1, -1)
    got = Rotate(size, torch.tensor([angle], dtype=torch.float64), black=[-1.0, -2.0, -3.0])(image)[0].numpy()
    assert np.mean(np.where(got[0] < 0, 0, got[0]) != want) < 0.005
    for channel in range(3):
        np.testing.assert_array_equal(got[channel, 0, 0], -1.0 - channel)


def test_a_rectangle_keeps_its_frame():
    image = torch.randn(2, 3, 8, 24)
    upright, across, over, back = (
        Rotate((8, 24), fixed_angles(4), black=[-1.0, -2.0, -3.0])(image).unflatten(0, (2, 4)).unbind(1)
    )
    np.testing.assert_array_equal(upright.numpy(), image.numpy())
    np.testing.assert_array_equal(over.numpy(), torch.rot90(image, 2, (2, 3)).numpy())
    middle = image[:, :, :, 8:16]
    for view, turns in ((across, 1), (back, 3)):
        np.testing.assert_array_equal(view[:, :, :, 8:16].numpy(), torch.rot90(middle, turns, (2, 3)).numpy())
        for channel in range(3):
            outside = np.delete(view[:, channel].numpy(), np.s_[8:16], axis=2)
            np.testing.assert_array_equal(outside, -1.0 - channel)


def test_indices_point_at_pixels_or_at_black():
    table = rotation_indices((10, 10), fixed_angles(16)).numpy()
    assert table.shape == (16, 100)
    assert table.dtype == np.int32
    assert table.min() == 0
    assert table.max() == 100
    np.testing.assert_array_equal(table[0], np.arange(100))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
@torch.no_grad()
def test_batch_norm_is_folded(name):
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 2)
            module.bias.normal_(0, 0.1)
    network = network.double()
    before = {key: item.clone() for key, item in network.state_dict().items()}
    made = fold_batch_norm(network, torch.zeros(1, 3, 64, 64).double())
    assert not [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    image = torch.randn(2, 3, 64, 64).double()
    want = network.forward_features(image).numpy()
    np.testing.assert_allclose(made.forward_features(image).numpy(), want, rtol=0, atol=1e-11 * np.abs(want).max())
    for key, item in network.state_dict().items():
        np.testing.assert_array_equal(item.numpy(), before[key].numpy(), err_msg=key)


@torch.no_grad()
def test_a_norm_that_follows_no_convolution_stays():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    network[2].running_mean.normal_()
    made = fold_batch_norm(network.eval(), torch.zeros(1, 3, 4, 4))
    assert [type(module) for module in made][2] is nn.BatchNorm2d
    assert type(made[4]) is not nn.BatchNorm2d
    image = torch.randn(2, 3, 4, 4)
    np.testing.assert_allclose(made(image).numpy(), network(image).numpy(), rtol=0, atol=1e-5)


def test_a_norm_without_statistics_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match="A batch norm without running statistics cannot be folded"):
        fold_batch_norm(network, torch.zeros(1, 3, 4, 4))
