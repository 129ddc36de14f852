"""The operating table: shares that are never exceeded, misses counted exactly, and a useless detector said first."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from lineproof.core.errors import BadInputError
from lineproof.metrics.operating import SHARES, Share, operating_table


def test_the_table_counts():
    good, defective = np.arange(40.0), np.arange(20.0, 60.0)
    scores, labels = np.concatenate([good, defective]), np.arange(80) >= 40
    table = operating_table(scores, labels, threshold=50.0)
    assert [point.allowed for point in table.points] == list(SHARES) == [0, 0.01, 0.05, 0.1]
    assert [point.threshold for point in table.points] == [39.0, 39.0, 37.0, 35.0]
    assert [point.rejected_good for point in table.points] == [Share(n, 40) for n in (0, 0, 2, 4)]
    assert [point.passed_defective for point in table.points] == [Share(n, 40) for n in (20, 20, 18, 16)]
    assert (table.calibrated.rejected_good, table.calibrated.passed_defective) == (Share(0, 40), Share(31, 40))
    expected = binomtest(18, 40).proportion_ci(method="exact")
    np.testing.assert_allclose(table.points[2].passed_defective.interval, expected, atol=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=80),
    st.floats(-1, 7, allow_nan=False),
)
def test_no_share_is_exceeded_and_no_lower_threshold_would_do(rows, threshold):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    table = operating_table(scores / 7, labels, threshold=threshold)
    good = scores[~labels] / 7
    for point in table.points:
        if not len(good):
            assert point.threshold is None
            continue
        assert point.rejected_good.num <= point.allowed * len(good) + 1e-9
        assert point.rejected_good.num == (good > point.threshold).sum()
        assert point.passed_defective.num == (scores[labels] / 7 <= point.threshold).sum()
        below = np.nextafter(point.threshold, -np.inf)
        assert (good > below).sum() > point.allowed * len(good) - 1e-9


def test_equal_scores_of_good_parts_are_rejected_together_or_not_at_all():
    """Five of forty tie at the top: 10 % would allow four, so none of the five is rejected."""
    scores = np.concatenate([np.zeros(35), np.ones(5), [1.0, 2.0]])
    table = operating_table(scores, np.arange(42) >= 40, threshold=0.5)
    assert [point.rejected_good.num for point in table.points] == [0, 0, 0, 0]
    assert [point.passed_defective.num for point in table.points] == [1, 1, 1, 1]


def test_a_useless_detector_is_said_first():
    scores = np.concatenate([np.linspace(0, 1, 41), np.full(118, 0.5), [2.0]])
    labels = np.arange(160) >= 41
    table = operating_table(scores, labels, threshold=1.1)
    assert table.warnings() == ["Misses 118 of 119 defects at this threshold (1.1)."]
    assert operating_table(scores, labels, threshold=0.4).warnings() == []
    assert table.to_dict()["warnings"] == table.warnings()


def test_half_of_the_defects_is_no_warning_and_one_more_is():
    scores = np.array([0.0, 0.0, 1.0, 1.0])
    labels = np.array([False, True, True, True])
    assert operating_table(scores[[0, 1, 2]], labels[[0, 1, 2]], threshold=0.5).warnings() == []
    assert operating_table(scores, labels, threshold=1.0).warnings() == ["Misses 3 of 3 defects at this threshold (1)."]


@pytest.mark.parametrize(("label", "noun"), [(True, "good"), (False, "defective")])
def test_without_a_class_it_is_said_and_shown_as_none(label, noun):
    table = operating_table([1.0, 2.0], [label, label], threshold=0.0)
    assert table.warnings()[0] == f'No {noun} test image: figures that need one are "-".'
    rows = [point.cells() for point in table.points]
    assert {row[-1] if noun == "defective" else row[1] for row in rows} == {"-"}
    json.dumps(table.to_dict(), allow_nan=False)


def test_the_text_fits_a_terminal():
    rng = np.random.default_rng(0)
    scores = -1e-5 * rng.random(20_000)
    table = operating_table(scores, rng.random(20_000) < 0.5, threshold=float(scores.max()))
    lines = "\n".join(table.summary_lines()).splitlines()
    assert len(lines) == 8
    assert max(map(len, lines)) <= 110
    assert lines[-1] == "Thresholds but the one in use are read off the test images, for orientation only."
    assert lines[-2].startswith("in use ")


def test_scores_that_are_no_numbers_are_refused():
    for scores, labels in (([np.nan, 1.0], [True, False]), ([1.0], [True, False]), ([[1.0]], [[True]])):
        with pytest.raises(BadInputError, match="An operating table expects one finite score per label"):
            operating_table(scores, labels, threshold=0.0)
