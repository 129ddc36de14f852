"""Streaming, merging, order, threads, memory, and the PRO curve."""

import io
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label as scipy_label

from lineproof.core.errors import BadInputError, UsageError
from lineproof.metrics.image import ImageMetrics, image_metrics
from lineproof.metrics.kernels.components import component_sizes
from lineproof.metrics.kernels.pool import Pool
from lineproof.metrics.kernels.ranks import decode, encode, spans
from lineproof.metrics.pixel import PixelMetrics, pixel_metrics


def case(seed=0, num=12, size=96, levels=200):
    rng = np.random.default_rng(seed)
    maps = (rng.integers(0, levels, (num, size, size)) / levels - 0.5).astype(np.float32)
    masks = rng.random((num, size, size)) < 0.45
    masks[::4] = False
    return maps, masks


@pytest.mark.parametrize("levels", [3, 200, 10**7])
def test_streaming_equals_one_shot_to_the_last_bit(levels):
    maps, masks = case(levels=levels)
    expected = pixel_metrics(maps, masks)
    metrics = PixelMetrics()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask if mask.any() else None)
    assert metrics.compute() == expected
    assert metrics.compute() == expected


@pytest.mark.parametrize("levels", [3, 200, 10**7])
def test_order_parts_and_threads_do_not_change_a_bit(levels):
    maps, masks = case(1, levels=levels)
    expected = pixel_metrics(maps, masks, num_threads=1)
    order = np.random.default_rng(2).permutation(len(maps))
    for num_threads in (1, 2, 5):
        parts = [PixelMetrics(num_threads=num_threads) for _ in range(3)]
        for place, index in enumerate(order):
            parts[place % 3].update(maps[index], masks[index])
        # A part that was computed, and so sorted, merges like any other.
        parts[1].compute()
        parts[0].merge(parts[2])
        parts[0].merge(parts[1])
        assert parts[0].compute() == expected
        assert pixel_metrics(maps, masks, num_threads=num_threads) == expected
        assert pixel_metrics(list(maps[order]), list(masks[order]), num_threads=num_threads) == expected


def test_merging_leaves_the_other_part_alone():
    maps, masks = case(3)
    one, two = PixelMetrics(), PixelMetrics()
    one.update(maps[:5], masks[:5])
    two.update(maps[5:], masks[5:])
    alone = two.compute()
    one.merge(two)
    assert two.compute() == alone
    assert one.compute() == pixel_metrics(maps, masks)


def test_updates_go_on_after_compute():
    maps, masks = case(4)
    metrics = PixelMetrics()
    metrics.update(maps[:5], masks[:5])
    assert metrics.compute() == pixel_metrics(maps[:5], masks[:5])
    metrics.update(maps[5:], masks[5:])
    assert metrics.compute() == pixel_metrics(maps, masks)


def test_a_state_travels_as_plain_arrays():
    maps, masks = case(5)
    metrics = PixelMetrics(0.05, saturation=0.5)
    metrics.update(maps, masks)
    file = io.BytesIO()
    np.savez(file, **metrics.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        again = PixelMetrics.from_state(loaded)
    assert again.compute() == metrics.compute() == pixel_metrics(maps, masks, fpr_limit=0.05, saturation=0.5)


def test_image_states_merge_and_travel():
    rng = np.random.default_rng(6)
    scores, labels = rng.integers(0, 9, 200) / 7, rng.random(200) < 0.4
    expected = image_metrics(scores, labels)
    one, two = ImageMetrics(), ImageMetrics()
    for index in rng.permutation(200):
        (one, two)[index % 2].update(float(scores[index]), bool(labels[index]))
    one.merge(ImageMetrics.from_state(two.state()))
    assert one.compute() == expected


def test_parts_with_other_settings_do_not_merge():
    with pytest.raises(UsageError, match=r"\(0.05, 1.0\) into \(0.3, 1.0\); make them the same"):
        PixelMetrics(0.3).merge(PixelMetrics(0.05))
    with pytest.raises(UsageError, match="Cannot merge"):
        PixelMetrics().merge(PixelMetrics(saturation=0.5))


def peak_bytes(task):
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("share", [0.03, 1.0])
def test_one_shot_needs_at_most_24_bytes_per_pixel(share):
    rng = np.random.default_rng(7)
    maps = rng.random((16, 640, 640), dtype=np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[:, : round(640 * share)] = True
    assert peak_bytes(lambda: pixel_metrics(maps, masks, num_threads=2)) <= 24 * maps.size


def test_the_state_is_bounded_by_its_pixels():
    maps, masks = case(8, num=40, size=256)
    masks &= np.random.default_rng(9).random(masks.shape) < 0.1
    metrics = PixelMetrics()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask)
    size = sum(array.nbytes for array in metrics.state().values())
    assert size <= 4 * maps.size + 8 * np.count_nonzero(masks) + 32


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))))
def test_components_equal_scipy(masks):
    pixels = np.flatnonzero(masks)
    if not len(pixels):
        return
    components, sizes = component_sizes(pixels, *masks.shape[1:])
    expected, offset = np.zeros(masks.shape, np.int64), 0
    for index, mask in enumerate(masks):
        labels, num = scipy_label(mask, np.ones((3, 3)))
        expected[index] = np.where(mask, labels + offset, 0)
        offset += num
    assert len(sizes) == offset
    np.testing.assert_array_equal(np.sort(sizes), np.sort(np.bincount(expected[masks])[1:]))
    pairs = np.unique(np.stack([components, expected[masks]]), axis=1)
    assert pairs.shape[1] == offset


def spiral(size):
    mask = np.zeros((size, size), bool)
    y, x, dy, dx = 0, 0, 0, 1
    for length in [size - 1] * 3 + [n for n in range(size - 3, 0, -2) for _ in range(2)]:
        for _ in range(length):
            mask[y, x] = True
            y, x = y + dy, x + dx
        dy, dx = dx, -dy
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        spiral(101),
        np.arange(64)[:, None] % 2 == 0 * np.arange(64),
        (np.arange(65)[None] % 2 == 0) | (np.arange(65)[:, None] == 64),
        np.add.outer(np.arange(50), np.arange(50)) % 2 == 0,
        np.ones((40, 7), bool),
    ],
    ids=["spiral", "stripes", "comb", "chessboard", "full"],
)
def test_long_winding_components_equal_scipy(mask):
    for turned in (mask, mask[::-1], mask.T):
        _, sizes = component_sizes(np.flatnonzero(turned), *turned.shape)
        labels, num = scipy_label(turned, np.ones((3, 3)))
        assert len(sizes) == num
        np.testing.assert_array_equal(np.sort(sizes), np.sort(np.bincount(labels[turned])[1:]))


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False)))
def test_words_sort_like_their_scores(scores):
    words = np.sort(encode(scores, np.arange(len(scores), dtype=np.uint32)))
    values, payload = decode(words)
    np.testing.assert_array_equal(values, np.sort(scores))
    np.testing.assert_array_equal(values, scores[payload])


def test_spans_never_divide_a_tie():
    scores = np.repeat(np.float32([1, 2, 3, 4]), [10, 100_000, 40_000, 5])
    words = encode(scores, np.arange(len(scores), dtype=np.uint32))
    cuts = spans(words)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == len(words)
    assert len(cuts) > 1
    for (_, end), (start, _) in pairwise(cuts):
        assert end == start
        assert scores[start - 1] < scores[start]


def test_a_pool_grows_over_several_blocks():
    pool = Pool(np.float32)
    values = np.random.default_rng(0).random(3_000_000, dtype=np.float32)
    for part in np.array_split(values, 7):
        pool.append(part)
    assert len(pool) == len(values)
    assert len(pool.blocks()) > 1
    np.testing.assert_array_equal(pool.to_array(), values)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [3, 200, 10**7])
def test_the_whole_curve_integrates_to_the_metric(limit, levels):
    maps, masks = case(10, levels=levels)
    metrics = PixelMetrics(limit)
    metrics.update(maps, masks)
    curve = metrics.pro_curve(None)
    area = np.trapezoid(curve.pro, curve.fpr) / limit
    np.testing.assert_allclose(area, metrics.compute().aupro, rtol=0, atol=1e-12)
    assert (curve.fpr[0], curve.pro[0], curve.fpr[-1]) == (0.0, 0.0, limit)
    assert (np.diff(curve.fpr) >= 0).all()
    assert (np.diff(curve.pro) >= 0).all()
    assert (np.diff(curve.thresholds) <= 0).all()


def test_vertices_are_what_their_thresholds_give():
    maps, masks = case(11, num=3, size=20, levels=40)
    metrics = PixelMetrics(0.3)
    metrics.update(maps, masks)
    curve = metrics.pro_curve()
    labelled = [scipy_label(mask, np.ones((3, 3))) for mask in masks]
    for fpr, pro, threshold in zip(curve.fpr[:-1], curve.pro[:-1], curve.thresholds[:-1], strict=True):
        np.testing.assert_allclose(fpr, np.mean(maps[~masks] >= threshold), atol=1e-12)
        overlaps = [
            np.mean(anomaly_map[labels == k] >= threshold)
            for anomaly_map, (labels, num) in zip(maps, labelled, strict=True)
            for k in range(1, num + 1)
        ]
        np.testing.assert_allclose(pro, np.mean(overlaps), atol=1e-12)


def test_a_thin_curve_keeps_its_ends_and_only_true_vertices():
    maps, masks = case(12, levels=10**7)
    metrics = PixelMetrics(0.3)
    metrics.update(maps, masks)
    whole, thinned = metrics.pro_curve(None), metrics.pro_curve(50)
    assert len(thinned.fpr) <= 50 < len(whole.fpr)
    assert set(zip(thinned.fpr, thinned.pro, strict=True)) <= set(zip(whole.fpr, whole.pro, strict=True))
    assert (thinned.fpr[-1], thinned.pro[-1]) == (whole.fpr[-1], whole.pro[-1])
    assert np.diff(thinned.fpr).max() < 0.3 * 3 / 50


def test_a_curve_that_cannot_be_says_why():
    metrics = PixelMetrics()
    metrics.update(np.zeros((3, 3), np.float32))
    with pytest.raises(BadInputError, match="no PRO curve: no pixel with a defect"):
        metrics.pro_curve()
    metrics.update(np.ones((3, 3), np.float32), np.eye(3, dtype=bool))
    with pytest.raises(UsageError, match="max_vertices is 1; expected at least 2"):
        metrics.pro_curve(1)
    assert metrics.pro_curve(2).fpr.tolist() == [0.0, 0.3]


def test_the_largest_float_has_a_curve():
    largest = np.finfo(np.float32).max
    metrics = PixelMetrics(1.0)
    metrics.update(np.array([[largest, 0.0, -largest]], np.float32), np.array([[1, 0, 1]]))
    curve = metrics.pro_curve()
    np.testing.assert_array_equal(curve.pro, [0.0, 0.5, 0.5, 1.0])
    np.testing.assert_array_equal(curve.fpr, [0.0, 0.0, 1.0, 1.0])
