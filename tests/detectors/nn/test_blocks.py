import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.nn.blocks import ConvNorm, fold  # noqa: E402


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
