"""Only good pictures that nothing was fitted or judged on may set a threshold."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.dataset import open_dataset
from lineproof.runtime.engine import EngineOptions, availability
from lineproof.workflows.calibration import calibrate_on, calibration_samples


def test_a_folder_of_good_pictures(pictures, tiny_bundle):
    samples, words = calibration_samples(pictures, tiny_bundle.manifest, category=None)
    assert [sample.path.name for sample in samples] == ["0.png", "1.png", "2.png"]
    assert {sample.label for sample in samples} == {0}
    assert words == f"good pictures of {pictures}"


def test_a_runs_held_out_images(trained, tiny_bundle):
    samples, words = calibration_samples(trained.run, tiny_bundle.manifest, category=None)
    assert [str(sample.path) for sample in samples] == trained.record["holdout"]
    assert words == f"held-out images of {trained.run}"


def test_held_out_images_that_are_gone(trained, tiny_bundle, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    record = json.loads((run / "checkpoint.json").read_text())
    record["holdout"][1] = "/gone/001.png"
    (run / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(BadInputError, match=r"1 of 2 held-out images are gone, first /gone/001\.png"):
        calibration_samples(run, tiny_bundle.manifest, category=None)


def test_a_validation_split(tiny_bundle, tmp_path):
    for split in ("train/good", "validation/good", "test/good", "test/hole"):
        for kind in ("rgb", "gt"):
            (tmp_path / "bagel" / split / kind).mkdir(parents=True)
            Image.new("RGB" if kind == "rgb" else "L", (16, 12)).save(tmp_path / "bagel" / split / kind / "000.png")
    samples, words = calibration_samples(tmp_path, tiny_bundle.manifest, category="bagel")
    assert [sample.path.parts[-4] for sample in samples] == ["validation"]
    assert "validation split of" in words
    assert words.endswith("bagel")


def test_a_set_without_a_validation_split_is_refused(sample_folder, tiny_bundle):
    """Its good test pictures judge the detector, its training pictures made it: neither may set a threshold."""
    with pytest.raises(BadInputError, match="has no validation split"):
        calibration_samples(sample_folder, tiny_bundle.manifest, category="flange")
    with pytest.raises(UsageError, match="holds 2 categories and none was named"):
        calibration_samples(sample_folder, tiny_bundle.manifest, category=None)


def test_nothing_there(tiny_bundle, tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        calibration_samples(tmp_path / "absent", tiny_bundle.manifest, category=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="the folder is empty"):
        calibration_samples(tmp_path / "empty", tiny_bundle.manifest, category=None)


def test_a_threshold_is_found_and_nothing_is_written(tiny_bundle, tmp_path):
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(state.found)
    for level in range(20):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(tmp_path / f"{level:02d}.png")
    told = []
    found = calibrate_on(
        tiny_bundle, tmp_path, category=None, engine="ort-cpu", max_false_reject=0.1, options=EngineOptions(),
        progress=lambda *item: told.append(item),
    )  # fmt: skip
    np.testing.assert_allclose(found.threshold.value, 17.5 / 255, rtol=1e-6)
    assert found.threshold.source == f"good pictures of {tmp_path}"
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest
    assert told


def _fitted(dataset_folder, manifest):
    training = dataclasses.replace(manifest.training, fingerprint=open_dataset(dataset_folder).fingerprint())
    return dataclasses.replace(manifest, training=training)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("test/crack", "they are defective parts"),
        ("test/good", "they are test pictures"),
        ("train/good", "was fitted to them"),
    ],
)
def test_pictures_of_a_data_set_that_were_used_are_refused(sample_folder, tiny_bundle, folder, message):
    manifest = _fitted(sample_folder / "flange", tiny_bundle.manifest)
    with pytest.raises(BadInputError, match=message):
        calibration_samples(sample_folder / "flange" / folder, manifest, category=None)


def test_good_pictures_of_another_set_may_set_a_threshold(sample_folder, tiny_bundle):
    samples, _ = calibration_samples(sample_folder / "flange/train/good", tiny_bundle.manifest, category=None)
    assert samples
