"""Paired statistics: the bootstrap's areas are the metrics', the test is exact, the bound is honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lineproof.core.errors import BadInputError
from lineproof.metrics.bootstrap import draw, image_evidence, pixel_evidence, resampled_areas
from lineproof.metrics.image import image_metrics
from lineproof.metrics.pixel import pixel_metrics
from lineproof.metrics.statistics import Resampling, image_difference, mcnemar, pixel_differences


def evidence_of(maps, masks):
    return pixel_evidence(zip(maps, masks, strict=True))


@st.composite
def labelled_maps(draw_value):
    rng = np.random.default_rng(draw_value(st.integers(0, 2**32 - 1)))
    num, levels = draw_value(st.integers(2, 6)), draw_value(st.sampled_from([2, 5, 1000]))
    maps = (rng.integers(0, levels, (num, 9, 7)) / levels).astype(np.float32)
    masks = rng.random((num, 9, 7)) < 0.3
    masks[0] = False
    masks[1, 0, 0] = True
    return maps, masks


@settings(deadline=None, max_examples=60)
@given(labelled_maps(), st.sampled_from([0.05, 0.3, 1.0]), st.integers(0, 1000))
def test_the_areas_of_a_resample_are_the_metrics_of_the_repeated_images(case, limit, seed):
    maps, masks = case
    weights = draw(masks.any(axis=(1, 2)), num_resamples=5, seed=seed)
    roc, pro = resampled_areas(evidence_of(maps, masks), weights, fpr_limit=limit)
    for column in range(5):
        taken = np.repeat(np.arange(len(maps)), weights[:, column].astype(int))
        expected = pixel_metrics(maps[taken], masks[taken], fpr_limit=limit)
        np.testing.assert_allclose(roc[column], expected.auroc, rtol=0, atol=1e-12)
        np.testing.assert_allclose(pro[column], expected.aupro, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([3, 1000]))
def test_the_image_auroc_of_a_resample_is_that_of_the_repeated_images(seed, num, levels):
    rng = np.random.default_rng(seed)
    score, label = (rng.integers(0, levels, num) / levels).astype(np.float32), rng.random(num) < 0.5
    label[:2] = True, False
    weights = draw(label, num_resamples=4, seed=seed)
    roc, _ = resampled_areas(image_evidence(score, label), weights)
    for column in range(4):
        taken = np.repeat(np.arange(num), weights[:, column].astype(int))
        np.testing.assert_allclose(roc[column], image_metrics(score[taken], label[taken]).auroc, rtol=0, atol=1e-12)


def test_many_blocks_are_one(monkeypatch):
    rng = np.random.default_rng(0)
    maps, masks = rng.random((4, 32, 32), np.float32), rng.random((4, 32, 32)) < 0.4
    weights = draw(np.ones(4, np.bool_), num_resamples=3, seed=1)
    whole = resampled_areas(evidence_of(maps, masks), weights)
    monkeypatch.setattr("lineproof.metrics.bootstrap._BLOCK", 7)
    parts = resampled_areas(evidence_of(maps, masks), weights)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_good_and_defective_images_are_drawn_apart():
    label = np.array([True, False, False, True, False])
    weights = draw(label, num_resamples=200, seed=3)
    np.testing.assert_array_equal(weights[label].sum(0), 2)
    np.testing.assert_array_equal(weights[~label].sum(0), 3)
    np.testing.assert_array_equal(weights, draw(label, num_resamples=200, seed=3))
    assert not np.array_equal(weights, draw(label, num_resamples=200, seed=4))
    np.testing.assert_allclose(weights.mean(), 1.0)
    assert len(np.unique(weights, axis=1).T) > 20


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20))
def test_mcnemar_is_the_binomial_test(only_left, only_right, both):
    num = only_left + only_right + both
    label = np.zeros(num, np.bool_)
    left = np.arange(num) >= only_left
    right = ~((np.arange(num) >= only_left) & (np.arange(num) < only_left + only_right))
    result = mcnemar(left, right, label)
    assert (result.only_left_right, result.only_right_right) == (only_left, only_right)
    assert result.num_flips == only_left + only_right
    differing = only_left + only_right
    expected = binomtest(only_left, differing).pvalue if differing else 1.0
    np.testing.assert_allclose(result.p_value, expected, rtol=1e-9)


def test_no_flip_in_many_bounds_the_rate():
    """The rule of three, exactly: 1 − 0.05^(1/n)."""
    verdicts = np.zeros(160, np.bool_)
    result = mcnemar(verdicts, verdicts, verdicts)
    np.testing.assert_allclose(result.flip_rate_bound, 1 - 0.05 ** (1 / 160), rtol=1e-9)
    assert (result.num_flips, result.p_value) == (0, 1.0)


def _scores(seed=0, num=80):
    rng = np.random.default_rng(seed)
    label = np.arange(num) % 2 == 0
    return (rng.normal(size=num) + label).astype(np.float32), label


def test_the_interval_covers_a_true_difference():
    left, label = _scores(num=300)
    right = np.random.default_rng(1).normal(size=len(left)).astype(np.float32)
    difference = image_difference(left, right, label, resampling=Resampling())
    expected = image_metrics(right, label).auroc - image_metrics(left, label).auroc
    np.testing.assert_allclose(difference.value, expected, rtol=0, atol=1e-12)
    assert difference.low < difference.value < difference.high < 0
    assert difference.bound == -difference.low
    assert difference == image_difference(left, right, label, resampling=Resampling())
    assert difference != image_difference(left, right, label, resampling=Resampling(seed=1))


def test_no_difference_comes_with_a_bound_above_zero():
    """Not one pair changed its order, so every resample says 0; pairs within the error keep the bound above it."""
    left = np.linspace(0, 1, 100, dtype=np.float32)
    label = np.arange(100) >= 50
    right = left.copy()
    right[0] += 0.05
    difference = image_difference(left, right, label, resampling=Resampling())
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    gaps = left[label][:, None] - left[~label][None, :]
    np.testing.assert_allclose(difference.bound, (gaps <= 0.1).mean(), rtol=1e-6)
    assert difference.bound > 1 - 0.05 ** (1 / 2500)
    assert f"a difference above {difference.bound:.2g} is not compatible" in difference.sentence("Image AUROC")


def test_identical_sides_differ_by_nothing():
    left, label = _scores()
    difference = image_difference(left, left, label, resampling=Resampling())
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(difference.bound, 1 - 0.05 ** (1 / (40 * 40)), rtol=1e-6)


def test_identical_maps_are_bounded_by_the_number_of_images():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((6, 8, 8), np.float32), rng.random((6, 8, 8)) < 0.2
    masks[:2] = False
    evidence = evidence_of(maps, masks)
    for difference in pixel_differences((evidence, evidence), masks.any(axis=(1, 2)), resampling=Resampling(100)):
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
        np.testing.assert_allclose(difference.bound, 1 - 0.05 ** (1 / 8), rtol=1e-6)


def test_where_a_class_is_absent_there_is_no_difference():
    left, label = _scores()
    assert image_difference(left, left, np.zeros_like(label), resampling=Resampling()) is None
    assert image_difference(left, left * np.nan, label, resampling=Resampling()) is None


def test_pixel_differences_are_those_of_the_metrics():
    rng = np.random.default_rng(5)
    maps, masks = rng.random((8, 20, 20), np.float32), rng.random((8, 20, 20)) < 0.2
    masks[:3] = False
    other = (maps + 0.3 * masks).astype(np.float32)
    label = masks.any(axis=(1, 2))
    resampling = Resampling(200, 0, 0.3)
    roc, pro = pixel_differences((evidence_of(maps, masks), evidence_of(other, masks)), label, resampling=resampling)
    before, after = pixel_metrics(maps, masks), pixel_metrics(other, masks)
    np.testing.assert_allclose(roc.value, after.auroc - before.auroc, rtol=0, atol=1e-12)
    np.testing.assert_allclose(pro.value, after.aupro - before.aupro, rtol=0, atol=1e-12)
    assert 0 < roc.low <= roc.value <= roc.high <= roc.bound
    assert 0 < pro.low <= pro.value <= pro.high <= pro.bound


def test_too_few_resamples_are_refused():
    with pytest.raises(BadInputError, match=r"num_resamples \(--resamples\) is 10; .*at least 100"):
        Resampling(10)
