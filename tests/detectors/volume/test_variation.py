"""Moments, whitening, and what follows from them, against NumPy pixel by pixel."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.volume.variation import Moments, Whiten, lengths, whitening  # noqa: E402


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (30, 4, 7)) @ np.diag([1, 2, 3, 1, 1, 0.5, 4]) + rng.normal(0, 20, (1, 4, 7))
    values[:, 2] += 0.7 * values[:, 0]
    known = (rng.random((30, 1, 7)) < 0.6).astype(np.float32)
    known[:, :, 5], known[:, :, 6] = 0, 1
    known[1:, :, 4] = 0
    return values.astype(np.float32), known


def test_moments_are_numpys(samples):
    values, _ = samples
    moments = Moments(4, 7)
    for part in np.split(values, [3, 4, 20]):
        moments.add(torch.from_numpy(part))
    np.testing.assert_allclose(moments.mean().numpy(), values.astype(np.float64).mean(0), rtol=1e-12)
    for place in range(7):
        expected = np.cov(values[:, :, place].astype(np.float64).T)
        np.testing.assert_allclose(moments.covariance()[place].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert moments.num_samples == 30


def test_unknown_depths_count_nowhere(samples):
    values, known = samples
    moments = Moments(4, 7)
    moments.add(torch.from_numpy(values), torch.from_numpy(known))
    covariance, mean = moments.covariance().numpy(), moments.mean().numpy()
    for place in range(7):
        seen = known[:, 0, place] > 0
        depth, colours = values[seen, 0, place].astype(np.float64), values[:, 1:, place].astype(np.float64)
        np.testing.assert_allclose(mean[1:, place], colours.mean(0), rtol=1e-12)
        np.testing.assert_allclose(covariance[place, 1:, 1:], np.cov(colours.T), rtol=1e-8, atol=1e-9)
        assert moments.num_known()[0, place] == seen.sum()
        np.testing.assert_allclose(mean[0, place], depth.mean() if seen.any() else 0, rtol=1e-12)
        variance = depth.var(ddof=1) if seen.sum() > 1 else 0
        np.testing.assert_allclose(covariance[place, 0, 0], variance, rtol=1e-8, atol=1e-9)
        # An unknown depth is its mean: it adds nothing to a product.
        offsets = np.where(seen, values[:, 0, place] - mean[0, place], 0.0)
        products = offsets @ (colours - colours.mean(0)) / np.sqrt(29 * max(seen.sum() - 1, 1))
        np.testing.assert_allclose(covariance[place, 0, 1:], products, rtol=1e-8, atol=1e-6)
        assert np.linalg.eigvalsh(covariance[place]).min() > -1e-9


@pytest.mark.parametrize("is_full", [True, False])
def test_the_distance_is_mahalanobis(samples, is_full):
    values, _ = samples
    smallest = np.array([0.5, 0.1, 3.0, 0.2])
    moments = Moments(4, 7)
    moments.add(torch.from_numpy(values))
    factors = whitening(moments.covariance(), torch.from_numpy(smallest), is_full=is_full)
    centred = torch.from_numpy(np.random.default_rng(1).normal(0, 3, (5, 4, 7)))
    distances = lengths(Whiten(factors, 4)(centred)).numpy()
    for place in range(7):
        covariance = moments.covariance()[place].numpy()
        if is_full:
            precision = np.linalg.inv(covariance + np.diag(smallest**2))
        else:
            precision = np.diag(1 / np.maximum(np.sqrt(np.diag(covariance)), smallest) ** 2)
        offsets = centred[:, :, place].numpy()
        expected = np.sqrt(np.einsum("ni,ij,nj->n", offsets, precision, offsets))
        np.testing.assert_allclose(distances[:, place], expected, rtol=1e-9)


def test_one_channel_is_bounded_below():
    covariance = torch.tensor([4.0, 0.0, 1e-6], dtype=torch.float64)[:, None, None]
    factors = whitening(covariance, torch.tensor([0.1], dtype=torch.float64), is_full=True)
    np.testing.assert_allclose(factors.numpy(), [[0.5, 10.0, 10.0]])
