import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.nn.blocks import ConvNorm, fold  # noqa: E402

CONVOLUTIONS = {
    "halved": lambda: torch.nn.Conv2d(5, 3, 3, stride=2, padding=1),
    "dealt": lambda: torch.nn.ConvTranspose2d(5, 3, 2, stride=2, bias=False),
    "overlapping": lambda: torch.nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1, output_padding=1),
    "spread": lambda: torch.nn.ConvTranspose2d(5, 3, 1, stride=2, output_padding=1, bias=False),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("relu", [False, True])
def test_folding_changes_nothing(kind, relu):
    torch.manual_seed(0)
    conv = CONVOLUTIONS[kind]()
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
    assert torch.nn.BatchNorm2d not in kinds
    assert (torch.nn.ConvTranspose2d in kinds) == (kind in ("overlapping", "spread"))
    assert not list(folded.buffers())
