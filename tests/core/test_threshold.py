import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.threshold import calibrate, clopper_pearson


def threshold(scores, max_false_reject):
    return calibrate(scores, max_false_reject=max_false_reject, engine="torch", source="test")


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=300),
    st.floats(0, 0.99),
)
def test_never_on_a_score_and_never_more_rejects_than_allowed(scores, max_false_reject):
    limit = threshold(scores, max_false_reject)
    assert limit.value not in scores
    assert limit.num_rejected == int((np.asarray(scores) > limit.value).sum())
    assert limit.num_rejected <= max_false_reject * len(scores)
    assert limit.interval_low <= limit.num_rejected / len(scores) <= limit.interval_high


def test_it_rejects_as_many_as_it_may():
    limit = threshold(list(range(200)), 0.01)
    assert limit.num_rejected == 2
    assert limit.value == 197.5
    assert limit.sentence() == "2 of 200 good parts rejected, 95 % interval 0.1%–3.6%"


def test_a_threshold_set_by_hand_promises_nothing():
    by_hand = dataclasses.replace(threshold([1.0, 2.0], 0.5), num_good=0, num_rejected=0)
    assert by_hand.sentence() == "it promises no rate of rejected good parts"


def test_interval_equals_the_exact_one():
    beta = pytest.importorskip("scipy.stats").beta
    for events, trials in [(0, 64), (1, 64), (3, 10), (10, 10), (5, 1000), (997, 1000)]:
        low = beta.ppf(0.025, events, trials - events + 1) if events else 0.0
        high = beta.ppf(0.975, events + 1, trials - events) if events < trials else 1.0
        np.testing.assert_allclose(clopper_pearson(events, trials), (low, high), atol=1e-9)


def test_float32_scores_are_judged_in_float64():
    low = np.float32(0.1)
    limit = threshold([float(low), float(np.nextafter(low, np.float32(1)))], 0.5)
    scores = np.array([low, np.nextafter(low, np.float32(1))])
    np.testing.assert_array_equal(limit.is_defect(scores), [False, True])


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match=r"max_false_reject \(--max-false-reject\) is 1\.0"):
        threshold([1.0, 2.0], 1.0)
    with pytest.raises(BadInputError, match="at least two finite scores"):
        threshold([1.0, float("nan")], 0.0)
    with pytest.raises(BadInputError, match="Hold out more"):
        threshold([1.0], 0.0)
