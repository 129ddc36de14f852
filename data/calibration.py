"""The calibration of a 3D data set's camera: ``calibration/camera_parameters.json``, as MVTec 3D-AD has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from ..core.camera import DivisionCamera
from ..core.errors import BadInputError, UsageError
from ..core.size import Size
from ..core.spec import Fit
from ..core.strict import read_as
from ..core.words import clause
from .files import CALIBRATION
from .inputs.fitting import centre, margins, takes


@final
@dataclass(frozen=True, kw_only=True)
class _CameraFile:
    """The file's fields, which are HALCON's parameters: lengths in metres, ``kappa`` in 1/m²."""

    camera_type: Literal["area_scan_division"]
    focus: float
    kappa: float
    sx: float
    sy: float
    cx: float
    cy: float
    image_width: int
    image_height: int


def read_camera(root: Path) -> DivisionCamera | None:
    """Read the calibration of a category.

    Args:
        root: the category's folder.

    Returns:
        The camera, for images of the size that the file says; None where there is no such file.

    Raises:
        BadInputError: the file cannot be read, holds something else, or no camera that could be.
    """
    path = root / CALIBRATION
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{path}: cannot be read ({error}); expected the camera's parameters as JSON. Copy the file again."
        ) from error
    try:
        # Not ours: a later release of the data set may say more.
        parameters = read_as(_CameraFile, json.loads(text), refuses_unknown=False)
        return DivisionCamera(
            focus_m=parameters.focus,
            kappa_per_m2=parameters.kappa,
            pixel_width_m=parameters.sx,
            pixel_height_m=parameters.sy,
            centre_column_px=parameters.cx,
            centre_row_px=parameters.cy,
            width_px=parameters.image_width,
            height_px=parameters.image_height,
        )
    except (ValueError, UsageError) as error:
        raise BadInputError(
            f"{path}: {clause(error)}. Expected HALCON's parameters of an area_scan_division camera; copy the file "
            "again, or move it away: a pinhole is then fitted to the clouds."
        ) from error


def write_camera(camera: DivisionCamera, root: Path) -> Path:
    """Write the calibration of a category; ``read_camera`` gives the same camera back, to the last bit.

    Args:
        camera: the camera.
        root: the category's folder.

    Returns:
        The file.
    """
    values = {
        "camera_type": "area_scan_division",
        "focus": camera.focus_m,
        "kappa": camera.kappa_per_m2,
        "sx": camera.pixel_width_m,
        "sy": camera.pixel_height_m,
        "cx": camera.centre_column_px,
        "cy": camera.centre_row_px,
        "image_width": camera.width_px,
        "image_height": camera.height_px,
    }
    path = root / CALIBRATION
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return path


def camera_of_frames(camera: DivisionCamera, *, size: Size, frame: Size, fit: Fit) -> DivisionCamera:
    """The camera as it sees frames.

    Args:
        camera: the calibrated camera. Scans of another size than its images are taken to show the same field of view,
            as halved copies of a data set do.
        size: height and width of the scans, in pixels.
        frame: height and width of the frames, in pixels.
        fit: how a scan is brought to the frame.

    Raises:
        BadInputError: the fit does not take that size.
    """
    seen = camera if camera.size == size else camera.resized(size)
    if size == frame:
        return seen
    if not takes(fit, size, frame):
        raise BadInputError(f"Scans of {size} do not become frames of {frame} (height, width) with fit {fit}.")
    if fit == "stretch":
        return seen.resized(frame)
    if fit == "pad":
        (top, _), (left, _) = margins(size, frame)
        return seen.moved(frame, top_px=-top, left_px=-left)
    rows, columns = centre(size, frame)
    return seen.moved(frame, top_px=rows.start, left_px=columns.start)
