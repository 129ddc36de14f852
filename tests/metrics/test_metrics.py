"""Exactness of the metrics, against scikit-learn and straightforward implementations of the definitions."""

import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label as scipy_label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from lineproof.core.errors import BadInputError, UsageError
from lineproof.metrics.image import ImageMetrics, image_metrics
from lineproof.metrics.pixel import PixelMetrics, pixel_metrics

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
TIES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0, np.inf])
ANY = st.floats(width=32, allow_nan=False)


@st.composite
def cases(draw, values=TIES | ANY):
    shape = draw(SHAPES)
    maps = draw(hnp.arrays(np.float32, shape, elements=values))
    masks = draw(hnp.arrays(np.bool_, shape) | st.just(np.zeros(shape, bool)) | st.just(np.ones(shape, bool)))
    return maps, masks


def ranks(maps):
    """Ranks have the order and the ties of the scores, and scikit-learn takes them where it refuses infinities."""
    return np.unique(maps, return_inverse=True)[1].reshape(-1).astype(np.float64)


def naive_f1(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    return np.max(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0))


def naive_aupro(maps, masks, limit, saturation=1.0):
    """Follow the definition word by word: every score a threshold, every component a mean, then the trapezoid."""
    good = np.concatenate([a[~m] for a, m in zip(maps, masks, strict=True)])
    components = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        labels, num = scipy_label(mask, np.ones((3, 3)))
        components += [anomaly_map[labels == k] for k in range(1, num + 1)]
    enough = [np.ceil(np.round(saturation * len(scores), 6)) for scores in components]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        fpr.append(np.mean(good >= threshold))
        overlaps = [min(np.sum(c >= threshold) / s, 1.0) for c, s in zip(components, enough, strict=True)]
        pro.append(np.mean(overlaps))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + at_limit) / 2
    return area / limit


def smooth_case(seed, num=6, size=24, levels=None):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(num, size, size)).astype(np.float32)
    for axis in (1, 2):
        maps = maps + np.roll(maps, 1, axis) + np.roll(maps, -1, axis)
    masks = np.roll(maps, 1, 1) > np.quantile(maps, 0.9)
    masks[0] = False
    if levels:
        maps = np.round(maps * levels).astype(np.float32) / np.float32(levels)
    return maps, masks


@settings(max_examples=250, deadline=None)
@given(cases(), st.sampled_from([0.01, 0.05, 0.3, 0.5, 1.0]), st.booleans())
def test_pixels_equal_scikit_learn_and_the_definition(case, limit, signed):
    maps, masks = case
    maps = maps if signed else np.abs(maps)
    result = pixel_metrics(maps, masks, fpr_limit=limit, num_threads=2)
    labels, scores = masks.reshape(-1), ranks(maps)
    if labels.any():
        np.testing.assert_allclose(result.ap, average_precision_score(labels, scores), rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.f1_max, naive_f1(labels, scores), rtol=0, atol=1e-9)
    if labels.any() and not labels.all():
        np.testing.assert_allclose(result.auroc, roc_auc_score(labels, scores), rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.aupro, naive_aupro(maps, masks, limit), rtol=0, atol=1e-9)
    assert set(result.reasons) == {k for k, v in result.to_dict().items() if v is None}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False) | TIES, st.booleans()), min_size=1, max_size=30))
def test_images_equal_scikit_learn(rows):
    scores, labels = map(np.array, zip(*rows, strict=True))
    result = image_metrics(scores, labels)
    if labels.any():
        np.testing.assert_allclose(result.ap, average_precision_score(labels, ranks(scores)), rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.f1_max, naive_f1(labels, ranks(scores)), rtol=0, atol=1e-9)
    if labels.any() and not labels.all():
        np.testing.assert_allclose(result.auroc, roc_auc_score(labels, ranks(scores)), rtol=0, atol=1e-9)
    assert set(result.reasons) == {k for k, v in result.to_dict().items() if v is None}
    assert (result.num_images, result.num_defective) == (len(rows), labels.sum())


@pytest.mark.parametrize("levels", [None, 1, 8])
@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_smooth_maps_equal_the_definition(levels, limit):
    maps, masks = smooth_case(3, levels=levels)
    result = pixel_metrics(maps, masks, fpr_limit=limit)
    np.testing.assert_allclose(result.auroc, roc_auc_score(masks.ravel(), maps.ravel()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.ap, average_precision_score(masks.ravel(), maps.ravel()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.aupro, naive_aupro(maps, masks, limit), rtol=0, atol=1e-12)
    assert result.num_components == sum(scipy_label(mask, np.ones((3, 3)))[1] for mask in masks)


def test_many_positives_equal_scikit_learn():
    # More positives than are ranked at a time, and more scores than one thread sorts.
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 400, 400)).astype(np.float32).round(4)
    masks = rng.random((3, 400, 400)) < 0.4
    result = pixel_metrics(maps, masks, num_threads=3)
    np.testing.assert_allclose(result.auroc, roc_auc_score(masks.ravel(), maps.ravel()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.ap, average_precision_score(masks.ravel(), maps.ravel()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.f1_max, naive_f1(masks.ravel(), maps.ravel()), rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from([0.1, 0.5, 0.7, 1.0]), st.sampled_from([0.05, 0.3, 1.0]))
def test_saturated_overlap_equals_the_definition(case, saturation, limit):
    maps, masks = case
    result = pixel_metrics(maps, masks, fpr_limit=limit, saturation=saturation)
    if masks.any() and not masks.all():
        expected = naive_aupro(maps, masks, limit, saturation)
        np.testing.assert_allclose(result.aupro, expected, rtol=0, atol=1e-9)
    else:
        assert result.aupro is None


def test_a_hand_made_case():
    anomaly_map = np.array([[0.9, 0.8, 0.1], [0.2, 0.8, 0.3]], np.float32)
    mask = np.array([[1, 0, 0], [0, 0, 1]])
    result = pixel_metrics([anomaly_map], [mask], fpr_limit=1.0)
    # Thresholds 0.9, 0.8, 0.3: FPR 0, 1/2, 1/2; overlap 1/2, 1/2, 1.
    assert result.aupro == 0.75
    assert result.auroc == 0.75
    np.testing.assert_allclose(result.ap, (1 + 2 / 4) / 2)
    assert (result.f1_max, result.f1_threshold) == (2 / 3, np.float32(0.9))
    assert (result.num_images, result.num_pixels, result.num_defect_pixels, result.num_components) == (1, 6, 2, 2)
    assert result.reasons == {}


def test_diagonal_neighbours_are_one_component():
    assert pixel_metrics([np.eye(5, dtype=np.float32)], [np.eye(5, dtype=bool)]).num_components == 1


def test_ten_thousand_components():
    mask = np.zeros((200, 200), bool)
    mask[::2, ::2] = True
    anomaly_map = np.random.default_rng(1).permutation(40_000).astype(np.float32).reshape(200, 200)
    result = pixel_metrics([anomaly_map], [mask])
    assert result.num_components == 10_000
    # Components of one pixel each: the overlap is the true-positive rate, so that AUPRO is a partial AUROC.
    expected = naive_partial_auroc(anomaly_map[mask], anomaly_map[~mask], 0.3)
    np.testing.assert_allclose(result.aupro, expected, rtol=0, atol=1e-9)


def naive_partial_auroc(positives, negatives, limit):
    missed = np.array([np.sum(negatives > score) for score in positives]) / len(negatives)
    return np.mean(np.maximum(limit - missed, 0)) / limit


def test_constant_maps_know_nothing():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2] = True
    result = pixel_metrics(np.full((2, 4, 4), 7, np.float32), masks, fpr_limit=0.3)
    assert (result.auroc, result.ap) == (0.5, 0.25)
    np.testing.assert_allclose(result.aupro, 0.15)
    np.testing.assert_allclose(result.f1_max, 0.4)


def test_minus_zero_ties_with_zero():
    scores = np.array([[-0.0, 0.0]], np.float32)
    for mask in ([[1, 0]], [[0, 1]]):
        assert pixel_metrics([scores], [np.array(mask)]).auroc == 0.5
    assert image_metrics([-0.0, 0.0], [1, 0]).auroc == 0.5
    assert image_metrics([-0.0, 0.0], [0, 1]).auroc == 0.5


def test_infinities_are_scores():
    scores = np.array([[-np.inf, np.inf, 1, 2]], np.float32)
    result = pixel_metrics([scores], [np.array([[0, 1, 0, 0]])])
    assert (result.auroc, result.ap, result.aupro, result.f1_threshold) == (1.0, 1.0, 1.0, np.inf)
    assert pixel_metrics([scores], [np.array([[1, 0, 0, 0]])]).auroc == 0.0


def test_raw_scores_outside_the_unit_interval_are_not_squashed():
    # A float32 sigmoid turns all of these into 1.0, and the metric into that of a constant map.
    scores = np.linspace(20, 40, 64, dtype=np.float32).reshape(1, 8, 8)
    masks = scores > 35
    result = pixel_metrics(scores, masks)
    assert (result.auroc, result.ap, result.f1_max, result.aupro) == (1.0, 1.0, 1.0, 1.0)
    assert image_metrics(scores.ravel(), masks.ravel()).auroc == 1.0
    shifted = pixel_metrics(scores - 100, masks)
    assert shifted.auroc == 1.0


def test_mask_dtypes_agree():
    maps, masks = smooth_case(5)
    expected = pixel_metrics(maps, masks)
    for dtype in (np.uint8, np.int64, np.uint16):
        assert pixel_metrics(maps, masks.astype(dtype) * dtype(255)) == expected
    assert pixel_metrics(list(maps), [m if m.any() else None for m in masks]) == expected


def test_half_precision_maps_are_taken_exactly():
    maps, masks = smooth_case(6)
    half = maps.astype(np.float16)
    assert pixel_metrics(half, masks) == pixel_metrics(half.astype(np.float32), masks)


def test_maps_of_different_sizes_mix():
    one, two = smooth_case(7, size=20), smooth_case(8, size=13)
    maps, masks = [*one[0], *two[0]], [*one[1], *two[1]]
    result = pixel_metrics(maps, masks)
    scores, labels = (np.concatenate([a.ravel() for a in arrays]) for arrays in (maps, masks))
    np.testing.assert_allclose(result.auroc, roc_auc_score(labels, scores), rtol=0, atol=1e-12)


def test_non_contiguous_maps_and_masks_are_read_right():
    maps, masks = smooth_case(9)
    assert pixel_metrics(maps[:, ::-1, ::2], masks[:, ::-1, ::2]) == pixel_metrics(
        maps[:, ::-1, ::2].copy(), masks[:, ::-1, ::2].copy()
    )
    assert pixel_metrics(maps.transpose(0, 2, 1), masks.transpose(0, 2, 1)).auroc == pixel_metrics(maps, masks).auroc


def test_inputs_stay_as_they_are():
    maps, masks = smooth_case(10)
    before = maps.copy(), masks.copy()
    pixel_metrics(maps, masks)
    np.testing.assert_array_equal(maps, before[0])
    np.testing.assert_array_equal(masks, before[1])


def test_a_perfect_detector_scores_one():
    # Components of 1 to 60 pixels: the sum of their shares is not exactly the number of components in floats.
    masks = np.tril(np.ones((60, 60), bool))[::2].repeat(2, axis=0)
    masks[1::2] = False
    assert len({int(row.sum()) for row in masks}) > 20
    result = pixel_metrics([masks.astype(np.float32)], [masks])
    assert (result.auroc, result.ap, result.f1_max) == (1.0, 1.0, 1.0)
    assert 1 - 1e-12 <= result.aupro <= 1.0


def test_a_series_may_be_lists_arrays_or_both():
    maps, masks = smooth_case(12)
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(maps, list(masks)) == expected
    assert pixel_metrics(list(maps), masks) == expected


def test_without_a_defect_there_is_a_reason():
    result = pixel_metrics(np.ones((2, 3, 3), np.float32), np.zeros((2, 3, 3), bool))
    assert (result.auroc, result.ap, result.f1_max, result.f1_threshold, result.aupro) == (None,) * 5
    assert result.reasons["aupro"] == "no pixel with a defect"
    assert set(result.reasons) == {"auroc", "ap", "f1_max", "f1_threshold", "aupro"}
    assert image_metrics([1.0, 2.0], [0, 0]).reasons["auroc"] == "no image with a defect"


def test_without_a_good_pixel_there_is_a_reason():
    result = pixel_metrics(np.ones((1, 3, 3), np.float32), np.ones((1, 3, 3), bool))
    assert (result.auroc, result.aupro) == (None, None)
    assert (result.ap, result.f1_max) == (1.0, 1.0)
    assert "no pixel without a defect" in result.reasons["auroc"]
    assert set(image_metrics([1.0], [1]).reasons) == {"auroc"}


def test_nothing_seen_is_undefined_not_an_error():
    result = PixelMetrics().compute()
    assert (result.num_images, result.num_pixels, result.auroc) == (0, 0, None)
    assert ImageMetrics().compute().ap is None
    assert pixel_metrics([], []) == result


def test_results_are_frozen_and_become_json():
    maps, masks = smooth_case(11)
    result = pixel_metrics(maps, masks)
    assert json.loads(json.dumps(result.to_dict()))["aupro"] == result.aupro
    assert json.loads(json.dumps(image_metrics([0.1, 0.9], [0, 1]).to_dict()))["num_defective"] == 1
    with pytest.raises(FrozenInstanceError):
        result.auroc = 1.0


def test_the_example_of_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    maps, masks = smooth_case(13)
    names = {"maps": maps, "masks": masks, "series": zip(maps, masks, strict=True)}
    names.update(scores=maps.max((1, 2)), labels=masks.any((1, 2)))
    exec(example, names)
    assert names["result"] == image_metrics(names["scores"], names["labels"])
    assert names["pixels"].compute() == pixel_metrics(maps, masks)
    assert 2 <= len(names["curve"].fpr) <= 500


def test_nan_is_refused_and_leaves_the_state_alone():
    metrics = PixelMetrics()
    bad = np.zeros((2, 2), np.float32)
    bad[1, 1] = np.nan
    with pytest.raises(BadInputError, match=r"holds 1 NaN of 4 values; expected numbers"):
        metrics.update(bad, np.ones((2, 2), bool))
    assert metrics.compute().num_pixels == 0
    with pytest.raises(BadInputError, match="1 of 2 scores are NaN"):
        ImageMetrics().update([1.0, np.nan], [0, 1])


def test_mask_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(BadInputError, match=r"mask has shape \(4, 4\), but the anomaly map has \(8, 8\)"):
        PixelMetrics().update(np.zeros((8, 8), np.float32), np.zeros((4, 4), bool))


@pytest.mark.parametrize(
    ("anomaly_map", "mask", "message"),
    [
        (np.zeros((2, 2)), None, "is float64; expected float32"),
        (np.zeros((2, 2), np.uint8), None, "is uint8; expected float32"),
        (np.zeros(4, np.float32), None, r"has shape \(4,\); expected \(H, W\)"),
        (np.zeros((1, 1, 2, 2), np.float32), None, r"has shape \(1, 1, 2, 2\); expected \(H, W\)"),
        (np.zeros((0, 2), np.float32), None, "at least one pixel"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2)), "mask is float64; expected bool or integers"),
    ],
)
def test_bad_maps_and_masks_are_refused(anomaly_map, mask, message):
    with pytest.raises(BadInputError, match=message):
        PixelMetrics().update(anomaly_map, mask)


@pytest.mark.parametrize(
    ("score", "label", "message"),
    [
        ([1.0, 2.0], [1], "1 label for 2 scores"),
        ([1.0], [2], "expected bool, or 0"),
        (["a"], [1], "expected one number"),
        ([[1.0]], [1], "expected one number"),
    ],
)
def test_bad_scores_and_labels_are_refused(score, label, message):
    with pytest.raises(BadInputError, match=message):
        ImageMetrics().update(score, label)


def test_bad_settings_are_refused():
    for limit in (0.0, -0.1, 1.1, np.nan):
        with pytest.raises(UsageError, match=r"fpr_limit is .*expected a number in \(0, 1\]"):
            PixelMetrics(limit)
    with pytest.raises(UsageError, match="saturation is 0"):
        PixelMetrics(saturation=0)
    with pytest.raises(UsageError, match="num_threads is 0; expected at least 1"):
        PixelMetrics(num_threads=0)
    with pytest.raises(BadInputError, match="2 anomaly maps and 1 mask;"):
        pixel_metrics(np.zeros((2, 3, 3), np.float32), [None])
