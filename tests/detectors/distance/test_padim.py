"""PaDiM against a direct computation with inverse covariances in float64."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.core.progress import silent  # noqa: E402
from lineproof.detectors.base import build_detector, make_config  # noqa: E402
from lineproof.detectors.nn.gaussians import LoweredGaussians, fit_gaussians, parts_of  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, split_good  # noqa: E402


@pytest.fixture(scope="module")
def padim(fit):
    return fit("padim")


def embeddings(detector, batch):
    """float64 (N, positions, d), by nearest upsampling and selection, written out."""
    with torch.no_grad():
        maps = detector.backbone(batch)
    size = maps[0].shape[-1]
    grown = [F.interpolate(item, (size, size), mode="nearest") for item in maps]
    picked = torch.cat(grown, 1).numpy()[:, detector.gaussians.channels.numpy()]
    return picked.reshape(len(batch), detector.gaussians.dim, -1).transpose(0, 2, 1).astype(np.float64)


def training_embeddings(padim, dataset):
    fitted, _ = split_good(dataset, TrainOptions())
    images = image_set(padim.detector, fitted)
    return embeddings(padim.detector, images.batch(range(len(images))))


def test_gaussians_are_numpys(padim, dataset):
    values = training_embeddings(padim, dataset)
    detector = padim.detector
    np.testing.assert_allclose(detector.gaussians.mean.numpy(), values.mean(0), rtol=0, atol=1e-5)
    for position in (0, 17, values.shape[1] - 1):
        covariance = np.cov(values[:, position].T, ddof=1) + 0.01 * np.eye(detector.gaussians.dim)
        factor = detector.gaussians.factor[position].double().numpy()
        np.testing.assert_allclose(np.triu(factor, 1), 0.0)
        np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(covariance), rtol=2e-3, atol=2e-3)


def test_distance_is_the_mahalanobis_distance(padim, dataset):
    values = training_embeddings(padim, dataset)
    batch = padim.images.batch(range(3))
    queries = embeddings(padim.detector, batch)
    want = np.empty(queries.shape[:2])
    for position in range(values.shape[1]):
        covariance = np.cov(values[:, position].T, ddof=1) + 0.01 * np.eye(padim.detector.gaussians.dim)
        centred = queries[:, position] - values[:, position].mean(0)
        want[:, position] = np.sqrt(np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred))
    with torch.inference_mode():
        lowered = padim.detector.lower()
        got = lowered.head(lowered.backbone(batch)).numpy()
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_map_is_the_distance_upsampled_and_smoothed(padim):
    ndimage = pytest.importorskip("scipy.ndimage")
    batch = padim.images.batch(range(2))
    with torch.inference_mode():
        score, anomaly_map = padim.detector(batch)
        distance = padim.detector.lower().head(padim.detector.backbone(batch)).reshape(2, 1, 16, 16)
    grown = F.interpolate(distance, (64, 64), mode="bilinear", align_corners=False)[:, 0].numpy()
    want = ndimage.gaussian_filter(grown, 4.0, axes=(1, 2))
    np.testing.assert_allclose(anomaly_map.numpy(), want, rtol=1e-4)
    np.testing.assert_array_equal(score.numpy(), anomaly_map.flatten(1).max(1).values.numpy())


def test_covariance_is_sklearns():
    covariance = pytest.importorskip("sklearn.covariance")
    vectors = np.random.default_rng(0).standard_normal((12, 3, 5)).astype(np.float32)
    mean, factor = fit_gaussians(torch.from_numpy(vectors), regularisation=0.0)
    for position in range(3):
        fitted = covariance.EmpiricalCovariance().fit(vectors[:, position].astype(np.float64))
        precision = np.linalg.inv(fitted.covariance_ * 12 / 11)  # scikit-learn divides by n
        np.testing.assert_allclose(mean[position].numpy(), fitted.location_, rtol=0, atol=1e-6)
        np.testing.assert_allclose(factor[position].T @ factor[position], precision, rtol=1e-4, atol=1e-5)


def test_parts_of_positions_change_no_bit(padim, monkeypatch):
    gaussians = copy.deepcopy(padim.detector.gaussians)
    vectors = torch.randn(12, 40, gaussians.dim, generator=torch.Generator().manual_seed(0))

    def learn():
        gaussians.learn(vectors, device=torch.device("cpu"), progress=silent)
        return gaussians.mean, gaussians.factor, LoweredGaussians(gaussians).bias

    whole = learn()
    monkeypatch.setattr("lineproof.detectors.nn.gaussians._MATRICES_BYTES", 7 * 8 * gaussians.dim**2)
    assert [part.stop - part.start for part in parts_of(40, gaussians.dim)] == [7, 7, 7, 7, 7, 5]
    for part, want in zip(learn(), whole, strict=True):
        np.testing.assert_array_equal(part.numpy(), want.numpy())


class LargestResult(TorchDispatchMode):
    """Notes the largest tensor, in bytes, that any operation returns."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.num_bytes = max(self.num_bytes, result.nbytes)
        return result


def test_lowering_makes_nothing_larger_than_the_factors(padim, monkeypatch):
    """In float64 they would be twice as large: 7.6 GB for the paper's 550 channels at 224 px."""
    gaussians = padim.detector.gaussians
    monkeypatch.setattr("lineproof.detectors.nn.gaussians._MATRICES_BYTES", 8 * gaussians.dim**2)
    with LargestResult() as seen:
        padim.detector.lower()
    assert seen.num_bytes == gaussians.factor.nbytes


@pytest.mark.parametrize(("backbone", "num_features", "dim"), [("resnet18", 0, 100), ("resnet18", 30, 30)])
def test_number_of_channels_is_the_papers_choice(backbone, num_features, dim):
    settings = {"backbone": backbone, "weights": "random", "crop_px": 64, "num_features": num_features}
    detector = build_detector("padim", make_config("padim", settings))
    assert detector.gaussians.dim == dim
    assert detector.extra_parameters() == 0


def test_channels_are_drawn_without_repetition_by_the_seed(padim):
    channels = padim.detector.gaussians.channels.tolist()
    assert channels == sorted(set(channels)) == padim.record.fit["channels"]
    assert channels != list(range(len(channels)))
    drawn = torch.randperm(sum(padim.detector.backbone.channels), generator=torch.Generator().manual_seed(0))
    assert channels == sorted(drawn[: len(channels)].tolist())


def test_too_many_channels_are_refused():
    settings = {"backbone": "resnet18", "weights": "random", "crop_px": 64, "num_features": 500}
    with pytest.raises(UsageError, match=r"num_features is 500; resnet18 has 448 channels"):
        build_detector("padim", make_config("padim", settings))


def test_a_checkpoint_of_former_releases_is_read():
    """The Gaussians had no module of their own there, and their tensors lay beside the backbone's."""
    config = make_config("padim", {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64})
    torch.manual_seed(0)
    detector, other = build_detector("padim", config), build_detector("padim", config)
    height, width = detector.backbone.map_sizes(config.crop_px)[0]
    number, dim = height * width, detector.gaussians.dim
    detector.gaussians.register_buffer("mean", torch.randn(number, dim))
    detector.gaussians.register_buffer("factor", torch.randn(number, dim, dim))
    former = {
        name.removeprefix("gaussians.").removeprefix("distance_map."): item
        for name, item in detector.state_dict().items()
    }
    assert {"channels", "mean", "factor", "upsample.rows", "upsample.columns"} <= former.keys()
    other.restore(former)
    images = torch.randn(2, 3, 64, 64)
    for have, want in zip(other(images), detector(images), strict=True):
        assert torch.equal(have, want)
