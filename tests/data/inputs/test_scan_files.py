"""What is said where a scan lacks the file that nobody named."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.content import content_hash
from lineproof.data.decoding.xyz import write_xyz
from lineproof.data.inputs.scan import read_scan


@pytest.mark.parametrize(("folder", "expected"), [("rgb", "xyz/7.tiff"), (".", "7.tiff")])
def test_an_image_without_its_cloud_is_named(tmp_path: Path, folder: str, expected: str) -> None:
    image = tmp_path / folder / "7.png"
    image.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 3)).save(image)
    words = f"^{re.escape(str(image))}: there is no cloud beside this image; expected {tmp_path / expected}. Scans are"
    with pytest.raises(BadInputError, match=words):
        read_scan(image, has_rgb=False)
    with pytest.raises(BadInputError, match=words):
        content_hash(image, "cloud")


def test_a_cloud_without_its_image_is_named_where_colours_are_read(tmp_path: Path) -> None:
    cloud = tmp_path / "xyz" / "7.tiff"
    write_xyz(cloud, np.ones((3, 4, 3), np.float32))
    assert read_scan(cloud, has_rgb=False)[0].shape == (3, 4, 3)
    with pytest.raises(BadInputError, match=f"no image beside this cloud; expected {tmp_path / 'rgb/7.png'}. The colo"):
        read_scan(cloud, has_rgb=True)


def test_what_was_named_and_is_not_there_is_said_as_ever(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"7\.tiff: cannot be read \(No such file"):
        read_scan(tmp_path / "7.tiff", has_rgb=False)
