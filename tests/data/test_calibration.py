"""Calibration files: read as MVTec 3D-AD has them, written back alike, refused in words."""

import json
from pathlib import Path

import numpy as np
import pytest

from lineproof.core.errors import BadInputError
from lineproof.core.inputs import VoxelPreprocessing
from lineproof.data.calibration import camera_of_frames, read_camera, write_camera
from lineproof.data.files import CALIBRATION
from lineproof.data.inputs.table import input_of

#: The file of MVTec 3D-AD's tire, as it is.
TIRE = """{
  "camera_type": "area_scan_division",
  "focus": 0.0103431,
  "kappa": -2205.03,
  "sx": 3.74983e-06,
  "sy": 3.75e-06,
  "cx": 376.046,
  "cy": 423.07,
  "image_width": 600,
  "image_height": 800
}"""


def lay(root: Path, text: str = TIRE) -> Path:
    (root / CALIBRATION).parent.mkdir(parents=True, exist_ok=True)
    (root / CALIBRATION).write_text(text)
    return root


def test_the_file_is_read(tmp_path: Path) -> None:
    camera = read_camera(lay(tmp_path))
    assert camera is not None
    assert camera.size == (800, 600)
    assert (camera.focus_m, camera.kappa_per_m2) == (0.0103431, -2205.03)
    assert (camera.pixel_width_m, camera.pixel_height_m) == (3.74983e-06, 3.75e-06)
    assert (camera.centre_column_px, camera.centre_row_px) == (376.046, 423.07)


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    camera = read_camera(lay(tmp_path / "a"))
    assert camera is not None
    odd = camera.resized((533, 401))
    write_camera(odd, tmp_path / "b")
    assert read_camera(tmp_path / "b") == odd


def test_no_file_is_no_camera(tmp_path: Path) -> None:
    assert read_camera(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera_type": "area_scan_polynomial"}, "camera_type is 'area_scan_polynomial', expected one of"),
        ({"kappa": "none"}, "kappa is 'none', expected float"),
        ({"focus": -1.0}, r"focus -1\.0 m.*expected finite values above 0\. Expected HALCON's"),
        (
            {"cx": 1e9},
            r"axis goes through column 1e\+09 and row 423\.07, outside of .* 800x600 .* Check cx, cy and kappa\. Ex",
        ),
        ({"kappa": -1e9}, r"distortion kappa is -1000000000\.0 1/m2; expected less than .* the sizes\. Expected"),
        ({"cx": None}, "cx is missing"),
    ],
)
def test_another_file_is_refused_by_its_field(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    values = {key: value for key, value in {**json.loads(TIRE), **changes}.items() if value is not None}
    with pytest.raises(BadInputError, match=words):
        read_camera(lay(tmp_path, json.dumps(values)))
    with pytest.raises(BadInputError, match=r"camera_parameters\.json: Expecting value"):
        read_camera(lay(tmp_path, "nothing"))


@pytest.mark.parametrize(
    ("fit", "frame"), [("none", (80, 60)), ("stretch", (40, 90)), ("pad", (85, 70)), ("crop", (51, 30))]
)
def test_rays_of_frames_are_those_of_the_pixels_they_are_made_of(
    fit: str, frame: tuple[int, int], tmp_path: Path
) -> None:
    """A cloud that holds the calibrated rays, at a tenth of the size, is brought to the frame like any other."""
    calibrated = read_camera(lay(tmp_path))
    assert calibrated is not None
    cloud = calibrated.resized((80, 60)).rays().astype(np.float32)
    box = {"box_low_m": (-1.0, -1.0, 0.0), "box_high_m": (1.0, 1.0, 1.0)}
    spec = VoxelPreprocessing(frame_height_px=frame[0], frame_width_px=frame[1], **box, fit=fit)  # type: ignore[arg-type]
    seen = input_of(spec).fit(cloud)
    rays = camera_of_frames(calibrated, size=(80, 60), frame=frame, fit=fit).rays()  # type: ignore[arg-type]
    valid = seen[..., 2] > 0
    # Stretched, the nearest pixel is at most half a pixel off; the lens makes some pixels wider.
    pixel = 10 * calibrated.pixel_width_m / calibrated.focus_m
    limit = 0.55 * pixel if fit == "stretch" else 1e-6
    assert np.abs(rays - seen)[valid].max() <= limit
    assert valid.sum() == min(80, frame[0]) * min(60, frame[1]) if fit != "stretch" else valid.all()


def test_a_frame_that_the_fit_cannot_make_is_refused(tmp_path: Path) -> None:
    camera = read_camera(lay(tmp_path))
    assert camera is not None
    with pytest.raises(BadInputError, match="with fit none"):
        camera_of_frames(camera, size=(80, 60), frame=(40, 30), fit="none")


@pytest.mark.realdata
def test_the_real_tire_has_this_camera(shared_data: Path) -> None:
    path = shared_data / "mvtec_3d" / "tire" / CALIBRATION
    if not path.is_file():
        pytest.skip("the calibration of tire is not at ../shared/data")
    assert json.loads(path.read_text()) == json.loads(TIRE)
