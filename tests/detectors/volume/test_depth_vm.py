"""Depth VM against NumPy, pixel by pixel, and what its parameters mean."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.data.decoding.decode import decode_image  # noqa: E402
from lineproof.data.decoding.xyz import read_xyz  # noqa: E402
from lineproof.data.files import scan_files  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402

PLAIN = {"copies": 0}


def depths_of(samples):
    """Distances to the camera in metres, float64 (n, h, w), 0 where nothing was measured."""
    return np.stack([np.linalg.norm(read_xyz(scan_files(s.path)[0]).astype(np.float64), axis=2) for s in samples])


def colours_of(samples):
    return np.stack([decode_image(sample.path) for sample in samples]) / 255.0


def judged(fit, scans):
    with torch.inference_mode():
        return [item.numpy() for item in fit.detector(scans.batch(range(len(scans))))]


def test_the_papers_rule_by_pixel(brackets, fit_of):
    """One channel: |depth − mean| / max(deviation, half a millimetre), with 0 for a lost pixel like any depth."""
    train_depths, test_depths = depths_of(brackets.train), depths_of(brackets.test)
    expected = abs(test_depths - train_depths.mean(0)) / np.maximum(train_depths.std(0, ddof=1), 5e-4)
    fit = fit_of("depth_vm", **PLAIN)
    score, anomaly_map = judged(fit, fit.scans_of(brackets.test))
    np.testing.assert_allclose(anomaly_map, expected, rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(score, expected.max((1, 2)), rtol=2e-4)
    # The paper reports it of itself: pixels lost by chance outscore every fault.
    assert score.min() > 100


def test_with_colours_it_is_the_mahalanobis_distance(brackets, fit_of):
    values, tested = (
        np.concatenate([depths_of(part)[..., None], colours_of(part)], axis=3)
        for part in (brackets.train, brackets.test)
    )
    smallest = np.diag([5e-4, 0.02, 0.02, 0.02]) ** 2
    fit = fit_of("depth_vm", rgb="true", **PLAIN)
    _, anomaly_map = judged(fit, fit.scans_of(brackets.test))
    rng = np.random.default_rng(0)
    for row, column in rng.integers(0, 64, (50, 2)):
        here, offsets = values[:, row, column], tested[:, row, column] - values[:, row, column].mean(0)
        precision = np.linalg.inv(np.cov(here.T) + smallest)
        expected = np.sqrt(np.einsum("ni,ij,nj->n", offsets, precision, offsets))
        np.testing.assert_allclose(anomaly_map[:, row, column], expected, rtol=5e-3, atol=5e-3)


def test_masked_a_lost_pixel_is_no_anomaly(brackets, fit_of):
    train_depths, test_depths = depths_of(brackets.train), depths_of(brackets.test)
    known = train_depths > 0
    num = known.sum(0)
    mean = train_depths.sum(0) / np.maximum(num, 1)
    variance = (known * (train_depths - mean) ** 2).sum(0) / np.maximum(num - 1, 1)
    expected = abs(test_depths - mean) / np.maximum(np.sqrt(variance), 5e-4) * (test_depths > 0) * (num > 0)
    fit = fit_of("depth_vm", invalid="masked", **PLAIN)
    score, anomaly_map = judged(fit, fit.scans_of(brackets.test))
    np.testing.assert_allclose(anomaly_map, expected, rtol=2e-3, atol=2e-3)
    assert score.max() < 100
    assert fit.record.fit["never_measured"] == (num == 0).sum()


def test_a_bump_of_a_stated_height_raises_the_map_there_and_nowhere_else(brackets, fit_of, with_bump):
    fit = fit_of("depth_vm", invalid="masked", **PLAIN)
    scans = fit.scans_of(brackets.test[:1])
    cloud = scans.cloud(0)
    changed, place = with_bump(cloud, height_m=0.002)
    plain, bumped = (fit.detector(scans.parts([item]))[1][0].detach().numpy() for item in (cloud, changed))
    difference = bumped - plain
    inside = np.zeros(difference.shape, bool)
    inside[place] = True
    assert (difference[~inside] == 0).all()
    assert np.median(difference[inside]) > 2.0


@pytest.mark.parametrize(
    "settings", [{}, {"rgb": "true"}, {"rgb": "true", "covariance": "diagonal"}, {"quantity": "z"}]
)
@pytest.mark.parametrize("invalid", ["paper", "masked"])
def test_the_lowered_form_is_the_same_function(brackets, fit_of, settings, invalid):
    fit = fit_of("depth_vm", invalid=invalid, **settings, **PLAIN)
    scans = fit.scans_of(brackets.test)
    want = judged(fit, scans)
    with torch.inference_mode():
        got = fit.detector.lower().eval()(scans.batch(range(len(scans))))
    for value, wanted in zip(got, want, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-5, atol=1e-4)


def test_a_smaller_image_takes_the_nearest_pixels(brackets, fit_of):
    fit = fit_of("depth_vm", resize_px="32", crop_px="32", **PLAIN)
    _, anomaly_map = judged(fit, fit.scans_of(brackets.test[:2]))
    native = fit_of("depth_vm", **PLAIN)
    _, whole = judged(native, native.scans_of(brackets.test[:2]))
    np.testing.assert_allclose(anomaly_map, whole[:, 1::2, 1::2], rtol=1e-5, atol=1e-5)
    assert native.record.detector.parameters["resize_px"] == [64, 64]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet18"}, "detectors of scans have no pretrained network"),
        ({"resize_px": "64", "crop_px": "32"}, "scans are not cropped"),
    ],
)
def test_parameters_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        make_config("depth_vm", settings)


def test_images_keep_their_sizes_and_scans_may_be_native():
    assert make_config("depth_vm", {}).resize_px == make_config("depth_vm", {"resize_px": "native"}).resize_px
    with pytest.raises(UsageError, match=r"padim: a size of its images is native; expected HEIGHTxWIDTH"):
        make_config("padim", {"resize_px": "native", "crop_px": "native"})
