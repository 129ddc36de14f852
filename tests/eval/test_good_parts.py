"""Only good images that nothing was fitted or judged on may set a threshold."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.runs.folder import read_record
from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.content import content_hash
from lineproof.data.dataset import open_dataset
from lineproof.eval.good_parts import CalibrationRequest, calibrate_on, calibration_samples
from lineproof.runtime.engine import availability

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": "64", "crop_px": "64", "num_features": "12"}


def test_a_folder_of_good_images(images, tiny_bundle):
    samples, words, _, _ = calibration_samples(CalibrationRequest(data=images), tiny_bundle.manifest)
    assert [sample.path.name for sample in samples] == ["0.png", "1.png", "2.png"]
    assert {sample.label for sample in samples} == {0}
    assert words == f"good images of {images}"


def test_a_runs_held_out_images(trained, tiny_bundle):
    samples, words, _, _ = calibration_samples(CalibrationRequest(data=trained.run), tiny_bundle.manifest)
    names = tuple(sample.path.relative_to(trained.record.root).as_posix() for sample in samples)
    assert names == trained.record.holdout
    assert words == f"held-out images of {trained.run}"


def test_held_out_images_that_are_gone(trained, tiny_bundle, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    record = json.loads((run / "checkpoint.json").read_text())
    record["holdout"][1] = "/gone/001.png"
    (run / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(BadInputError, match=r"1 of 2 held-out images are not where they were: /gone/001\.png.*--root"):
        calibration_samples(CalibrationRequest(data=run), tiny_bundle.manifest)


def test_a_validation_split(tiny_bundle, tmp_path):
    for split in ("train/good", "validation/good", "test/good", "test/hole"):
        for kind in ("rgb", "gt"):
            (tmp_path / "bagel" / split / kind).mkdir(parents=True)
            Image.new("RGB" if kind == "rgb" else "L", (16, 12)).save(tmp_path / "bagel" / split / kind / "000.png")
    samples, words, _, _ = calibration_samples(
        CalibrationRequest(data=tmp_path, category="bagel"), tiny_bundle.manifest
    )
    assert [sample.path.parts[-4] for sample in samples] == ["validation"]
    assert "validation split of" in words
    assert words.endswith("bagel")


def test_a_set_without_a_validation_split_is_refused(sample_folder, tiny_bundle):
    """Its good test images judge the detector, its training images made it: neither may set a threshold."""
    with pytest.raises(BadInputError, match="has no validation split"):
        calibration_samples(CalibrationRequest(data=sample_folder, category="flange"), tiny_bundle.manifest)
    with pytest.raises(UsageError, match="holds 2 categories and none was named"):
        calibration_samples(CalibrationRequest(data=sample_folder), tiny_bundle.manifest)


def test_nothing_there(tiny_bundle, tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        calibration_samples(CalibrationRequest(data=tmp_path / "absent"), tiny_bundle.manifest)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="the folder is empty"):
        calibration_samples(CalibrationRequest(data=tmp_path / "empty"), tiny_bundle.manifest)


def test_a_threshold_is_calibrated_and_nothing_is_written(tiny_bundle, tmp_path):
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(state.found)
    for level in range(20):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(tmp_path / f"{level:02d}.png")
    told = []
    calibration = calibrate_on(
        tiny_bundle, CalibrationRequest(data=tmp_path, engine="ort-cpu", max_false_reject=0.1),
        progress=lambda *item: told.append(item),
    )  # fmt: skip
    np.testing.assert_allclose(calibration.threshold.value, 17.5 / 255, rtol=1e-6)
    assert calibration.threshold.source == f"good images of {tmp_path}"
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest
    assert told
    assert "older release, which did not record what it was fitted to" in calibration.warning


def test_a_threshold_is_kept_only_where_enough_of_the_images_was_used(tiny_bundle, add_engine, tmp_path):
    add_engine("numpy")
    for index in range(10):
        size = (20, 12) if index < 2 else (16, 12)
        Image.new("RGB", size, (index, index, index)).save(tmp_path / f"{index}.png")
    request = CalibrationRequest(data=tmp_path, engine="numpy", max_false_reject=0.1, lists_all=True)
    calibration = calibrate_on(tiny_bundle, request)
    with pytest.raises(BadInputError, match=r"^The threshold was not set\. Only 8 of 10 images .* at least 90%"):
        calibration.check()
    assert any(line.startswith("  ") and "1.png: the image is 12x20" in line for line in calibration.summary_lines())
    assert calibration.keep(record=tmp_path / "kept") == calibration.keep() == ()
    assert not (tmp_path / "kept").exists()
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest
    enough = calibrate_on(tiny_bundle, dataclasses.replace(request, min_used=0.8))
    enough.check()
    assert enough.keep(who="Ann") == ()
    manifest = open_bundle(tiny_bundle.path).manifest
    assert manifest.threshold_for("numpy") == enough.threshold
    assert manifest.history[-1].who == "Ann"


def _fitted(dataset_folder, manifest):
    training = dataclasses.replace(manifest.training, fingerprint=open_dataset(dataset_folder).fingerprint())
    return dataclasses.replace(manifest, training=training)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("test/crack", "they are defective parts"),
        ("test/good", "they are test images"),
        ("train/good", "was fitted to them"),
    ],
)
def test_images_of_a_data_set_that_were_used_are_refused(sample_folder, tiny_bundle, folder, message):
    manifest = _fitted(sample_folder / "flange", tiny_bundle.manifest)
    with pytest.raises(BadInputError, match=message):
        calibration_samples(CalibrationRequest(data=sample_folder / "flange" / folder), manifest)


def test_good_images_of_another_set_may_set_a_threshold(sample_folder, tiny_bundle):
    samples, _, _, _ = calibration_samples(
        CalibrationRequest(data=sample_folder / "flange/train/good"), tiny_bundle.manifest
    )
    assert samples


@pytest.fixture
def own(trained, tiny_bundle):
    """A manifest that says the bundle was made from the trained run."""
    return dataclasses.replace(tiny_bundle.manifest, training=read_record(trained.run).training)


@pytest.fixture
def good(sample_folder):
    return sorted((sample_folder / "flange/train/good").iterdir())


@pytest.fixture
def fitted_images(good, own):
    return [path for path in good if content_hash(path) in own.training.fitted]


def test_the_bundles_own_run_is_taken(trained, own):
    samples, _, _, _ = calibration_samples(CalibrationRequest(data=trained.run), own)
    assert len(samples) == 2


def test_the_training_folder_is_refused_by_content(sample_folder, own, fitted_images):
    words = rf"8 of 10 images show what tiny was fitted to, pixel by pixel: {fitted_images[0]}, .* and 5 more\. A thres"
    with pytest.raises(BadInputError, match=words):
        calibration_samples(CalibrationRequest(data=sample_folder / "flange/train/good"), own)


@pytest.mark.parametrize("kind", ["copy", "stored anew", "link", "links", "one among others"])
def test_fitted_images_are_known_wherever_they_lie(tmp_path, own, fitted_images, good, kind):
    folder, num_fitted, num_all = tmp_path / "parts", 8, 8
    if kind == "link":
        folder.symlink_to(good[0].parent)
        num_all = 10
    else:
        folder.mkdir()
        for number, path in enumerate(fitted_images):
            place = folder / f"{number}.png"
            if kind == "links":
                place.symlink_to(path)
            elif kind == "stored anew":
                with Image.open(path) as image:
                    image.save(place.with_suffix(".tif"))
            else:
                shutil.copy(path, place)
    if kind == "one among others":
        for path in sorted(folder.iterdir())[1:]:
            Image.new("RGB", (96, 96), (int(path.stem), 0, 0)).save(path)
        num_fitted = 1
    with pytest.raises(BadInputError, match=rf"{num_fitted} of {num_all} images show what tiny was fitted to"):
        calibration_samples(CalibrationRequest(data=folder), own)


def test_the_hold_out_of_another_seed_is_refused(trained, own, sample_folder, tmp_path):
    from lineproof.detectors.training.from_folder import train_detector
    from lineproof.detectors.training.options import TrainOptions

    options = TrainOptions(seed=2)
    run = train_detector(
        "padim", sample_folder, category="flange", settings=SETTINGS, out=tmp_path / "seed", options=options
    ).run
    known = len(set(read_record(run).training.held_out) & set(own.training.fitted))
    assert known
    with pytest.raises(BadInputError, match=rf"{known} of 2 images show what tiny was fitted to"):
        calibration_samples(CalibrationRequest(data=run), own)
    assert trained.run != run


def test_another_products_run_is_refused(trained, own):
    manifest = dataclasses.replace(
        own, training=dataclasses.replace(own.training, category="screw", fingerprint="1" * 64, fitted=("0" * 16,))
    )
    with pytest.raises(BadInputError, match=r"trained on screw; the images of .* are of flange.*--other-data"):
        calibration_samples(CalibrationRequest(data=trained.run), manifest)
    samples, _, note, _ = calibration_samples(CalibrationRequest(data=trained.run, other_data=True), manifest)
    assert len(samples) == 2
    assert note.startswith("Other data: ")


def test_a_run_whose_data_was_moved(trained, own, sample_folder, tmp_path):
    run, data = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(trained.run, run)
    shutil.copytree(sample_folder, data)
    record = json.loads((run / "checkpoint.json").read_text())
    (run / "checkpoint.json").write_text(json.dumps({**record, "root": "/gone/flange"}))
    with pytest.raises(BadInputError, match=r"2 of 2 held-out images .*say where it lies now: --root ROOT"):
        calibration_samples(CalibrationRequest(data=run), own)
    samples, _, _, _ = calibration_samples(CalibrationRequest(data=run, root=data), own)
    assert all(sample.path.is_relative_to(data / "flange") for sample in samples)
    with pytest.raises(UsageError, match=r"root \(--root\) says where the data set of a run lies"):
        calibration_samples(CalibrationRequest(data=data / "flange/train/good", root=data), own)


def test_links_to_test_images_are_refused(sample_folder, own, tmp_path):
    (tmp_path / "folder").symlink_to(sample_folder / "flange/test/good")
    (tmp_path / "links").mkdir()
    for path in (sample_folder / "flange/test/good").iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    for name in ("folder", "links"):
        with pytest.raises(BadInputError, match="they are test images"):
            calibration_samples(CalibrationRequest(data=tmp_path / name), own)


def test_a_file_that_is_no_image_is_left_to_the_calibration(tmp_path, own):
    (tmp_path / "a.png").write_text("x")
    samples, _, _, _ = calibration_samples(CalibrationRequest(data=tmp_path), own)
    assert [sample.path.name for sample in samples] == ["a.png"]


def test_an_unfinished_run_is_called_that(trained, own, tmp_path):
    shutil.copy(trained.run / "train.json", tmp_path)
    with pytest.raises(BadInputError, match="is an unfinished training run of padim"):
        calibration_samples(CalibrationRequest(data=tmp_path), own)


def test_copies_of_one_image_are_no_parts_of_their_own(tiny_bundle, tmp_path):
    """30 copies gave an interval of 0.0% to 11.6% from one part."""
    folder = tmp_path / "held"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (16, 12), (number // 2, 0, 0)).save(folder / f"{number}.png")
    Image.new("RGB", (16, 12), (1, 0, 0)).save(folder / "3.bmp")
    with pytest.raises(BadInputError, match=r"2 of 4 images are copies of others among them, .*1\.png, .*3\.bmp\."):
        calibration_samples(CalibrationRequest(data=folder), tiny_bundle.manifest)
