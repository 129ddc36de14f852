"""The union of an image's masks, and the check that every mask can be the truth."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.data.dataset import check_contents, check_masks, open_dataset, read_mask
from lineproof.data.records import Dataset, Sample

H, W = 12, 16


def image(path: Path, value: int = 100, *, shape: tuple[int, int] = (H, W)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


def mask(path: Path, rows: slice, columns: slice, *, value: int = 255, shape: tuple[int, int] = (H, W)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, np.uint8)
    pixels[rows, columns] = value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound set: test/dent/0.png with the union of two masks, test/dent/1.png with one mask file."""
    folder = tmp_path / "bolt"
    for number, name in enumerate(["train/good/0.png", "test/good/0.png", "test/dent/0.png", "test/dent/1.png"]):
        image(folder / name, number)
    mask(folder / "ground_truth/dent/0/000.png", slice(0, 3), slice(0, 4), value=1)
    mask(folder / "ground_truth/dent/0/001.png", slice(2, 4), slice(2, 6), value=233)
    mask(folder / "ground_truth/dent/1.png", slice(5, 6), slice(None))
    return folder


def of(dataset: Dataset, name: str) -> Sample:
    return next(sample for sample in dataset.samples if sample.path == dataset.root / name)


def test_the_union_of_several_masks_whatever_their_values(root: Path) -> None:
    dataset = check_masks(open_dataset(root, strict=True))
    expected = np.zeros((H, W), bool)
    expected[0:3, 0:4] = expected[2:4, 2:6] = True
    mask = read_mask(of(dataset, "test/dent/0.png"), expected_shape=(H, W))
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == np.bool_
    assert mask.sum() == 3 * 4 + 2 * 4 - 2


def test_a_good_image_has_an_empty_mask_and_an_unmarked_one_none(root: Path) -> None:
    dataset = open_dataset(root)
    good = read_mask(of(dataset, "test/good/0.png"), expected_shape=(H, W))
    np.testing.assert_array_equal(good, np.zeros((H, W), bool))
    unmarked = Sample(path=root / "x.png", label=1, defect="dent", split="test")
    assert read_mask(unmarked, expected_shape=(H, W)) is None


def test_a_mask_of_another_size_is_refused_when_read(root: Path) -> None:
    mask(root / "ground_truth/dent/0/001.png", slice(0, 2), slice(0, 2), shape=(W, H))
    with pytest.raises(BadInputError, match=r"001\.png: the mask is 12x16 pixels, its image 16x12"):
        read_mask(of(open_dataset(root), "test/dent/0.png"), expected_shape=(H, W))


def test_sound_masks_are_left_alone(root: Path) -> None:
    dataset = open_dataset(root)
    assert check_masks(dataset) == dataset
    assert check_contents(dataset, "image") == dataset


@pytest.mark.parametrize("name", ["0/000.png", "1.png"])
def test_a_mask_that_marks_nothing_is_named_and_its_image_unmarked(root: Path, name: str) -> None:
    mask(root / "ground_truth/dent" / name, slice(0), slice(0))
    dataset = check_masks(open_dataset(root))
    assert dataset.problems == (f"ground_truth/dent/{name}: marks nothing; its image counts as unmarked.",)
    hit, other = ("test/dent/0.png", "test/dent/1.png") if "/" in name else ("test/dent/1.png", "test/dent/0.png")
    assert (of(dataset, hit).mask_paths, of(dataset, hit).label) == ((), 1)
    assert len(of(dataset, other).mask_paths) > 0
    assert check_masks(dataset) == dataset
    assert dataset.summary_lines()[0].startswith(
        "bolt: 1 training, 1 good and 2 defective test images (dent 2), 1 with masks"
    )


def test_more_than_nine_tenths_is_taken_for_an_inverted_mask(root: Path) -> None:
    place = root / "ground_truth/dent/1.png"
    pixels = np.zeros((10, 10), np.uint8)
    pixels[:9] = 255
    image(root / "test/dent/1.png", 3, shape=(10, 10))
    Image.fromarray(pixels).save(place)
    assert check_masks(open_dataset(root)).problems == ()
    pixels[9, 0] = 1
    Image.fromarray(pixels).save(place)
    dataset = check_masks(open_dataset(root))
    assert dataset.problems == (
        "ground_truth/dent/1.png: marks 91.0% of the image, as an inverted mask does; its image counts as unmarked.",
    )
    assert of(dataset, "test/dent/1.png").mask_paths == ()


def test_the_union_is_what_must_not_cover_the_image(root: Path) -> None:
    mask(root / "ground_truth/dent/0/000.png", slice(0, 6), slice(None))
    mask(root / "ground_truth/dent/0/001.png", slice(6, 12), slice(None))
    dataset = check_masks(open_dataset(root))
    assert dataset.problems[0].startswith("ground_truth/dent/0/000.png: marks 100.0% of the image")
    assert of(dataset, "test/dent/0.png").mask_paths == ()


def test_an_unreadable_mask_and_one_of_another_size_count_as_missing(root: Path) -> None:
    (root / "ground_truth/dent/0/001.png").write_bytes(b"nothing of the kind")
    mask(root / "ground_truth/dent/1.png", slice(0, 1), slice(0, 1), shape=(24, 32))
    dataset = check_masks(open_dataset(root))
    assert dataset.problems == (
        "ground_truth/dent/0/001.png: cannot be used (this is no image that can be read (it begins with 6e 6f 74 68 69 "
        "6e 67 20)); its image counts as unmarked.",
        "ground_truth/dent/1.png: is 32x24 pixels, its image 16x12; its image counts as unmarked.",
    )
    assert [sample.mask_paths for sample in dataset.test if sample.label] == [(), ()]


def test_problems_of_one_kind_are_one_line(root: Path) -> None:
    for number in range(2, 7):
        image(root / f"test/dent/{number}.png", 10 + number)
        mask(root / f"ground_truth/dent/{number}.png", slice(None), slice(None), shape=(H, W + number))
    assert check_masks(open_dataset(root)).summary_lines()[1:] == [
        "is not of its image's size; its image counts as unmarked (5): ground_truth/dent/2.png, "
        "ground_truth/dent/3.png, ground_truth/dent/4.png and 2 more."
    ]


def test_the_image_is_upright_when_sizes_are_compared(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((W, H), 9, np.uint8)).save(root / "test/dent/1.png", exif=exif)
    assert check_masks(open_dataset(root)).problems == ()


def test_a_image_that_cannot_be_read_does_not_condemn_its_mask(root: Path) -> None:
    (root / "test/dent/1.png").write_bytes(b"broken")
    dataset = check_masks(open_dataset(root))
    assert dataset.problems == ()
    assert len(of(dataset, "test/dent/1.png").mask_paths) == 1


def test_a_good_image_whose_mask_marks_something_is_named(root: Path) -> None:
    image(root / "test/good/1.png", 77)
    mask(root / "ground_truth/good/0.png", slice(0), slice(0))
    mask(root / "ground_truth/good/1.png", slice(0, 2), slice(0, 3))
    dataset = check_masks(open_dataset(root))
    assert dataset.problems[1:] == (
        "test/good/1.png: is in a folder of good images, but ground_truth/good/1.png marks 6 pixels of it; it counts "
        "as good.",
    )
    assert [sample.mask_paths for sample in dataset.test if not sample.label] == [(), ()]


def test_a_good_scan_whose_gt_marks_something_is_named(tmp_path: Path) -> None:
    for number, name in enumerate(["train/good/rgb/0.png", "test/good/rgb/0.png", "test/good/rgb/1.png"]):
        image(tmp_path / name, number)
    image(tmp_path / "test/cut/rgb/0.png", 9)
    mask(tmp_path / "test/cut/gt/0.png", slice(0, 1), slice(0, 1), value=3)
    mask(tmp_path / "test/good/gt/0.png", slice(0), slice(0))
    mask(tmp_path / "test/good/gt/1.png", slice(0, 1), slice(0, 2))
    (problem,) = check_masks(open_dataset(tmp_path, strict=True)).problems
    assert problem == (
        "test/good/rgb/1.png: is in a folder of good images, but test/good/gt/1.png marks 2 pixels of it; it counts "
        "as good."
    )
