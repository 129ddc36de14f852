"""Autoencoders and GANs of scans: losses and scores worked out by NumPy, folding, copies, and what is refused."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.training.task import Draw  # noqa: E402
from lineproof.detectors.volume.copies import Copies, CopySource  # noqa: E402
from lineproof.detectors.volume.networks import Generator, Shape, encoder  # noqa: E402
from lineproof.detectors.volume.restoring import DepthScore, folded  # noqa: E402
from lineproof.detectors.volume.voxel_ae import empty_share, weighted_loss  # noqa: E402

DEPTH = {"resize_px": 64, "crop_px": 64, "copies": 1, "latent": 8, "batch_size": 4}
VOXEL = {"num_cells": 16, "copies": 1, "latent": 8, "batch_size": 4, "width": 4}
GAN = {"residual": "false", "generator_steps": 2, "encoder_steps": 2, "width": 4}
FITS = {
    "depth_ae": DEPTH | {"epochs": 2},
    "voxel_ae": VOXEL | {"epochs": 2},
    "depth_gan": DEPTH | GAN,
    "voxel_gan": VOXEL | GAN,
}


def test_occupied_cells_weigh_more_in_the_loss():
    rng = np.random.default_rng(0)
    grids = np.where(rng.random((2, 1, 4, 4, 4)) < 0.2, rng.random((2, 3, 4, 4, 4)), -1.0)
    restored = rng.uniform(-1, 1, grids.shape)
    is_empty = (grids == -1.0).all(1, keepdims=True)
    weight = np.where(is_empty, 1.0, 4.0)
    wanted = np.mean(weight * (grids - restored) ** 2) / weight.mean()
    got = weighted_loss(torch.from_numpy(grids), torch.from_numpy(restored), 4.0)
    assert got.item() == pytest.approx(wanted, rel=1e-9)


def test_empty_share_is_counted(brackets, fit_of):
    fit = fit_of("voxel_ae", **FITS["voxel_ae"])
    scans = fit.scans_of(brackets.train)
    grids = scans.batch(range(len(scans)))[0].numpy()
    assert set(np.unique(grids)) == {-1.0, 1.0}
    assert empty_share(scans) == pytest.approx(float((grids == -1.0).mean()), abs=1e-6)
    assert 0.5 < fit.record.fit["empty_share"] < 1.0


@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_depth_score_sums_over_channels_and_leaves_lost_pixels_out(error):
    rng = np.random.default_rng(1)
    images, restored = rng.random((2, 2, 4, 5, 6)).astype(np.float32)
    measured = (rng.random((2, 1, 5, 6)) < 0.7).astype(np.float32)
    apart = (images - restored) ** 2 if error == "squared" else abs(images - restored)
    tensors = tuple(torch.from_numpy(item) for item in (images, measured, restored))
    for is_masked in (False, True):
        kept = apart.copy()
        kept[:, :1] *= measured if is_masked else 1.0
        score, anomaly_map = DepthScore(error, is_masked=is_masked)(tensors)
        np.testing.assert_allclose(anomaly_map.numpy(), kept.sum(1), rtol=1e-6)
        np.testing.assert_allclose(score.numpy(), kept.sum(1).max((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("dims", "side"), [(2, 32), (3, 16)])
def test_folded_networks_compute_the_same(dims, side, residual):
    torch.manual_seed(0)
    shape = Shape(dims=dims, channels=2, side=side, width=4, residual=residual)
    for network, given in (
        (encoder(shape, 6), torch.rand(3, 2, *[side] * dims)),
        (Generator(shape, 6), torch.randn(3, 6)),
    ):
        for item in network.modules():
            if isinstance(item, nn.BatchNorm2d | nn.BatchNorm3d):
                item.running_mean.uniform_(-1, 1)
                item.running_var.uniform_(0.2, 3)
                nn.init.uniform_(item.weight, 0.5, 2)
                nn.init.uniform_(item.bias, -1, 1)
        network.eval()
        lowered = folded(network)
        with torch.inference_mode():
            torch.testing.assert_close(lowered(given), network(given), rtol=1e-4, atol=1e-5)
        left = sum(isinstance(item, nn.BatchNorm2d | nn.BatchNorm3d) for item in lowered.modules())
        assert residual or left == 0
        assert not any(item.requires_grad for item in lowered.parameters())
        assert any(item.requires_grad for item in network.parameters()), "the trained form stays as it was"


@pytest.mark.parametrize("name", sorted(FITS))
@pytest.mark.parametrize("rgb", [False, True])
def test_the_score_is_what_was_not_restored(name, rgb, brackets, fit_of):
    fit = fit_of(name, rgb=str(rgb).lower(), **FITS[name])
    detector = fit.detector
    values, beside = fit.scans_of(brackets.test).batch(range(3))
    with torch.inference_mode():
        score, anomaly_map = detector((values, beside))
        apart = ((values - detector.decoder(detector.encoder(values))) ** 2).sum(1).numpy()
    np.testing.assert_allclose(score.numpy(), anomaly_map.flatten(1).amax(1).numpy(), rtol=1e-6)
    if name.startswith("depth"):
        np.testing.assert_allclose(anomaly_map.numpy(), apart, rtol=1e-5, atol=1e-6)
        return
    own = np.take_along_axis(np.pad(apart.reshape(3, -1), ((0, 0), (0, 1))), beside.numpy(), 1)
    assert (anomaly_map.flatten(1).numpy() >= own - 1e-5).all(), "a pixel scores at least what its own cell does"


def test_copies_drawn_one_by_one_are_those_drawn_together(brackets, fit_of):
    scans = fit_of("depth_ae", **FITS["depth_ae"]).scans_of(brackets.train[:3])
    copies = Copies(num=2, largest_deg=5.0)
    source = CopySource(scans, copies, seed=4)
    assert len(source) == 9
    together = torch.cat([scans.parts(copies.of(scans, index, seed=4))[0] for index in range(3)])
    drawn, _ = source[Draw(indices=torch.tensor([7, 0, 5]), epoch=1, step=3, seed=0)]
    assert torch.equal(drawn, together[[7, 0, 5]])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("depth_ae", {"resize_px": 100, "crop_px": 100}, "expected multiples of 32 pixels"),
        (
            "depth_gan",
            {"resize_px": 96, "crop_px": 96},
            r"resize_px \(--image-size\) is 96, but the networks of depth_gan take a power of two above 4",
        ),
        (
            "voxel_ae",
            {"num_cells": 48},
            "num_cells is 48, but the networks of voxel_ae take a power of two above 4, such as 64",
        ),
        ("voxel_gan", {"num_cells": 48}, "num_cells is 48, but the networks of voxel_gan take"),
    ],
)
def test_sizes_that_no_network_takes_are_refused(name, settings, words, brackets, tmp_path):
    from lineproof.detectors.training.train import train

    with pytest.raises(UsageError, match=words):
        train(name, make_config(name, settings), dataset=brackets, run=tmp_path / "run")
