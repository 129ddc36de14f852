"""Statistics of batch normalisations are a function of the weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.nn.blocks import conv_norm  # noqa: E402
from lineproof.detectors.nn.calibration import calibration_parts, recalibrate  # noqa: E402


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
