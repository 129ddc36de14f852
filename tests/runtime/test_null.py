"""The null engine."""

import numpy as np

from lineproof.runtime.engine import open_engine, predict


def test_answers_zeros(tiny_bundle):
    prediction = predict(open_engine(tiny_bundle, "null"), tiny_bundle.golden().frames)
    np.testing.assert_array_equal(prediction.score, np.zeros(8, np.float32))
    np.testing.assert_array_equal(prediction.anomaly_map, np.zeros((8, 12, 16), np.float32))
