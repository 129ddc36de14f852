"""Thresholds and normalisation as releases keep them, and the threshold of a bundle that follows."""

import math
import sys
import types

import numpy as np
import pytest
import torch

from lineproof.core.errors import BadInputError
from lineproof.importers.anomalib.checkpoint import read_checkpoint
from lineproof.importers.anomalib.scores import import_record
from lineproof.importers.anomalib.transform import Transform

TRANSFORM = Transform(resize_px=(64, 64), crop_px=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
NAN = torch.tensor(float("nan"))


@pytest.fixture
def record(write):
    def read(values, score_scale="native"):
        checkpoint = read_checkpoint(write(values))
        return import_record(checkpoint, model="Padim", transform=TRANSFORM, score_scale=score_scale)

    return read


def former(values, **changes):
    """The same numbers as releases before 2.0 keep them."""
    state = {key: item for key, item in values["state_dict"].items() if not key.startswith("post_processor.")}
    state |= {f"{part}_threshold_class": "anomalib.metrics.F1AdaptiveThreshold" for part in ("image", "pixel")}
    for part in ("anomaly_maps", "box_scores", "pred_scores"):
        state[f"{part}_normalization_class"] = "anomalib.metrics.min_max.MinMax"
        state |= {f"normalization_metrics.{part}.min": torch.tensor(5.0)}
        state |= {f"normalization_metrics.{part}.max": torch.tensor(25.0)}
    state |= {"image_threshold.value": torch.tensor(12.0), "pixel_threshold.value": torch.tensor(13.0)}
    kept = {key: item for key, item in values.items() if not key.startswith("anomalib_")}
    return {**kept, "state_dict": state | changes}


def test_the_numbers_are_found_where_each_release_keeps_them(contents, record):
    later = record(contents())
    values = contents()
    del values["anomalib_post_processor_config"]
    earlier, first = record(values), record(former(contents()))
    for item in (later, earlier, first):
        assert (item.image.threshold, item.image.low, item.image.high) == (12.0, 5.0, 25.0)
        assert (item.pixel.threshold, item.pixel.low, item.pixel.high) == (13.0, 5.0, 25.0)
    assert [item.library_version for item in (later, earlier, first)] == ["2.7 or later", "2.0 to 2.6", "1.x"]


def test_a_score_equal_to_the_threshold_is_defective_before_2_0_and_good_since(contents, record):
    # The threshold is moved off the part whose own score it is, by 1e-5 of the range of scores (20, or 1).
    for scale, on_it, moved in (("native", 12.0, 2e-4), ("anomalib", 0.5, 1e-5)):
        np.testing.assert_allclose(record(contents(), scale).threshold, on_it + moved, rtol=1e-12)
        np.testing.assert_allclose(record(former(contents()), scale).threshold, on_it - moved, rtol=1e-12)


def test_a_sensitivity_moves_the_threshold_and_not_the_scale(contents, record):
    values = contents()
    values["anomalib_post_processor_config"] |= {"image_sensitivity": 0.7, "pixel_sensitivity": 0.2}
    native, scaled = record(values), record(values, "anomalib")
    assert math.isclose(scaled.threshold, 0.30001)
    # The score that anomalib's scale shows as 0.30001.
    assert math.isclose((native.threshold - 12.0) / 20.0 + 0.5, 0.30001)
    assert native.pixel_sensitivity == 0.2


def test_a_pickled_post_processor_says_its_sensitivity(contents, record, monkeypatch):
    module = types.ModuleType("anomalib_stand_in")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def given(name, **state):
        kind = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kind)
        made = kind()
        made.__dict__.update(state)
        values = contents()
        del values["anomalib_post_processor_config"]
        values["hyper_parameters"]["post_processor"] = made
        return record(values)

    assert given("PostProcessor", image_sensitivity=0.7).image_sensitivity == 0.7
    assert given("OneClassPostProcessor", training=True).image_sensitivity == 0.5
    with pytest.raises(BadInputError, match=r"post_processor = anomalib_stand_in\.Own; expected anomalib's own"):
        given("Own")


@pytest.mark.parametrize("value", ["much", True, 1.5, None])
def test_a_sensitivity_that_is_no_share_is_refused(value, contents, record):
    values = contents()
    values["anomalib_post_processor_config"]["image_sensitivity"] = value
    with pytest.raises(BadInputError, match=r"image_sensitivity of its post-processor is .*; expected a share"):
        record(values)


def test_a_switch_that_is_none_is_refused(contents, record):
    values = contents()
    values["anomalib_post_processor_config"]["enable_threshold_matching"] = "yes"
    with pytest.raises(BadInputError, match="enable_threshold_matching of its post-processor is 'yes'"):
        record(values)


def test_one_threshold_stands_in_for_the_other_only_where_they_are_matched(contents, record):
    values = contents(threshold=0.0)
    values["state_dict"]["post_processor._pixel_threshold"] = NAN
    found = record(values)
    # A threshold of 0 is one.
    assert (found.image.threshold, found.pixel.threshold, found.has_threshold) == (0.0, 0.0, True)
    values["anomalib_post_processor_config"]["enable_threshold_matching"] = False
    assert record(values).pixel.threshold == 15.0  # The middle of the range, as anomalib takes it.


def test_without_a_threshold_there_is_none_and_the_scale_stays(contents, record):
    values = contents()
    for part in ("image", "pixel"):
        values["state_dict"][f"post_processor._{part}_threshold"] = NAN
    for scale in ("native", "anomalib"):
        found = record(values, scale)
        assert found.threshold is None
        assert (found.image.threshold, found.has_threshold) == (15.0, False)


def test_a_scale_that_the_file_does_not_say_is_refused(contents, record):
    values = contents(low=9.0, high=9.0)
    assert record(values).threshold == 12.0
    with pytest.raises(BadInputError, match=r"has one value only in the range of image scores; .*--score-scale native"):
        record(values, "anomalib")
    for key in ("image_min", "image_max"):
        values["state_dict"][f"post_processor.{key}"] = NAN
    assert record(values).threshold == 12.0
    with pytest.raises(BadInputError, match=r"has one value only|does not say how it normalises image scores"):
        record(values, "anomalib")
    for key in list(values["state_dict"]):
        if key.startswith("post_processor."):
            del values["state_dict"][key]
    with pytest.raises(BadInputError, match=r"lacks post_processor\._image_threshold, .*The file was changed"):
        record(values)
    values["anomalib_components_enabled"] = {"pre_processor": True, "post_processor": False}
    found = record(values)
    assert (found.image, found.pixel, found.threshold) == (None, None, None)
    with pytest.raises(BadInputError, match="does not say how it normalises image scores"):
        record(values, "anomalib")


def test_a_normalisation_of_another_kind_is_refused(contents, record):
    values = former(contents(), pred_scores_normalization_class="anomalib.metrics.AnomalyScoreDistribution")
    with pytest.raises(BadInputError, match=r"normalises its scores by anomalib\.metrics\.AnomalyScoreDistribution"):
        record(values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("_image_threshold", float("inf"), "image threshold is inf; expected finite numbers"),
        ("image_max", float("-inf"), "image max is -inf; expected finite numbers"),
        ("image_min", 30.0, "image min 30 is above image max 25; expected a range"),
    ],
)
def test_numbers_that_cannot_be_are_refused(key, value, message, contents, record):
    values = contents()
    values["state_dict"][f"post_processor.{key}"] = torch.tensor(value)
    with pytest.raises(BadInputError, match=message):
        record(values)


def test_a_switch_that_is_not_known_is_named(contents, record):
    values = contents()
    values["anomalib_post_processor_config"]["temperature"] = 2.0
    with pytest.raises(BadInputError, match="has settings that are not known here: temperature"):
        record(values)


@pytest.mark.parametrize("switch", ["enable_normalization", "enable_thresholding"])
def test_without_verdicts_of_its_own_it_brings_no_threshold(switch, contents, record):
    values = contents()
    values["anomalib_post_processor_config"][switch] = False
    found = record(values)
    assert (found.threshold, found.has_threshold) == (None, False)
    assert (found.image is None) == (switch == "enable_normalization")
