"""Images that lie in a data set twice."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    assert check_contents(open_dataset(root)).problems[2:] == (
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
