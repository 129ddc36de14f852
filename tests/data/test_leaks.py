"""Images that lie in a data set twice."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.spec import Reads
from lineproof.data import leaks
from lineproof.data.dataset import check_contents, check_leaks, open_dataset


def image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 16), value, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound set of different images, the defective ones without masks."""
    names = ["train/good/0.png", "test/good/0.png", "test/dent/0.png", "test/dent/1.png"]
    for number, name in enumerate(names):
        image(tmp_path / "bolt" / name, number)
    (tmp_path / "bolt" / "ground_truth").mkdir()
    return tmp_path / "bolt"


def test_test_images_that_are_training_images_are_named(root: Path) -> None:
    for number in range(4):
        image(root / f"train/good/{number}.png", number * 7)
        (root / f"test/good/{number}.png").write_bytes((root / f"train/good/{number}.png").read_bytes())
    dataset = check_leaks(open_dataset(root))
    assert dataset.problems[2:] == tuple(
        f"test/good/{n}.png: is byte-identical to a training image, train/good/{n}.png." for n in range(4)
    )
    assert dataset.summary_lines()[2:] == [
        "is byte-identical to a training image (4): test/good/0.png, test/good/1.png, test/good/2.png and 1 more."
    ]
    assert len(dataset.samples) == 4 + 4 + 2


def test_a_image_with_two_labels_is_named(root: Path) -> None:
    (root / "test/dent/0.png").write_bytes((root / "test/good/0.png").read_bytes())
    assert check_contents(open_dataset(root), "image").problems[2:] == (
        "test/dent/0.png: is byte-identical to a good test image, test/good/0.png.",
    )


def test_the_validation_split_is_no_test_split(root: Path) -> None:
    (root / "validation/good").mkdir(parents=True)
    (root / "validation/good/5.png").symlink_to(root / "test/dent/1.png")
    assert check_leaks(open_dataset(root)).problems[2:] == (
        "test/dent/1.png: is byte-identical to a validation image, validation/good/5.png.",
    )


def test_a_file_that_is_gone_is_left_to_whoever_reads_it(root: Path) -> None:
    dataset = open_dataset(root)
    (root / "test/good/0.png").unlink()
    assert check_leaks(dataset) == dataset


def test_files_of_one_size_are_not_all_read_in_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(leaks, "_digest", lambda path: read.append(path.name) or path.read_bytes())
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (128, 128)).astype(np.uint8)).save(root / f"train/good/{number}.bmp")
        Image.fromarray(rng.integers(0, 255, (128, 128)).astype(np.uint8)).save(root / f"test/good/{number}.bmp")
    (root / "test/good/7.bmp").write_bytes((root / "train/good/3.bmp").read_bytes())
    changed = bytearray((root / "train/good/5.bmp").read_bytes())
    changed[1500] ^= 1  # between the excerpts
    (root / "test/good/6.bmp").write_bytes(bytes(changed))
    sizes = {path.stat().st_size for path in root.glob("*/good/*.bmp")}
    problems = [p for p in check_leaks(open_dataset(root)).problems if "identical" in p]
    assert problems == ["test/good/7.bmp: is byte-identical to a training image, train/good/3.bmp."]
    assert (len(sizes), sorted(read)) == (1, ["3.bmp", "5.bmp", "6.bmp", "7.bmp"])


def test_training_images_that_are_equal_are_no_leak(root: Path) -> None:
    (root / "train/good/1.png").write_bytes((root / "train/good/0.png").read_bytes())
    dataset = open_dataset(root)
    assert check_leaks(dataset) == dataset


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Scans: the first test scan has the image of the training scan and another cloud, the second one both."""
    root = tmp_path / "bagel"
    for name, value, cloud in (("train/good/{}/0", 1, b"a"), ("test/good/{}/0", 1, b"b"), ("test/cut/{}/0", 1, b"a")):
        image(root / f"{name.format('rgb')}.png", value)
        path = root / f"{name.format('xyz')}.tiff"
        path.parent.mkdir(parents=True)
        path.write_bytes(cloud)
    return root


def test_a_scan_is_a_training_scan_where_all_that_is_read_of_it_is_the_same(scans: Path) -> None:
    def seen(reads: Reads) -> list[str]:
        return [problem for problem in check_leaks(open_dataset(scans), reads).problems if "byte-identical" in problem]

    whole = "test/cut/rgb/0.png: is byte-identical to a training scan, train/good/rgb/0.png."
    assert seen("cloud+rgb") == [whole]
    assert seen("cloud") == [whole]
    # To a detector of images all three are one, and the faulty one has two labels.
    assert [problem.split(":")[0] for problem in seen("image")] == [
        "test/cut/rgb/0.png",
        "test/cut/rgb/0.png",
        "test/good/rgb/0.png",
    ]
    image(scans / "test/cut/rgb/0.png", 2)
    assert seen("cloud+rgb") == []
    assert seen("cloud") == [whole]
    (scans / "test/cut/xyz/0.tiff").unlink()
    assert seen("cloud") == []
