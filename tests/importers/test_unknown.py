"""What nobody knows of an imported bundle is said to be unknown, and no figure stands in for it."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.description import BundleDescription
from lineproof.bundle.imported import ImportRecord
from lineproof.core.errors import BadInputError
from lineproof.data.dataset import open_dataset
from lineproof.eval.good_parts import CalibrationRequest, calibrate_on, calibration_samples
from lineproof.eval.part import check_same_part
from lineproof.runtime.engine import availability


@pytest.fixture
def unknown(tiny_bundle):
    """The tiny bundle as if it were imported, its operations not counted."""

    def edit(manifest):
        training = dataclasses.replace(manifest.training, num_images=0, fingerprint="", category="parts")
        figures = dataclasses.replace(manifest.figures, flops={})
        imported = ImportRecord(
            library="ONNX", library_version="", model="x", file="x.onnx", sha256="0" * 64, mean=(0, 0, 0), std=(1, 1, 1)
        )
        return dataclasses.replace(manifest, training=training, figures=figures, imported=imported)

    return tiny_bundle.change(edit)


@pytest.fixture
def parts(tmp_path):
    """A category with training images and good test images, without a validation split."""
    for place in ("train/good", "test/good"):
        (tmp_path / "parts" / place).mkdir(parents=True)
        for number in range(2):
            level = 10 * number + 5 * len(place)
            Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(tmp_path / "parts" / place / f"{number}.png")
    return tmp_path / "parts"


def test_the_description_says_what_is_not_known(unknown):
    text = "\n".join(BundleDescription(unknown).summary_lines())
    assert "Imported from ONNX: x of x.onnx" in text
    assert "What it was trained on is not recorded. 4 good images of test parts served for golden frames." in text
    assert "GFLOP per frame: not known." in text
    assert unknown.manifest.figures.gflop is None
    assert "Trained on 0" not in text


def test_the_part_is_told_by_its_name_alone(unknown, parts, tmp_path):
    words = check_same_part(unknown.manifest, open_dataset(parts), other_data=False)
    assert words.startswith("tiny was imported, and what it was trained on is not recorded: that ")
    for path in (parts / "train" / "good").iterdir():
        path.unlink()
    parts.rename(tmp_path / "others")
    with pytest.raises(BadInputError, match=r"was trained on parts; the images of .* are of others"):
        check_same_part(unknown.manifest, open_dataset(tmp_path / "others"), other_data=False)


def test_images_of_its_training_split_set_no_threshold(unknown, parts):
    with pytest.raises(BadInputError, match=r"neither its training images \(tiny may have been fitted to them\) nor"):
        calibration_samples(CalibrationRequest(data=parts), unknown.manifest)
    fingerprint = open_dataset(parts).fingerprint()
    training = dataclasses.replace(unknown.manifest.training, fingerprint=fingerprint)
    manifest = dataclasses.replace(unknown.manifest, training=training)
    with pytest.raises(BadInputError, match="tiny was imported, and may have been fitted to them"):
        calibration_samples(CalibrationRequest(data=parts / "train" / "good"), manifest)


def test_a_calibration_says_that_nothing_is_known_of_the_training(unknown, images):
    if not availability("ort-cpu").is_available:
        pytest.skip("ort-cpu cannot run here")
    calibration = calibrate_on(unknown, CalibrationRequest(data=images, engine="ort-cpu"))
    assert "was imported, and what it was fitted to is not recorded: whether these images are among that" in (
        calibration.warning
    )
