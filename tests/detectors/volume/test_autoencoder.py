"""Autoencoders of scans that restore deviations: what they learn, what they judge, and where a planted bump shows."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from lineproof.detectors.volume.copies import Copies, CopySource  # noqa: E402
from lineproof.detectors.volume.deviations import Deviations  # noqa: E402

TINY = {"restores": "deviations", "copies": 0, "latent": 4, "batch_size": 4, "epochs": 8}
DEPTH = TINY | {"resize_px": 64, "crop_px": 64, "invalid": "masked", "learning_rate": 1e-3}
VOXEL = TINY | {"num_cells": 32, "width": 4, "ray_stride_px": 2, "learning_rate": 1e-3}


@pytest.fixture
def samples():
    """Depth images (30, 4, 3, 5) whose channels vary together, and which depths were measured."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (30, 4, 3, 5)) * rng.uniform(0.5, 3, (4, 3, 5)) + rng.normal(0, 9, (4, 3, 5))
    values[:, 2] += 0.7 * values[:, 0]
    measured = (rng.random((30, 1, 3, 5)) < 0.8).astype(np.float32)
    return torch.from_numpy(values.astype(np.float32)), torch.from_numpy(measured)


def batches_of(samples, size=7):
    return list(zip(*(item.split(size) for item in samples), strict=True))


@pytest.mark.parametrize("is_masked", [False, True])
def test_deviations_are_white_and_lowered_alike(samples, is_masked):
    deviations = Deviations(4, is_masked=is_masked)
    deviations.learn(batches_of(samples), [1e-4] * 4)
    seen, beside = deviations(samples)
    assert torch.equal(beside, samples[1])
    torch.testing.assert_close(deviations.lowered()(samples)[0], seen, rtol=1e-4, atol=1e-4)
    if is_masked:
        assert (seen[:, :1][samples[1] == 0] == 0).all()
        return
    for row, column in np.ndindex(3, 5):
        np.testing.assert_allclose(np.cov(seen[:, :, row, column].numpy().T), np.eye(4), atol=2e-3)
        np.testing.assert_allclose(seen[:, :, row, column].mean(0).numpy(), 0, atol=1e-4)


@pytest.mark.parametrize("is_masked", [False, True])
def test_weights_are_what_is_left_of_training_scans(samples, is_masked):
    deviations = Deviations(4, is_masked=is_masked)
    deviations.learn(batches_of(samples), [1e-4] * 4)
    seen = deviations(samples)[0].numpy()
    share = deviations.weigh(batches_of(samples), lambda values: 0.5 * values, smallest=0.3)
    known = np.ones_like(seen)
    known[:, :1] = samples[1].numpy() if is_masked else 1.0
    left = (known * (0.5 * seen) ** 2).sum(0) / known.sum(0)
    np.testing.assert_allclose(deviations.weights.numpy(), 1 / np.sqrt(left + 0.09), rtol=1e-5)
    assert share == pytest.approx(0.75, abs=1e-6)


def test_no_scans_have_no_deviations():
    with pytest.raises(ValueError, match="no scans"):
        Deviations(1, is_masked=False).learn([], [0.1])


@pytest.mark.parametrize(("name", "settings"), [("depth_ae", DEPTH), ("voxel_ae", VOXEL)])
@pytest.mark.parametrize("rgb", [False, True])
def test_the_score_is_what_is_left_in_units_of_what_training_scans_leave(name, settings, rgb, brackets, fit_of):
    fit = fit_of(name, rgb=str(rgb).lower(), **settings)
    detector = fit.detector
    scans = fit.scans_of(brackets.test).batch(range(3))
    with torch.inference_mode():
        score, anomaly_map = detector(scans)
        seen, _ = detector.deviations(scans)
        apart = (seen - detector.decoder(detector.encoder(seen))) * detector.deviations.weights
        if name == "depth_ae":
            apart[:, :1] *= scans[1]
            torch.testing.assert_close(anomaly_map, apart.square().sum(1), rtol=1e-4, atol=1e-4)
        else:
            assert score.max() <= apart.square().sum(1).max() * 1.0001
        lowered = detector.lower().eval()(scans)
    torch.testing.assert_close(lowered[1], anomaly_map, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(score, anomaly_map.flatten(1).amax(1))
    with torch.inference_mode():
        given = fit.scans_of(brackets.train).batch(range(len(brackets.train)))
        seen, _ = detector.deviations(given)
        left = seen - detector.decoder(detector.encoder(seen))
        if name == "depth_ae":
            left[:, :1] *= given[1]
    share = 1.0 - (left.square().sum() / seen.square().sum()).item()
    assert fit.record.fit["restored_share"] == pytest.approx(share, abs=1e-3)


def test_a_network_that_restores_nothing_leaves_the_variation_model(brackets, fit_of):
    """Masked, at the frame's size: with all weights 1 the root of the map is Depth VM's distance."""
    fit = fit_of("depth_ae", rgb="true", **DEPTH)
    variation = fit_of("depth_vm", rgb="true", invalid="masked", copies=0)
    scans = fit.scans_of(brackets.test).batch(range(3))
    detector = fit.detector
    network, weights = detector.decoder, detector.deviations.weights
    try:
        detector.decoder = _Nothing(4)
        detector.deviations.weights = torch.ones_like(weights)
        with torch.inference_mode():
            distances = detector(scans)[1].sqrt()
    finally:
        detector.decoder, detector.deviations.weights = network, weights
    with torch.inference_mode():
        wanted = variation.detector(variation.scans_of(brackets.test).batch(range(3)))[1]
    torch.testing.assert_close(distances, wanted, rtol=1e-4, atol=1e-4)


class _Nothing(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self._channels = channels

    def forward(self, vectors):
        return torch.zeros(len(vectors), self._channels, 1, 1)


@pytest.mark.parametrize(
    ("name", "settings", "height_m"), [("depth_ae", DEPTH, 0.002), ("voxel_ae", VOXEL, 0.006)], ids=["depth", "voxel"]
)
@pytest.mark.parametrize("rgb", [False, True])
def test_a_bump_of_a_stated_height_raises_the_map_there_and_nowhere_else(
    name, settings, height_m, rgb, brackets, fit_of, with_bump
):
    """An autoencoder may answer elsewhere too, since all it knows of a scan is one vector: there by far less."""
    fit = fit_of(name, rgb=str(rgb).lower(), **settings)
    scans = fit.scans_of(brackets.test[:1])
    cloud = scans.cloud(0)
    changed, place = with_bump(cloud, height_m=height_m)
    with torch.inference_mode():
        plain, bumped = (fit.detector(scans.parts([item]))[1][0].numpy() for item in (cloud, changed))
    difference = bumped - plain
    around = np.zeros(difference.shape, bool)
    # A cell is more than one pixel wide, and its ray's neighbours share it.
    margin = 0 if name == "depth_ae" else 6
    around[place[0].start - margin : place[0].stop + margin, place[1].start - margin : place[1].stop + margin] = True
    inside = difference[place]
    assert np.median(inside) > 0
    assert inside.max() > 20 * abs(difference[~around]).max()


def test_copies_are_kept_where_they_fit_and_are_the_same_where_not(brackets, fit_of, monkeypatch):
    from lineproof.detectors.volume import copies as module

    scans = fit_of("depth_ae", rgb="false", **DEPTH).scans_of(brackets.train[:2])
    copies = Copies(num=2, largest_deg=5.0)
    kept = CopySource(scans, copies, seed=4)
    first, again = (torch.cat([values for values, _ in kept.once(4)]) for _ in range(2))
    monkeypatch.setattr(Copies, "copy", lambda *_: pytest.fail("a kept copy was made again"))
    torch.testing.assert_close(torch.cat([values for values, _ in kept.once(4)]), first, rtol=0, atol=0)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_MEMORY_LIMIT_BYTES", 0)
    drawn = torch.cat([values for values, _ in CopySource(scans, copies, seed=4).once(4)])
    assert torch.equal(first, again)
    assert torch.equal(first, drawn)
