"""Outputs of imported models in the form of a bundle's: shapes of many exporters, maps of any size."""

import numpy as np
import pytest

from lineproof.core.errors import BadInputError
from lineproof.core.imported_model import ImportedModel
from lineproof.runtime.original import map_of, map_px, prepare, scores_of, shaped

MODEL = ImportedModel(
    frame_height_px=4, frame_width_px=6, frame_channels=1, resize_px=None, crop_px=None, value_range="0..255",
    mean=(10.0,), std=(2.0,), channel_order="mono", layout="NHWC", input="x", score=None, anomaly_map="m",
    score_from_map=2,
)  # fmt: skip


def test_a_mono_model_takes_one_channel_of_grey_levels():
    frames = np.arange(24, dtype=np.uint8).reshape(1, 4, 6, 1)
    images = prepare(frames, MODEL, dtype="float16")
    assert (images.dtype, images.shape) == (np.float16, (1, 4, 6, 1))
    np.testing.assert_allclose(images, (frames.astype(np.float64) - 10) / 2)


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 3, 4, 1), (2, 3, 4)])
def test_maps_of_any_form_are_planes(shape):
    values = np.arange(24.0)
    np.testing.assert_array_equal(map_of(values.reshape(shape), name="m", num=2), values.reshape(2, 3, 4))


def test_outputs_of_another_form_are_refused():
    with pytest.raises(BadInputError, match=r"Output m has the shape \(1, 2, 3, 4\) for 1 image; .*several channels"):
        map_of(np.zeros((1, 2, 3, 4)), name="m", num=1)
    with pytest.raises(BadInputError, match=r"Output s has the shape \(2, 2\) for 2 images; expected a score each"):
        scores_of(np.zeros((2, 2)), name="s", num=2)
    assert scores_of(np.float32(3.0), name="s", num=1).tolist() == [3.0]


def test_a_larger_map_stays_as_it_is_and_its_score_is_made_before_it_is_enlarged():
    assert map_px((8, 12), MODEL) == (8, 12)
    assert map_px((2, 3), MODEL) == (4, 6)
    large = shaped({"m": np.arange(96.0).reshape(1, 8, 12)}, MODEL, num=1)
    np.testing.assert_array_equal(large.anomaly_map[0], np.arange(96.0).reshape(8, 12))
    small = shaped({"m": np.array([[[0.0, 4.0], [2.0, 8.0]]])}, MODEL, num=1)
    assert small.score.tolist() == [6.0]
    assert (small.anomaly_map.shape, small.anomaly_map.max()) == ((1, 4, 6), 8.0)
