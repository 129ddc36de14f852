"""Sizes of images in settings and in records, those of earlier releases included."""

import json

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

from lineproof.bundle.manifest import DetectorRecord  # noqa: E402
from lineproof.bundle.runs.folder import CHECKPOINT, RECORD, read_record  # noqa: E402
from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.detectors import base  # noqa: E402
from lineproof.detectors.base import make_config, stored_parameters  # noqa: E402
from lineproof.detectors.distance.padim import Padim, PadimConfig  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector  # noqa: E402
from lineproof.detectors.training.train import train  # noqa: E402

SMALL = {"backbone": "test_resnet", "weights": "random", "num_features": 3}
#: What earlier releases wrote, in parts: one number for the side of a square.
OLD_RECORD = """{
  "detector": {"name": "padim", "parameters": {"backbone": "test_resnet", "crop_px": 64, "num_features": 3,
                                               "regularisation": 0.01, "resize_px": 80, "weights": "random"}},
  "training": {"category": "", "dataset": "d", "fingerprint": "f", "num_holdout": 2, "num_images": 8, "seed": 0},
  "holdout": [], "holdout_scores": [], "frame": [96, 96], "fit": {}
}"""
OLD_STATE = """{"parameters": {"backbone": "test_resnet", "crop_px": 64, "num_features": 3, "regularisation": 0.01,
                 "resize_px": 64, "weights": "random"}, "detector": "padim", "seed": 0, "holdout": 0.2}"""


@pytest.mark.parametrize("value", [(64, 192), [64, 192], "64x192", "64X192"])
def test_height_and_width_are_taken_in_every_form(value):
    config = make_config("padim", {"resize_px": value, "crop_px": value})
    assert (config.resize_px, config.crop_px) == ((64, 192), (64, 192))


@pytest.mark.parametrize("value", [64, "64", (64, 64), [64]])
def test_one_number_is_a_square(value):
    assert make_config("padim", {"crop_px": value}).crop_px == (64, 64)


@pytest.mark.parametrize("value", ["64x", "0x64", -64, True, 64.0, [64, 64, 3], None, "a"])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(UsageError, match=r"^padim: parameter crop_px: .* is no size; expected HEIGHTxWIDTH, such as"):
        make_config("padim", {"crop_px": value})


@pytest.mark.parametrize("crop", ["65x192", "64x193", "192x64"])
def test_a_crop_larger_than_the_image_on_either_axis_is_refused(crop):
    with pytest.raises(UsageError, match=f"^crop_px {crop} is larger than resize_px 64x192"):
        make_config("padim", {"resize_px": "64x192", "crop_px": crop})


def test_a_detector_that_takes_squares_alone_says_why(monkeypatch):
    class Square(Padim):
        takes_rectangles = False
        why_squares = "compares an image with itself turned by 90 degrees"

    monkeypatch.setattr(base, "resolve", lambda *_, **__: Square)
    assert make_config("square", {"resize_px": "64x192", "crop_px": 64}).crop_px == (64, 64)
    words = r"crop_px is 64x192, but square compares an image with itself turned by 90 degrees\. Give a crop as wide"
    with pytest.raises(UsageError, match=words):
        make_config("square", {"resize_px": "64x192", "crop_px": "64x192"})


def test_records_hold_height_and_width():
    assert stored_parameters({"resize_px": (64, 192), "crop_px": 48, "epochs": 3}) == {
        "resize_px": [64, 192], "crop_px": [48, 48], "epochs": 3,
    }  # fmt: skip


def test_an_old_record_of_a_run_is_read(dataset, tmp_path):
    run = tmp_path / "run"
    settings = {**SMALL, "resize_px": 80, "crop_px": 64}
    written = train("padim", make_config("padim", settings), dataset=dataset, run=run)
    assert json.loads((run / RECORD).read_text())["detector"]["parameters"]["resize_px"] == [80, 80]
    assert read_record(run).detector == written.detector
    (run / RECORD).write_text(OLD_RECORD)
    record = read_record(run)
    assert record.detector == DetectorRecord("padim", json.loads(OLD_RECORD)["detector"]["parameters"])
    old, new = (load_detector(item, run / CHECKPOINT) for item in (record.detector, written.detector))
    assert old.config == new.config == PadimConfig(**SMALL, resize_px=(80, 80), crop_px=(64, 64))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        np.testing.assert_array_equal(old(images)[1].numpy(), new(images)[1].numpy())


def test_an_unfinished_run_holds_height_and_width_and_an_earlier_one_is_refused_in_words(dataset, tmp_path):
    config = make_config("padim", {**SMALL, "resize_px": 64, "crop_px": 64})
    run = tmp_path / "run"
    train("padim", config, dataset=dataset, run=run)
    assert json.loads((run / "train.json").read_text())["parameters"]["crop_px"] == [64, 64]
    (run / RECORD).unlink()
    train("padim", config, dataset=dataset, run=run)
    assert read_record(run).detector.parameters["crop_px"] == [64, 64]
    # Earlier releases did not say which images a run was begun with, whatever the sizes.
    (run / RECORD).unlink()
    (run / "train.json").write_text(OLD_STATE)
    with pytest.raises(BadInputError, match="does not say which images it was begun with"):
        train("padim", config, dataset=dataset, run=run)
