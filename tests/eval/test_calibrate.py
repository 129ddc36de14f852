import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import now, open_bundle, write_bundle
from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.dataset import open_dataset
from lineproof.eval.calibrate import (
    calibrate_bundle,
    good_images,
    held_out,
    record_calibration,
)
from lineproof.eval.parity.verify import verify
from lineproof.runtime.engine import EngineOptions


@pytest.fixture
def good_folder(tmp_path):
    """20 even grey images; the score of image i on the tiny graph is i / 255."""
    folder = tmp_path / "held out"
    folder.mkdir()
    for level in range(20):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(folder / f"{level:02d}.png")
    return folder


def test_threshold_is_stored_for_that_engine_only(tiny_bundle, good_folder, add_engine):
    add_engine("numpy", lambda score, anomaly_map: (2 * score, 2 * anomaly_map))
    calibration = calibrate_bundle(
        tiny_bundle, good_images(good_folder), engine="numpy", source="held out", max_false_reject=0.1, batch=8
    )
    np.testing.assert_allclose(calibration.threshold.value, 2 * 17.5 / 255, rtol=1e-6)
    assert (calibration.threshold.num_rejected, calibration.threshold.num_good, calibration.threshold.engine) == (
        2,
        20,
        "numpy",
    )
    assert calibration.previous == tiny_bundle.manifest.threshold
    assert open_bundle(tiny_bundle.path).manifest.engine_thresholds == {}
    changed = record_calibration(tiny_bundle, calibration.threshold, who="Ann")
    manifest = open_bundle(tiny_bundle.path).manifest
    assert manifest == changed.manifest
    entry = manifest.history[-1]
    assert (entry.action, entry.who, entry.engine, entry.reason) == ("calibrate", "Ann", "numpy", "held out")
    assert (entry.previous, entry.value) == (tiny_bundle.manifest.threshold.value, calibration.threshold.value)
    assert manifest.is_decision_recorded
    assert manifest.threshold_for("numpy") == calibration.threshold
    assert manifest.threshold_for("torch") == manifest.threshold == tiny_bundle.manifest.threshold
    assert "2 of 20 good parts rejected, 95 % interval 1.2%–31.7%." in calibration.summary_lines()
    assert calibration.warning == ""
    plain = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert (plain["num_rejected"], plain["num_good"], plain["source"]) == (2, 20, "held out")


def test_a_second_engine_keeps_the_first(tiny_bundle, good_folder, add_engine):
    add_engine("first")
    add_engine("second")
    samples = good_images(good_folder)
    tiny_bundle.change(lambda manifest: manifest.with_parity("other", "passed", time=now()))
    for name in ("first", "second"):
        # The handle stays the old one: each change reads the manifest again.
        calibration = calibrate_bundle(tiny_bundle, samples, engine=name, source="x", max_false_reject=0.1)
        assert calibration.keep() == ()
    manifest = open_bundle(tiny_bundle.path).manifest
    assert set(manifest.engine_thresholds) == {"first", "second"}
    assert [entry.action for entry in manifest.history] == ["export", "calibrate", "calibrate"]
    # Proved for thresholds that are no longer all there are.
    assert manifest.parity_of("other") == "outdated"


def test_a_threshold_of_another_model_is_not_set(tiny_bundle, good_folder, add_engine):
    add_engine("numpy")
    calibration = calibrate_bundle(tiny_bundle, good_images(good_folder), engine="numpy", source="x")

    def other(folder):
        (folder / "model.onnx").write_bytes(tiny_bundle.model_path.read_bytes() + b"\0")
        (folder / "golden.npz").write_bytes((tiny_bundle.path / "golden.npz").read_bytes())

    write_bundle(tiny_bundle.path, replace(tiny_bundle.manifest, files={}, history=()), other)
    assert "exchanged for another model while this ran" in calibration.keep()[0]
    assert open_bundle(tiny_bundle.path).manifest.engine_thresholds == {}


def test_a_threshold_can_be_kept_beside_a_bundle_that_is_read_only(tiny_bundle, good_folder, add_engine, tmp_path):
    add_engine("numpy")
    calibration = calibrate_bundle(tiny_bundle, good_images(good_folder), engine="numpy", source="x")
    (warning,) = calibration.keep(record=tmp_path / "kept")
    assert "The bundle was not changed" in warning
    (entry,) = json.loads((tmp_path / "kept" / "calibration.json").read_text())
    assert entry["threshold"] == calibration.threshold.value
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.05, ""), (0.01, "20 good parts are too few to resolve a rate of 0.01: at least 100"), (0.0, "No good part")],
)
def test_too_few_parts_are_said(tiny_bundle, good_folder, add_engine, rate, words):
    add_engine("numpy")
    samples = good_images(good_folder)
    calibration = calibrate_bundle(tiny_bundle, samples, engine="numpy", source="x", max_false_reject=rate)
    assert calibration.warning.startswith(words)
    assert bool(calibration.warning) == bool(words)
    assert (calibration.warning in calibration.summary_lines()) == bool(words)


def test_images_that_do_not_fit_are_named(tiny_bundle, good_folder, add_engine):
    add_engine("numpy")
    Image.new("RGB", (40, 12)).save(good_folder / "wide.png")
    calibration = calibrate_bundle(
        tiny_bundle, good_images(good_folder), engine="numpy", source="x", max_false_reject=0.1
    )
    assert calibration.threshold.num_good == 20
    assert [item.sample.path.name for item in calibration.skipped_frames] == ["wide.png"]
    assert any("wide.png: the image is 12x40 (height x width)" in line for line in calibration.summary_lines())


def test_none_left_nan_and_defective_parts_are_refused(tiny_bundle, tiny_dataset, tmp_path, add_engine):
    add_engine("numpy", lambda score, anomaly_map: (score * np.float32("nan"), anomaly_map))
    Image.new("RGB", (40, 12)).save(tmp_path / "wide.png")
    with pytest.raises(BadInputError, match=r"None of the 1 held-out good images can be used.*12x40"):
        calibrate_bundle(tiny_bundle, good_images(tmp_path), engine="numpy", source="x")
    with pytest.raises(BadInputError, match=r"at least two finite scores .* got 8 \(8 not finite\)"):
        calibrate_bundle(tiny_bundle, tiny_dataset.train, engine="numpy", source="x")
    with pytest.raises(BadInputError, match="4 of 6 images are labelled defective"):
        calibrate_bundle(tiny_bundle, tiny_dataset.test, engine="numpy", source="x")
    with pytest.raises(UsageError, match=r"max_false_reject \(--max-false-reject\) is 1\.5"):
        calibrate_bundle(tiny_bundle, tiny_dataset.train, engine="numpy", source="x", max_false_reject=1.5)
    assert open_bundle(tiny_bundle.path).manifest.engine_thresholds == {}


def test_test_images_never_set_a_threshold(tiny_bundle, tiny_dataset):
    with pytest.raises(BadInputError, match=r"layout folder has no validation split.*plain folder of good images"):
        held_out(tiny_dataset, tiny_bundle.manifest)


def test_the_null_engine_sets_no_threshold(tiny_bundle, tiny_dataset):
    with pytest.raises(UsageError, match="Engine null computes nothing and answers zeros: it cannot set a threshold"):
        calibrate_bundle(tiny_bundle, tiny_dataset.train, engine="null", source="x")


def test_validation_split_is_held_out(tiny_bundle, tmp_path):
    for split in ("train/good", "validation/good", "test/good", "test/hole"):
        for kind in ("rgb", "gt"):
            (tmp_path / "bagel" / split / kind).mkdir(parents=True)
        Image.new("RGB", (16, 12)).save(tmp_path / "bagel" / split / "rgb" / "000.png")
        Image.new("L", (16, 12)).save(tmp_path / "bagel" / split / "gt" / "000.png")
    dataset = open_dataset(tmp_path / "bagel")
    assert [sample.path.parts[-4:-2] for sample in held_out(dataset, tiny_bundle.manifest)] == [("validation", "good")]


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="holds no image; expected a folder with images of good parts"):
        good_images(tmp_path)
    with pytest.raises(BadInputError, match="is not a folder"):
        good_images(tmp_path / "absent")


def test_a_threshold_from_bf16_scores_is_not_that_of_f32(tiny_bundle, tiny_dataset, add_engine):
    add_engine("numpy")
    bf16 = EngineOptions(compute_dtype="bf16")
    calibration = calibrate_bundle(tiny_bundle, tiny_dataset.train, engine="numpy", source="x", options=bf16)
    changed = record_calibration(tiny_bundle, calibration.threshold)
    assert list(changed.manifest.engine_thresholds) == ["numpy:bf16"]
    assert changed.manifest.threshold_for("numpy") == tiny_bundle.manifest.threshold
    report = verify(changed, engine="numpy", options=bf16)
    assert (report.threshold, report.threshold_engine) == (calibration.threshold.value, "numpy:bf16")
    assert "tiny on numpy:bf16 (fp32) against" in report.summary_lines()[0]
    assert verify(changed, engine="numpy").threshold == tiny_bundle.manifest.threshold.value


def test_an_option_that_the_engine_cannot_honour_is_refused_by_name(tiny_bundle, good_folder):
    with pytest.raises(UsageError, match=r"Engine ort-cpu runs on the CPU and has no device 1"):
        calibrate_bundle(
            tiny_bundle, good_images(good_folder), engine="ort-cpu", source="x", options=EngineOptions(device=1)
        )
