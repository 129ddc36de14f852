import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineproof.core.errors import UsageError
from lineproof.profiles.latency import Samples, count_missed, nearest_rank, summarise


def samples(total_ms):
    """Calls of one stage only."""
    stages = np.zeros((len(total_ms), 3), np.int64)
    stages[:, 1] = np.array(total_ms) * 1_000_000
    return Samples(stages, None)


def test_ten_samples_by_hand():
    latency = summarise(np.array([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], np.int64) * 1_000_000)
    assert latency.to_dict() == {
        "min": 1.0, "mean": 5.5, "p50": 5.0, "p90": 9.0, "p95": 10.0, "p99": 10.0, "p999": 10.0, "max": 10.0,
    }  # fmt: skip


def test_thousand_samples_by_hand():
    latency = summarise(np.arange(1, 1001, dtype=np.int64)[::-1] * 1_000_000)
    assert (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max) == (
        500,
        900,
        950,
        990,
        999,
        1000,
    )


def test_an_outlier_stays():
    latency = summarise(np.array([1] * 199 + [70], np.int64) * 1_000_000)
    assert (latency.p50, latency.p99, latency.p999, latency.max) == (1.0, 1.0, 70.0, 70.0)
    np.testing.assert_allclose(latency.mean, (199 + 70) / 200)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.integers(1, 1000))
def test_percentile_is_the_smallest_sample_that_enough_are_not_above(values, per_mille):
    ascending = np.sort(np.array(values, np.int64))
    percentile = nearest_rank(ascending, per_mille=per_mille)
    assert (ascending <= percentile).sum() * 1000 >= per_mille * len(values)
    below = ascending[ascending < percentile]
    assert percentile in values
    assert len(below) * 1000 < per_mille * len(values)


def test_percentile_equals_numpy_inverted_cdf():
    values = np.sort(np.random.default_rng(0).integers(0, 10**9, 777))
    for per_mille in (500, 900, 950, 990, 999):
        assert nearest_rank(values, per_mille=per_mille) == np.quantile(values, per_mille / 1000, method="inverted_cdf")


def test_no_sample_is_refused():
    with pytest.raises(UsageError, match="no time sample"):
        summarise(np.array([], np.int64))


def test_stages_add_up_and_all_are_kept():
    stages = np.array([[1, 20, 3], [2, 30, 4]], np.int64)
    timed = Samples(stages, np.array([19, 28], np.int64))
    np.testing.assert_array_equal(timed.total_ns, [24, 36])
    assert timed.stage("execute").max == 30 / 1e6
    assert json.loads(json.dumps(timed.to_dict())) == {
        "upload_ns": [1, 2], "execute_ns": [20, 30], "download_ns": [3, 4], "device_ns": [19, 28],
    }  # fmt: skip


def test_deadline_counts_what_is_longer_not_what_is_equal():
    deadline = count_missed(samples([5, 10, 11, 30]), 10.0)
    assert (deadline.num_missed, deadline.num_runs, deadline.miss_rate) == (2, 4, 0.5)
    assert deadline.to_dict() == {"deadline_ms": 10.0, "num_missed": 2, "num_runs": 4, "miss_rate": 0.5}
    assert count_missed(samples([5, 10]), 10.0).num_missed == 0


@pytest.mark.parametrize("deadline_ms", [0.0, -1.0, float("nan")])
def test_deadline_must_be_a_time(deadline_ms):
    with pytest.raises(UsageError, match=r"deadline_ms \(--deadline-ms\) is .*; expected a time above 0"):
        count_missed(samples([1]), deadline_ms)
