"""Which files are read of an image or a scan."""

from pathlib import Path

from lineproof.data.files import each_once, files_read, scan_files

BAGEL = Path("bagel/test/good")


def test_a_scan_is_named_by_its_cloud_or_its_image() -> None:
    both = BAGEL / "xyz/000.tiff", BAGEL / "rgb/000.png"
    assert scan_files(both[0]) == scan_files(both[1]) == both
    flat = Path("parts/000.tiff"), Path("parts/000.png")
    assert scan_files(flat[0]) == scan_files(flat[1]) == flat


def test_what_is_read_depends_on_who_reads() -> None:
    path = BAGEL / "rgb/000.png"
    assert files_read(path, "image") == (path,)
    assert files_read(path, "cloud") == (BAGEL / "xyz/000.tiff",)
    assert files_read(path, "cloud+rgb") == (BAGEL / "xyz/000.tiff", path)


def test_each_scan_once_by_the_name_that_came_first() -> None:
    paths = [BAGEL / name for name in ("rgb/000.png", "rgb/001.png", "xyz/001.tiff", "xyz/002.tiff", "xyz/000.tiff")]
    assert each_once(paths, "cloud") == (paths[0], paths[1], paths[3])
    assert each_once(paths, "image") == tuple(paths)
