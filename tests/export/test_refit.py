"""The bundle of a detector that was fitted twice: its threshold is the first fit's, and that is said with it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from lineproof.bundle.decide import set_threshold
from lineproof.bundle.description import BundleDescription
from lineproof.bundle.runs.folder import RECORD, read_record
from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.threshold import calibrate
from lineproof.data.sample.write import write_sample
from lineproof.detectors.training.from_folder import train_detector
from lineproof.detectors.training.options import TrainOptions
from lineproof.eval.calibrate import record_calibration
from lineproof.eval.good_parts import CalibrationRequest, calibrate_on
from lineproof.eval.parity.verify import verify
from lineproof.export.bundle import export_bundle
from lineproof.export.options import ExportOptions
from lineproof.sweep.export_result import ExportResult

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": 64, "crop_px": 64, "num_features": 12}
CAVEAT = (
    "Refitted: this threshold was set on the scores that a first fit to 6 images gave 4 held-out ones; the detector "
    "was then fitted again to all 10, these included."
)


@pytest.fixture(scope="module")
def trained_twice(sample_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("refit") / "run"
    options = TrainOptions(refit=True, holdout=0.4)
    return train_detector("padim", sample_folder, category="flange", settings=SETTINGS, out=run, options=options)


@pytest.fixture
def bundle(trained_twice, tmp_path):
    return export_bundle(trained_twice.run, tmp_path / "a.bundle")


def says_so(lines):
    return sum(CAVEAT in line for line in lines)


def test_the_threshold_is_that_of_the_first_fits_scores(trained_twice, bundle):
    record = read_record(trained_twice.run)
    expected = calibrate(record.holdout_scores, max_false_reject=0.01, engine="torch", source="x")
    threshold = bundle.manifest.threshold
    assert threshold.value == expected.value
    assert bundle.manifest.score_spread == pytest.approx(np.std(record.holdout_scores, ddof=1))
    assert threshold.source.endswith("flange, on the scores of a first fit without them")
    assert bundle.manifest.history[-1].reason == threshold.source
    assert bundle.manifest.training == record.training


def test_what_the_training_prints_and_writes(trained_twice):
    assert says_so(trained_twice.summary_lines()) == 1
    assert trained_twice.warnings()[-1].startswith(CAVEAT)
    assert any("on 10 good images" in line and "4 of them held out from a first fit" in line
               for line in trained_twice.summary_lines())  # fmt: skip
    # The held-out images are no copies of others because they were fitted later.
    assert not [line for line in trained_twice.warnings() if "pixel by pixel" in line]
    assert trained_twice.to_dict()["training"]["refit"] == {"num_first": 6, "epochs": {}}


def test_export_inspect_and_verify_say_it(bundle):
    opened = open_bundle(bundle.path)
    assert opened.manifest.is_as_written
    assert says_so(BundleDescription(opened).summary_lines()) == 1
    report = verify(opened, engine="ort-cpu")
    assert report.passed
    assert report.threshold_note.startswith(CAVEAT)
    assert says_so(report.summary_lines()) == 1
    exported = ExportResult(bundle=opened, gate=None, parity=report, notes=())
    assert says_so(exported.summary_lines()) == 1
    assert says_so(exported.to_dict()["warnings"]) == 1


def test_the_runs_own_images_may_not_set_a_threshold_any_more(trained_twice, bundle):
    request = CalibrationRequest(data=trained_twice.run, engine="ort-cpu")
    with pytest.raises(BadInputError, match=r"4 of 4 images show what .* fitted to.* fitted again to all good images"):
        calibrate_on(bundle, request)


def test_new_good_parts_end_the_caveat_of_their_engine(bundle, tmp_path):
    write_sample(tmp_path / "more", num_train=14, num_test_good=2, num_test_defect=2, size_px=96)
    folder = tmp_path / "parts"
    folder.mkdir()
    for path in sorted((tmp_path / "more/flange/train/good").iterdir())[10:]:
        path.rename(folder / path.name)
    calibration = calibrate_on(bundle, CalibrationRequest(data=folder, engine="ort-cpu"))
    before = [line for line in calibration.summary_lines() if CAVEAT in line]
    assert [line.startswith("Before: Refitted") for line in before] == [True]
    assert calibration.to_dict()["previous_note"].startswith(CAVEAT)
    after = record_calibration(bundle, calibration.threshold)
    assert after.manifest.caveat_for("ort-cpu") == ""
    assert after.manifest.caveat_for("openvino").startswith(CAVEAT)
    assert verify(after, engine="ort-cpu").threshold_note == ""


def test_a_threshold_by_hand_has_no_caveat(bundle):
    set_threshold(bundle, value=1.0, reason="trial", who="me")
    assert open_bundle(bundle.path).manifest.caveat_for("ort-cpu") == ""


def test_other_frames_are_refused(trained_twice, tmp_path):
    """Their threshold would rest on what the detector gives images that it was fitted to."""
    options = ExportOptions(frame=(50, 130, 3), fit="stretch")
    with pytest.raises(UsageError, match=r"fitted again to its held-out images: .* no honest threshold"):
        export_bundle(trained_twice.run, tmp_path / "a.bundle", options=options)
    assert not (tmp_path / "a.bundle").exists()


def test_golden_frames_are_images_on_which_the_refitted_detector_decides(trained_twice, tmp_path):
    """Their distance to the threshold is that of its own scores, not of the first fit's."""
    run = tmp_path / "run"
    shutil.copytree(trained_twice.run, run)
    record = read_record(run)
    assert len(record.refit_scores) == len(record.holdout) == 4
    threshold = calibrate(record.holdout_scores, max_false_reject=0.01, engine="torch", source="x").value
    for index, name in enumerate(record.holdout):
        scores = [threshold - 1e6] * 4
        scores[index] = threshold
        (run / RECORD).write_text(json.dumps(dataclasses.asdict(record) | {"refit_scores": scores}))
        names = export_bundle(run, tmp_path / f"{index}.bundle").golden().names
        good = {str(item) for item in names if not item.endswith("+mark")}
        assert [str(item) for item in names] == [*sorted(good), *(f"{item}+mark" for item in sorted(good))]
        assert good == {f"good/{Path(item).name}" for item in record.holdout if item != name}


def test_a_manifest_without_a_second_fit_has_no_place_for_it(trained, tmp_path):
    bundle = export_bundle(trained.run, tmp_path / "a.bundle")
    assert "refit" not in json.loads((bundle.path / "manifest.json").read_text())["training"]
    assert bundle.manifest.caveat_for("ort-cpu") == ""
    assert verify(bundle, engine="ort-cpu").threshold_note == ""
