"""Images of another part are refused or said; the same part is let through, whatever its folder is called."""

import dataclasses
import json
import shutil

import pytest

from lineproof.core.errors import BadInputError
from lineproof.data.dataset import open_dataset
from lineproof.eval.accuracy.evaluate import EvaluationRequest, evaluate
from lineproof.eval.accuracy.outputs import collect_outputs
from lineproof.eval.good_parts import CalibrationRequest, calibrate_on
from lineproof.eval.parity.proof import record_parity
from lineproof.eval.parity.verify import verify
from lineproof.eval.part import check_same_category, check_same_part


def of_part(bundle, category, fingerprint="f" * 64):
    training = dataclasses.replace(bundle.manifest.training, category=category, fingerprint=fingerprint)
    return bundle.change(lambda manifest: dataclasses.replace(manifest, training=training))


def test_the_same_training_images_are_the_same_part_whatever_the_name(tiny_bundle, tiny_dataset):
    bundle = of_part(tiny_bundle, "hazelnut", tiny_dataset.fingerprint())
    assert check_same_part(bundle.manifest, tiny_dataset, other_data=False) == ""


def test_another_category_is_refused_unless_accepted(tiny_bundle, tiny_dataset):
    manifest = of_part(tiny_bundle, "hazelnut").manifest
    with pytest.raises(
        BadInputError, match=r"tiny was trained on hazelnut; the images of .*parts are of parts.*--other-data"
    ):
        check_same_part(manifest, tiny_dataset, other_data=False)
    said = check_same_part(manifest, tiny_dataset, other_data=True)
    assert said.startswith("Other data: tiny was trained on hazelnut; the images of ")
    assert said.endswith("are of parts; accepted as asked (--other-data).")


@pytest.mark.parametrize("name", ["parts", "Parts", "PARTS"])
def test_the_same_name_with_other_training_images_is_said(tiny_bundle, tiny_dataset, name):
    said = check_same_part(of_part(tiny_bundle, name).manifest, tiny_dataset, other_data=False)
    assert tiny_dataset.fingerprint()[:12] in said
    assert "ffffffffffff" in said
    assert "are not those that the bundle was trained on" in said


def test_a_target_without_training_images_is_told_by_its_name(tiny_bundle, tiny_dataset):
    tested = dataclasses.replace(tiny_dataset, samples=tiny_dataset.test)
    said = check_same_part(of_part(tiny_bundle, "parts").manifest, tested, other_data=False)
    assert "holds no training images" in said
    with pytest.raises(BadInputError, match="--other-data"):
        check_same_part(of_part(tiny_bundle, "screw").manifest, tested, other_data=False)


@pytest.mark.parametrize(("trained", "category"), [("", "screw"), ("screw", ""), ("screw", "SCREW")])
def test_a_name_that_is_not_known_differs_from_none(tiny_bundle, trained, category):
    manifest = of_part(tiny_bundle, trained).manifest
    assert check_same_category(manifest, category, other_data=False, where="here") == ""


def test_verify_refuses_another_part_before_it_runs_and_keeps_what_was_accepted(tiny_bundle, tiny_dataset, add_engine):
    made = add_engine("numpy")
    add_engine("truth")
    bundle = of_part(tiny_bundle, "hazelnut")
    with pytest.raises(BadInputError, match="trained on hazelnut"):
        verify(bundle, engine="numpy", dataset=tiny_dataset, reference="truth")
    assert made.batches == []
    assert not (bundle.path / "proof.json").exists()
    report = verify(bundle, engine="numpy", dataset=tiny_dataset, reference="truth", other_data=True)
    assert report.part_note.startswith("Other data: tiny was trained on hazelnut")
    assert report.notices == (report.part_note,)
    record_parity(bundle, report)
    (kept,) = json.loads((bundle.path / "proof.json").read_text())
    assert kept["part_note"] == report.part_note
    assert kept["conversions"] == []


def test_outputs_carry_what_was_said(tiny_bundle, tiny_dataset, add_engine, tmp_path):
    add_engine("numpy")
    bundle = of_part(tiny_bundle, "hazelnut")
    with pytest.raises(BadInputError, match="trained on hazelnut"):
        collect_outputs(bundle, tiny_dataset, engine="numpy")
    outputs = collect_outputs(bundle, tiny_dataset, engine="numpy", other_data=True)
    assert outputs.source.notices[0] == outputs.source.part_note
    request = EvaluationRequest(data=tiny_dataset.root, engine="numpy", other_data=True)
    evaluation = evaluate([bundle.path], request, save=tmp_path / "kept.npz")
    assert evaluation.notices == outputs.source.notices
    assert evaluation.to_dict()["evaluated"][0]["part_note"] == outputs.source.part_note
    again = evaluate([tmp_path / "kept.npz"], EvaluationRequest())
    assert again.notices == evaluation.notices
    with pytest.raises(BadInputError, match=r"the images of .*parts are of parts"):
        evaluate([bundle.path], EvaluationRequest(data=tiny_dataset.root, engine="numpy"))


def make_run(folder, category, fingerprint, paths):
    folder.mkdir()
    training = {
        "dataset": "x", "category": category, "fingerprint": fingerprint, "num_images": 1, "num_holdout": len(paths),
        "seed": 0,
    }  # fmt: skip
    record = {
        "training": training, "holdout": [str(path) for path in paths], "detector": {"name": "tiny", "parameters": {}},
        "holdout_scores": [0.0] * len(paths), "frame": [12, 16], "fit": {},
    }  # fmt: skip
    (folder / "checkpoint.json").write_text(json.dumps(record))
    return folder


def test_calibrate_refuses_the_run_of_another_part(tiny_bundle, tiny_dataset, add_engine, tmp_path):
    add_engine("numpy")
    bundle = of_part(tiny_bundle, "hazelnut", "a" * 64)
    paths = [sample.path for sample in tiny_dataset.train]
    screws = make_run(tmp_path / "screws", "screw", "b" * 64, paths)
    with pytest.raises(BadInputError, match=r"trained on hazelnut; the images of .*screws are of screw"):
        calibrate_on(bundle, CalibrationRequest(data=screws, engine="numpy"))
    calibration = calibrate_on(bundle, CalibrationRequest(data=screws, engine="numpy", other_data=True))
    assert calibration.to_dict()["part_note"].startswith("Other data: ")
    own = make_run(tmp_path / "own", "renamed", "a" * 64, paths)
    assert calibrate_on(bundle, CalibrationRequest(data=own, engine="numpy")).part_note == ""


def test_calibrate_refuses_good_images_inside_a_data_set_of_another_part(
    tiny_bundle, tiny_dataset, add_engine, tmp_path
):
    add_engine("numpy")
    bundle = of_part(tiny_bundle, "hazelnut")
    root = tmp_path / "screw"
    for split in ("train", "validation", "test"):
        shutil.copytree(tiny_dataset.root / "good", root / split / "good")
    shutil.copytree(tiny_dataset.root / "bad", root / "test" / "bad")
    assert open_dataset(root).category == "screw"
    for data in (root, root / "validation" / "good"):
        with pytest.raises(BadInputError, match="trained on hazelnut"):
            calibrate_on(bundle, CalibrationRequest(data=data, engine="numpy"))
    # Of images outside any data set nothing is known but the caller's word.
    loose = shutil.copytree(tiny_dataset.root / "good", tmp_path / "loose")
    assert calibrate_on(bundle, CalibrationRequest(data=loose, engine="numpy")).part_note == ""
