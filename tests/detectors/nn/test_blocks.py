import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.nn.blocks import ConvNorm, calibration_parts, conv_norm, fold, recalibrate  # noqa: E402


@pytest.mark.parametrize("is_grown", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_folding_changes_nothing(is_grown, relu):
    torch.manual_seed(0)
    if is_grown:
        conv = torch.nn.ConvTranspose2d(5, 3, 2, stride=2, bias=False)
    else:
        conv = torch.nn.Conv2d(5, 3, 3, stride=2, padding=1)
    network = torch.nn.Sequential(ConvNorm(conv, relu=relu)).double()
    norm = network[0].norm
    with torch.no_grad():
        for item in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            item.copy_(torch.rand_like(item) + 0.5)
    network.eval()
    maps = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    folded = fold(network)
    with torch.no_grad():
        want, got = network(maps), folded.double()(maps)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0, atol=2e-6)
    kinds = {type(module) for module in folded.modules()}
    assert not kinds & {torch.nn.BatchNorm2d, torch.nn.ConvTranspose2d}
    assert not list(folded.buffers())


def test_recalibration_gives_the_statistics_of_the_batches():
    torch.manual_seed(0)
    network = torch.nn.Sequential(conv_norm(3, 4, 1))
    batches = [torch.randn(2, 3, 5, 5) * scale for scale in (1.0, 3.0)]
    for _ in range(3):
        network.train()(batches[0])
    recalibrate(network, network, batches=batches)
    with torch.no_grad():
        outputs = [network[0].conv(batch) for batch in batches]
    norm = network[0].norm
    means = torch.stack([item.mean((0, 2, 3)) for item in outputs]).mean(0)
    variances = torch.stack([item.var((0, 2, 3)) for item in outputs]).mean(0)
    np.testing.assert_allclose(norm.running_mean.numpy(), means.numpy(), atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), variances.numpy(), rtol=1e-5)
    assert norm.momentum == 0.1
    assert not network.training


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"),
    [
        (3, 8, [[0, 1, 2]]),
        (5, 2, [[0, 1], [2, 3]]),
        (128, 32, [list(range(0, 64, 2)), list(range(64, 128, 2))]),
    ],
)
def test_calibration_images_are_spread_in_equal_batches(num_images, batch_size, expected):
    assert [part.tolist() for part in calibration_parts(num_images, batch_size)] == expected
