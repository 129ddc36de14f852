"""The record of an import in a manifest, and what is said of its threshold."""

import dataclasses
import json

import pytest

from lineproof.bundle.description import BundleDescription
from lineproof.bundle.imported import ImportRecord, Normalisation
from lineproof.bundle.store import open_bundle

NUMBERS = Normalisation(threshold=12.0, low=5.0, high=25.0)
RECORD = ImportRecord(
    library="anomalib",
    library_version="2.7 or later",
    model="Padim",
    file="model.ckpt",
    sha256="0" * 64,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    image=NUMBERS,
    pixel=NUMBERS,
    image_sensitivity=0.6,
    good_split="test",
)


def described(bundle, record, threshold):
    changed = bundle.change(
        lambda manifest: dataclasses.replace(
            manifest, imported=record, threshold=dataclasses.replace(manifest.threshold, value=threshold, num_good=0)
        )
    )
    return "\n".join(BundleDescription(changed).summary_lines())


def test_a_manifest_without_the_record_does_not_name_it(tiny_bundle):
    assert "imported" not in json.loads(tiny_bundle.manifest.to_json())
    assert open_bundle(tiny_bundle.path).manifest.imported is None
    assert "Trained on 4 images" in "\n".join(BundleDescription(tiny_bundle).summary_lines())


def test_the_record_is_read_as_it_was_written_and_shown(tiny_bundle):
    said = described(tiny_bundle, RECORD, RECORD.threshold)
    assert open_bundle(tiny_bundle.path).manifest.imported == RECORD
    assert "Imported from anomalib 2.7 or later: Padim of model.ckpt" in said
    assert "What it was trained on is not recorded. 4 good images of test (test split) served for golden" in said
    assert "Trained on" not in said
    assert "anomalib's own threshold was set on the images of its validation" in said


def test_a_threshold_that_was_set_later_is_not_the_librarys(tiny_bundle):
    assert "own threshold was set" not in described(tiny_bundle, RECORD, 99.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 10.0002),
        ({"score_scale": "anomalib"}, 0.40001),
        ({"image_sensitivity": 0.5}, 12.0002),
        ({"image_sensitivity": 0.5, "is_inclusive": True}, 11.9998),
        ({"has_threshold": False}, None),
        ({"image": None}, None),
    ],
)
def test_the_threshold_is_in_units_of_the_bundles_scores_and_moved_off_a_parts_own_score(changes, expected):
    found = dataclasses.replace(RECORD, **changes).threshold
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize(
    ("split", "words"), [("test", "good test images"), ("train", "good training images"), ("validation", "")]
)
def test_without_a_threshold_the_caveat_names_the_split(split, words):
    caveat = dataclasses.replace(RECORD, has_threshold=False, good_split=split).threshold_caveat
    assert (words in caveat) if words else caveat == ""
