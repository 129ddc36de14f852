"""What is said of frames and scans in memory that a bundle of scans does not take."""

import re
import warnings

import numpy as np
import pytest

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.inputs import DepthPreprocessing, VoxelPreprocessing
from lineproof.data.inputs.table import input_of

SIZE = {"frame_height_px": 6, "frame_width_px": 8}


def spec_of(kind: str, *, has_rgb: bool) -> DepthPreprocessing | VoxelPreprocessing:
    if kind == "voxel":
        return VoxelPreprocessing(
            **SIZE, num_cells=4, box_low_m=(-1.0, -1.0, 0.1), box_high_m=(1.0, 1.0, 1.0), has_rgb=has_rgb
        )
    return DepthPreprocessing(
        **SIZE, resize_height_px=6, resize_width_px=8, quantity="range", near_m=0.1, far_m=1.0, has_rgb=has_rgb
    )


@pytest.mark.parametrize("has_rgb", [False, True])
@pytest.mark.parametrize(("kind", "holds"), [("depth", "depth in metres (range)"), ("voxel", "x, y, z in metres")])
def test_a_frame_of_another_size_is_told_what_scans_are(kind: str, holds: str, has_rgb: bool) -> None:
    handler = input_of(spec_of(kind, has_rgb=has_rgb))
    frames = np.zeros((1, 5, 8, handler.spec.frame_shape[2]), np.float32)
    with pytest.raises(BadInputError, match=re.escape(f"A frame holds {holds}, 0 where nothing was")) as caught:
        handler.check(frames)
    words = str(caught.value)
    assert "of 6x8 pixels (height x width)" in words
    assert ("line.inspect(xyz=points, rgb=image)" if has_rgb else "line.inspect(xyz=points)") in words
    assert "--frame" not in words


def test_what_was_not_given_is_said_as_it_was() -> None:
    handler = input_of(spec_of("depth", has_rgb=True))
    with pytest.raises(UsageError, match=r"^Neither a frame nor a scan was given; .* give a frame, or xyz and rgb"):
        handler.frame_of(None, None)
    with pytest.raises(UsageError, match=r"^rgb was given without xyz; "):
        handler.frame_of(None, np.zeros((6, 8, 3), np.uint8))


def test_what_float32_cannot_hold_is_refused_without_a_warning() -> None:
    points = np.full((6, 8, 3), 0.5)
    points[2, 3, 1] = -1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadInputError, match=r"^xyz holds 1e\+300 m, which is no float32"):
            input_of(spec_of("voxel", has_rgb=False)).frame_of(points, None)
