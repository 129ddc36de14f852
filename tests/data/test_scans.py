"""What training scans and scans to judge are refused for, by name, before they spoil an answer."""

import dataclasses

import numpy as np
import pytest

from lineproof.core.camera import DivisionCamera
from lineproof.core.errors import BadInputError
from lineproof.core.inputs import DepthPreprocessing, VoxelPreprocessing
from lineproof.data.calibration import write_camera
from lineproof.data.decoding.xyz import write_xyz
from lineproof.data.inputs.table import input_of
from lineproof.data.scans import camera_for, survey_scans

SIZE = (12, 16)
CAMERA = DivisionCamera(
    focus_m=0.016,
    kappa_per_m2=-100.0,
    pixel_width_m=3e-4,
    pixel_height_m=3e-4,
    centre_column_px=7.5,
    centre_row_px=5.5,
    width_px=SIZE[1],
    height_px=SIZE[0],
)


def cloud(number=0, scale=1.0):
    rng = np.random.default_rng(number)
    points = CAMERA.rays() * (0.4 + 0.05 * rng.random(SIZE))[..., None]
    points[rng.random(SIZE) < 0.1] = 0.0
    return (points * scale).astype(np.float32)


def write(folder, clouds):
    paths = [folder / "xyz" / f"{number:03d}.tiff" for number in range(len(clouds))]
    (folder / "xyz").mkdir(parents=True)
    for path, points in zip(paths, clouds, strict=True):
        write_xyz(path, points)
    return paths


def test_scans_that_are_alike_are_taken(tmp_path):
    paths = write(tmp_path, [cloud(number) for number in range(5)])
    extent = survey_scans(paths, has_rgb=False).extent(5)
    assert 0.39 < extent.near_m < extent.far_m < 0.5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((*SIZE, 3), np.float32), "holds no measured point"),
        (
            cloud(9, scale=1000.0),
            r"its nearest point is 4\d\d\.?\d* m away; expected metres.*Divide millimetres by 1000",
        ),
        (cloud(9, scale=20.0), r"its points reach from .* those of the median scan from "),
        (cloud(9) + np.float32([1.0, 0.0, 0.0]), r"its points reach from .* It would stretch what is learned of all"),
        (-cloud(9), r"\d+ of \d+ measured points have a z below 0, behind the camera"),
    ],
)
def test_one_scan_that_would_spoil_the_others_is_named(tmp_path, wrong, words):
    paths = write(tmp_path, [*(cloud(number) for number in range(4)), wrong])
    with pytest.raises(BadInputError, match=rf"004\.tiff: {words}"):
        survey_scans(paths, has_rgb=False)


def test_a_calibration_is_held_against_the_clouds(tmp_path):
    paths = write(tmp_path, [cloud(number) for number in range(3)])

    def camera():
        return camera_for(tmp_path, paths, size=SIZE, frame=SIZE, fit="none")

    assert camera()[1] is False
    write_camera(CAMERA, tmp_path)
    seen, is_calibrated = camera()
    assert (seen, is_calibrated) == (CAMERA, True)
    write_camera(CAMERA.resized((6, 8)), tmp_path)
    assert camera()[1] is True
    for wrong in (dataclasses.replace(CAMERA, focus_m=0.048), CAMERA.moved((24, 16), top_px=0, left_px=0)):
        write_camera(wrong, tmp_path)
        with pytest.raises(BadInputError, match=r"camera_parameters\.json: by this camera the points .* pixels beside"):
            camera()


SPECS = {
    "depth": DepthPreprocessing(
        frame_height_px=SIZE[0],
        frame_width_px=SIZE[1],
        resize_height_px=SIZE[0],
        resize_width_px=SIZE[1],
        quantity="range",
        near_m=0.4,
        far_m=0.5,
    ),
    "voxel": VoxelPreprocessing(
        frame_height_px=SIZE[0],
        frame_width_px=SIZE[1],
        box_low_m=(-0.1, -0.1, 0.4),
        box_high_m=(0.1, 0.1, 0.45),
        num_cells=8,
    ),
}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.full((*SIZE, 3), np.nan, np.float32), "the scan holds no measured point"),
        (cloud(scale=1000.0), r"the scan's depths are .* m, those of the training scans were 0\.4 to 0\.\d+ m"),
        (-cloud(), "behind the camera"),
    ],
)
def test_a_scan_that_shows_nothing_known_is_not_judged(tmp_path, kind, points, words):
    reader = input_of(SPECS[kind])
    (path,) = write(tmp_path, [points])
    with pytest.raises(BadInputError, match=rf"000\.tiff: .*{words}"):
        reader.read(path)
    with pytest.raises(BadInputError, match=words):
        reader.check(reader.frame_of(points, None)[None])


@pytest.mark.parametrize("kind", SPECS)
def test_a_part_that_is_missing_is_judged(tmp_path, kind):
    """The table below it lies farther away than any training scan, but not by another unit."""
    reader = input_of(SPECS[kind])
    points = cloud() * np.float32(1.8)
    (path,) = write(tmp_path, [points])
    reader.check(reader.read(path)[None])
