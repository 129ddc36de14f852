"""Which files are read of an image or a scan."""

from pathlib import Path

import pytest

from lineproof.data.files import each_once, files_read, scan_files

BAGEL = Path("bagel/test/good")


def test_a_scan_is_named_by_its_cloud_or_its_image() -> None:
    both = BAGEL / "xyz/000.tiff", BAGEL / "rgb/000.png"
    assert scan_files(both[0]) == scan_files(both[1]) == both
    flat = Path("parts/000.tiff"), Path("parts/000.png")
    assert scan_files(flat[0]) == scan_files(flat[1]) == flat


@pytest.mark.parametrize("folders", [("xyz", "rgb"), (".", ".")])
@pytest.mark.parametrize("cloud", ["y.tif", "y.TIFF", "y.Tif"])
@pytest.mark.parametrize("image", ["y.png", "y.JPG", "y.jpeg", "y.bmp", "y.webp"])
def test_a_scan_is_found_by_what_lies_there(tmp_path: Path, folders: tuple[str, str], cloud: str, image: str) -> None:
    both = tmp_path / folders[0] / cloud, tmp_path / folders[1] / image
    for file in both:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert scan_files(both[0]) == scan_files(both[1]) == both
    assert each_once(both, "cloud+rgb") == both[:1]


def test_images_of_one_name_are_one_scan(tmp_path: Path) -> None:
    names = ("000.bmp", "000.jpg", "000.png", "000.tiff")
    files = [tmp_path / name for name in names]
    for file in files:
        file.touch()
    assert each_once(files, "cloud") == (files[0],)
    assert scan_files(files[3]) == (files[3], files[2])
    assert scan_files(files[1]) == (files[3], files[1])


def test_a_preview_among_clouds_names_its_cloud() -> None:
    assert scan_files(BAGEL / "xyz/000.png") == (BAGEL / "xyz/000.tiff", BAGEL / "rgb/000.png")


def test_what_is_read_depends_on_who_reads() -> None:
    path = BAGEL / "rgb/000.png"
    assert files_read(path, "image") == (path,)
    assert files_read(path, "cloud") == (BAGEL / "xyz/000.tiff",)
    assert files_read(path, "cloud+rgb") == (BAGEL / "xyz/000.tiff", path)


def test_each_scan_once_by_the_name_that_came_first() -> None:
    paths = [BAGEL / name for name in ("rgb/000.png", "rgb/001.png", "xyz/001.tiff", "xyz/002.tiff", "xyz/000.tiff")]
    assert each_once(paths, "cloud") == (paths[0], paths[1], paths[3])
    assert each_once(paths, "image") == tuple(paths)
