"""Scans are known by what a bundle reads of them, wherever images are known by their pixels."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.dataset import open_dataset
from lineproof.data.decoding.xyz import read_xyz, write_xyz
from lineproof.eval.accuracy.corrections import correct, read_corrections
from lineproof.eval.accuracy.outputs import collect_outputs
from lineproof.eval.accuracy.outputs_file import open_outputs, save_outputs
from lineproof.eval.accuracy.pairs import in_step
from lineproof.eval.good_parts import CalibrationRequest, calibration_samples
from lineproof.eval.part import check_same_part, open_part_data
from lineproof.runtime.engine import availability


def move(cloud):
    """Change one point of a cloud, by a millimetre."""
    points = read_xyz(cloud)
    points[5, 5] = points[5, 5] + np.float32(0.001)
    write_xyz(cloud, points)


@pytest.fixture
def loose(tiny_scans, tmp_path):
    """A folder that belongs to no data set, with good scans: their images and clouds side by side."""
    folder = tmp_path / "loose"
    folder.mkdir()
    for path in sorted((tiny_scans / "validation/good/rgb").iterdir()):
        shutil.copy(path, folder / path.name)
        shutil.copy(tiny_scans / f"validation/good/xyz/{path.stem}.tiff", folder)
    return folder


def copy_of_training(tiny_scans, folder):
    for kind, name in (("rgb", "000.png"), ("xyz", "000.tiff")):
        shutil.copy(tiny_scans / "train/good" / kind / name, folder / f"900{name[3:]}")


@pytest.mark.parametrize("kind", ["depth", "voxel"])
@pytest.mark.parametrize("has_rgb", [False, True])
def test_a_scan_that_was_fitted_sets_no_threshold_and_one_with_another_cloud_may(
    kind, has_rgb, scan_bundle, tiny_scans, loose
):
    manifest, request = scan_bundle(kind, has_rgb=has_rgb).manifest, CalibrationRequest(data=loose)
    assert len(calibration_samples(request, manifest)[0]) == 2, "each scan counts once"
    copy_of_training(tiny_scans, loose)
    with pytest.raises(BadInputError, match=r"1 of 3 images show what .* was fitted to"):
        calibration_samples(request, manifest)
    move(loose / "900.tiff")
    assert len(calibration_samples(request, manifest)[0]) == 3


@pytest.mark.parametrize("has_rgb", [False, True])
def test_other_colours_make_another_scan_where_they_are_read(has_rgb, scan_bundle, tiny_scans, loose):
    manifest, request = scan_bundle(has_rgb=has_rgb).manifest, CalibrationRequest(data=loose)
    copy_of_training(tiny_scans, loose)
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(loose / "900.png")
    if has_rgb:
        assert len(calibration_samples(request, manifest)[0]) == 3
    else:
        with pytest.raises(BadInputError, match=r"1 of 3 images show what .* was fitted to"):
            calibration_samples(request, manifest)


@pytest.mark.parametrize("part", ["rgb", "xyz"])
@pytest.mark.parametrize(("split", "words"), [("test/hole", "defective parts"), ("test/good", "they are test images")])
def test_scans_of_a_data_set_are_known_by_their_clouds_too(part, split, words, scan_bundle, tiny_scans):
    with pytest.raises(BadInputError, match=words):
        calibration_samples(CalibrationRequest(data=tiny_scans / split / part), scan_bundle().manifest)


def test_a_data_set_whose_clouds_or_calibration_are_others_is_another_version(scan_bundle, tiny_scans):
    manifest = scan_bundle().manifest
    assert check_same_part(manifest, open_dataset(tiny_scans), other_data=False) == ""
    calibration = tiny_scans / "calibration/camera_parameters.json"
    calibration.parent.mkdir()
    calibration.write_text("{}")
    assert "another copy or version of bolt" in check_same_part(manifest, open_dataset(tiny_scans), other_data=False)
    calibration.unlink()
    move(tiny_scans / "train/good/xyz/001.tiff")
    assert "another copy or version of bolt" in check_same_part(manifest, open_dataset(tiny_scans), other_data=False)


def test_the_leak_check_reads_what_the_bundle_reads(scan_bundle, tiny_bundle, tiny_scans):
    for kind, name in (("rgb", "000.png"), ("xyz", "000.tiff")):
        shutil.copy(tiny_scans / "train/good" / kind / name, tiny_scans / "test/good" / kind / name)

    def leaks(manifest):
        return [item for item in open_part_data(manifest, tiny_scans).problems if "byte-identical" in item]

    scans = scan_bundle().manifest
    assert leaks(scans) == ["test/good/rgb/000.png: is byte-identical to a training scan, train/good/rgb/000.png."]
    move(tiny_scans / "test/good/xyz/000.tiff")
    assert leaks(scans) == []
    assert leaks(tiny_bundle.manifest) == [
        "test/good/rgb/000.png: is byte-identical to a training image, train/good/rgb/000.png."
    ]


@pytest.fixture
def engine():
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.inspection}. To fix: {state.fix}")
    return "ort-cpu"


def test_outputs_of_other_clouds_are_not_compared(scan_bundle, tiny_scans, tmp_path, engine):
    def judged(bundle):
        return collect_outputs(bundle, open_dataset(tiny_scans), engine=engine)

    depth, voxel = scan_bundle("depth"), scan_bundle("voxel")
    before = judged(depth)
    save_outputs(before, tmp_path / "before.npz")
    assert open_outputs(tmp_path / "before.npz").contents == before.contents
    assert len(set(before.contents)) == 4
    assert in_step(before, judged(voxel))[1].files == before.files
    move(tiny_scans / "test/hole/xyz/001.tiff")
    after = judged(depth)
    assert [a == b for a, b in zip(before.contents, after.contents, strict=True)] == [True, True, True, False]
    with pytest.raises(BadInputError, match=r"Of 4 images the content of 1 differs .* first test/hole/rgb/001\.png"):
        in_step(open_outputs(tmp_path / "before.npz"), after)
    unlike = after.take(np.arange(3))
    assert in_step(before, unlike)[0].contents == unlike.contents
    assert in_step(dataclasses.replace(before, contents=()), after), "earlier releases kept no content"


def test_an_image_and_a_scan_of_one_name_are_paired(scan_bundle, tiny_bundle, tiny_scans, engine):
    dataset = open_dataset(tiny_scans)
    images = collect_outputs(tiny_bundle, dataset, engine=engine)
    scans = collect_outputs(scan_bundle(has_rgb=False), dataset, engine=engine)
    assert in_step(images, scans)[0].files == images.files == scans.files


def test_corrections_are_about_the_scan_of_that_name(scan_bundle, tiny_scans, tmp_path, engine):
    outputs = collect_outputs(scan_bundle(), open_dataset(tiny_scans), engine=engine)
    entry = {"test/hole/rgb/000.png": {"label": "good", "why": "dust"}}
    (tmp_path / "c.json").write_text(json.dumps({"corrections_version": 1, "corrections": entry}))
    corrected = correct(outputs, read_corrections(tmp_path / "c.json"))
    changed = np.flatnonzero(corrected.label != outputs.label).tolist()
    assert [outputs.files[index] for index in changed] == ["test/hole/rgb/000.png"]
    assert corrected.contents == outputs.contents
