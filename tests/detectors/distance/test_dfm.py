"""DFM against principal components and densities computed by NumPy in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.training.train import image_set  # noqa: E402

SIZE = (64, 96)


def small(**settings):
    torch.manual_seed(0)
    beside = {"backbone": "resnet18", "weights": "random", "resize_px": SIZE, "crop_px": SIZE, "pool": 2}
    return build_detector("dfm", make_config("dfm", beside | settings))


@pytest.fixture(scope="module")
def given(dataset):
    """Images to fit on, and others."""
    paths = [sample.path for sample in dataset.train]
    others = [sample.path for sample in dataset.test[:3]]
    detector = small()
    return image_set(detector, paths[:8]), image_set(detector, others)


def vectors(detector, images):
    """Pooled features of the images, float64 (N, C, h, w)."""
    with torch.no_grad():
        (maps,) = detector.backbone(images.batch(range(len(images))))
    num, channels, height, width = maps.shape
    pool = detector.config.pool
    parts = maps.double().reshape(num, channels, height // pool, pool, width // pool, pool)
    return parts.mean((3, 5)).numpy()


def subspace(features, variance):
    """Mean, orthonormal components as rows and the variance along each, by the covariance's eigenvectors."""
    flat = features.reshape(len(features), -1)
    mean = flat.mean(0)
    values, rows = np.linalg.eigh((flat - mean) @ (flat - mean).T / len(flat))
    values, rows = values[::-1], rows[:, ::-1]
    count = int((np.cumsum(values) / values.sum() < variance).sum()) + 1
    components = (flat - mean).T @ rows[:, :count]
    return mean, (components / np.linalg.norm(components, axis=0)).T, values[:count]


@pytest.mark.parametrize("pool", [1, 2])
def test_the_error_is_what_the_components_leave(given, pool):
    images, others = given
    detector = small(pool=pool, variance=0.9)
    report = detector.fit(images, others, context=FitContext())
    features = vectors(detector, others)
    mean, components, _ = subspace(vectors(detector, images), 0.9)
    centred = features.reshape(len(features), -1) - mean
    left = (centred - centred @ components.T @ components).reshape(features.shape)
    errors = (left**2).sum(1)
    wanted = F.interpolate(torch.from_numpy(errors)[:, None], SIZE, mode="bilinear", align_corners=False)[:, 0]
    with torch.no_grad():
        score, anomaly_map = detector(others.batch(range(len(others))))
    assert report["num_components"] == len(components)
    assert report["variance"] >= 0.9
    np.testing.assert_allclose(score.numpy(), errors.sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(anomaly_map.numpy(), wanted.numpy(), rtol=1e-3, atol=1e-5 * float(wanted.max()))


def test_the_likelihood_is_the_gaussians_in_the_subspace(given):
    stats = pytest.importorskip("scipy.stats")
    images, others = given
    detector = small(score="nll", variance=0.9)
    detector.fit(images, others, context=FitContext())
    mean, components, variances = subspace(vectors(detector, images), 0.9)
    within = (vectors(detector, others).reshape(len(others), -1) - mean) @ components.T
    density = stats.multivariate_normal(np.zeros(len(variances)), np.diag(variances)).logpdf(within)
    wanted = -2.0 * density - len(variances) * np.log(2.0 * np.pi)
    with torch.no_grad():
        score, anomaly_map = detector(others.batch(range(len(others))))
        lowered = detector.lower()(others.batch(range(len(others))))
    np.testing.assert_allclose(score.numpy(), wanted, rtol=1e-4)
    np.testing.assert_allclose(lowered[0].numpy(), wanted, rtol=1e-4)
    for item in (anomaly_map, lowered[1]):
        assert item.shape == (len(others), *SIZE)
        assert bool((item == item[:, :1, :1]).all())


def test_a_checkpoint_restores_whatever_number_of_components(given):
    images, others = given
    detector = small(num_components=3)
    assert detector.fit(images, others, context=FitContext())["num_components"] == 3
    again = small(num_components=3)
    again.restore(detector.state_dict())
    batch = others.batch([0, 1])
    with torch.no_grad():
        assert torch.equal(again(batch)[0], detector(batch)[0])


def test_what_cannot_be_fitted_is_refused(given):
    images, others = given
    with pytest.raises(UsageError, match=r"8 components were asked for, but 8 images have 7 with a variance\. Lower"):
        small(num_components=8).fit(images, others, context=FitContext())
    with pytest.raises(UsageError, match="at least two training images"):
        small().fit(images.part([0]), others, context=FitContext())
    with pytest.raises(UsageError, match=r"pool is 5, but the map at stride 16 of an image of 64x96 has 4x6 cells"):
        small(pool=5)


def test_all_the_variance_leaves_nothing_of_what_was_learned(given):
    images, others = given
    detector = small(variance=1.0)
    assert detector.fit(images, others, context=FitContext())["num_components"] == 7
    with torch.no_grad():
        learned, unseen = (detector(item.batch(range(3)))[0] for item in (images, others))
    assert float(learned.max()) < 1e-6 * float(unseen.min())


def test_parts_of_an_image_set_are_its_images(given):
    images, _ = given
    assert images.part([2, 5]).paths == (images.paths[2], images.paths[5])
    assert torch.equal(images.part([2, 5]).batch([1]), images.batch([5]))
