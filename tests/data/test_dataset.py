"""Recognising data sets: the three layouts, what is odd in them, and the real ones where they are present."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.counts import MVTEC_3D_AD, MVTEC_3D_AD_SIZES, MVTEC_AD, Counts, check_sizes, count
from lineproof.data.dataset import Dataset, check_contents, check_counts, open_dataset, read_mask
from lineproof.data.decoding.decode import decode_image
from lineproof.data.files import scan_files
from lineproof.data.layouts.layout import MASKS_OF_GOOD

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def lay(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def names(dataset: Dataset, split: str) -> list[str]:
    return [s.path.relative_to(dataset.root).as_posix() for s in dataset.samples if s.split == split]


AD = (
    "train/good/000.png", "train/good/001.png", "test/good/000.png", "test/scratch/000.png", "test/scratch/001.png",
    "test/dent/000.JPG", "ground_truth/scratch/000_mask.png", "ground_truth/scratch/001_mask.png",
    "ground_truth/dent/000.png",
)  # fmt: skip
AD_3D = (
    "train/good/rgb/000.png", "train/good/xyz/000.tiff", "validation/good/rgb/000.png", "test/good/rgb/000.png",
    "test/good/gt/000.png", "test/cut/rgb/000.png", "test/cut/rgb/001.png", "test/cut/gt/000.png",
    "test/cut/gt/001.png", "calibration/camera_parameters.json", "class_ids.json",
)  # fmt: skip
ONLY_GOOD = "only good images belong into train, in a folder good, ok, okay or normal; ignored."
NO_GOOD = (
    "No good test image. Folders of good parts are called good, ok, okay or normal. How well good and defective "
    "parts are told apart cannot be measured."
)
NO_DEFECTIVE = "No defective test image. Whether defects are found cannot be measured."
PLAIN = (*(f"good/{i:02d}.png" for i in range(11)), "bad/a.png", "bad/b.png", "masks/a.png", "masks/b_mask.png")


def test_mvtec_ad(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", [*AD, "readme.txt", "license.txt", ".DS_Store", "train/Thumbs.db"]))
    assert (dataset.category, dataset.layout, dataset.problems) == ("bolt", "mvtec-ad", ())
    assert names(dataset, "train") == ["train/good/000.png", "train/good/001.png"]
    assert dataset.validation == ()
    assert names(dataset, "test") == [
        "test/dent/000.JPG", "test/good/000.png", "test/scratch/000.png", "test/scratch/001.png",
    ]  # fmt: skip
    dent, good, first, _ = dataset.test
    assert (dent.label, dent.defect, dent.mask_paths) == (1, "dent", (dataset.root / "ground_truth/dent/000.png",))
    assert (good.label, good.defect, good.mask_paths) == (0, "good", ())
    assert first.mask_paths == (dataset.root / "ground_truth/scratch/000_mask.png",)
    assert [s.label for s in dataset.train] == [0, 0]
    assert count(dataset) == Counts(2, 0, 1, 3)


def test_mvtec_ad_may_have_a_validation_split(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", [*AD, "validation/good/9.png"]), strict=True)
    assert names(dataset, "validation") == ["validation/good/9.png"]


def test_mvtec_3d_ad(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "cookie", AD_3D), strict=True)
    assert (dataset.category, dataset.layout) == ("cookie", "mvtec-3d-ad")
    assert count(dataset) == Counts(1, 1, 1, 2)
    assert names(dataset, "test") == ["test/cut/rgb/000.png", "test/cut/rgb/001.png", "test/good/rgb/000.png"]
    assert dataset.test[1].mask_paths == (dataset.root / "test/cut/gt/001.png",)
    assert dataset.test[2].mask_paths == (dataset.root / "test/good/gt/000.png",)
    image = dataset.train[0].path
    assert scan_files(image) == (dataset.root / "train/good/xyz/000.tiff", image)


def test_plain_folder_splits_every_fifth(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "parts", PLAIN), strict=True)
    assert (dataset.name, dataset.category, dataset.layout) == ("plain folder", "parts", "folder")
    assert names(dataset, "test") == ["bad/a.png", "bad/b.png", "good/04.png", "good/09.png"]
    assert len(dataset.train) == 9
    assert [(s.label, s.defect) for s in dataset.test] == [(1, "bad"), (1, "bad"), (0, "good"), (0, "good")]
    masks = [s.mask_paths for s in dataset.test[:2]]
    assert masks == [(dataset.root / "masks/a.png",), (dataset.root / "masks/b_mask.png",)]


def test_plain_folder_with_types_and_without_masks(tmp_path: Path) -> None:
    files = [*PLAIN[:11], "bad/dent/a.png", "bad/cut/a.png", "masks/dent/a.png", "masks/cut/a_mask.png"]
    dataset = open_dataset(lay(tmp_path / "typed", files), strict=True)
    assert [(s.defect, len(s.mask_paths)) for s in dataset.test[:2]] == [("cut", 1), ("dent", 1)]
    bare = open_dataset(lay(tmp_path / "bare", [*PLAIN[:11], "bad/a.png"]), strict=True)
    assert bare.test[0].mask_paths == ()


@pytest.mark.parametrize(
    ("files", "extra", "problem"),
    [
        (AD, "ground_truth/scratch/007_mask.png", "ground_truth/scratch/007_mask.png: is a mask without an image."),
        (AD, "test/scratch/007.png", "test/scratch/007.png: has no mask."),
        (AD, "test/good/notes.txt", "test/good/notes.txt: no image file among images; ignored."),
        (AD, "train/good/more/1.png", "train/good/more: a folder among images; ignored."),
        (
            AD,
            "train/bad/1.png",
            "train/bad: " + ONLY_GOOD,
        ),
        (
            AD,
            "train/1.png",
            "train/1.png: " + ONLY_GOOD,
        ),
        (AD, "backup/1.png", "backup: not in a folder that the layout knows; ignored."),
        (AD, "stray.png", "stray.png: not in a folder that the layout knows; ignored."),
        (AD, "test/stray.png", "test/stray.png: a file among folders; ignored."),
        (
            AD,
            "ground_truth/good/0.png",
            f"ground_truth/good: {MASKS_OF_GOOD}.",
        ),
        (AD, "ground_truth/hole/0.png", "ground_truth/hole: masks without a folder of that name in test; ignored."),
        (AD, "test/empty/.keep", "test/empty: holds no image."),
        (AD, "train/good/000.bmp", "train/good/000.png: has the same name as 000.bmp but for the suffix."),
        (AD_3D, "test/cut/gt/7.png", "test/cut/gt/7.png: is a mask without an image."),
        (AD_3D, "test/cut/rgb/7.png", "test/cut/rgb/7.png: has no mask."),
        (AD_3D, "test/cut/depth/7.png", "test/cut/depth: not one of rgb, xyz, gt; ignored."),
        (
            AD_3D,
            "train/bad/rgb/7.png",
            "train/bad: " + ONLY_GOOD,
        ),
        (AD_3D, "test/hole/xyz/7.tiff", "test/hole/rgb: holds no image."),
        (AD_3D, "test/notes.txt", "test/notes.txt: a file among folders; ignored."),
        (AD_3D, "spare/1.png", "spare: not in a folder that the layout knows; ignored."),
        (PLAIN, "bad/c.png", "bad/c.png: has no mask."),
        (PLAIN, "masks/c.png", "masks/c.png: is a mask without an image."),
        (PLAIN, "masks/dent/a.png", "masks/dent: is a folder of masks without an image."),
        (PLAIN, "good/notes.doc", "good/notes.doc: no image file among images; ignored."),
        (PLAIN, "unsure/a.png", "unsure: is called neither good nor bad nor masks; ignored."),
    ],
)
def test_what_is_odd_is_named_and_strict_refuses_it(
    tmp_path: Path, files: tuple[str, ...], extra: str, problem: str
) -> None:
    root = lay(tmp_path / "part", [*files, extra])
    (sentence,) = open_dataset(root).problems
    assert sentence == problem
    with pytest.raises(BadInputError, match=r"1 problem, expected none \(strict\)"):
        open_dataset(root, strict=True)


@pytest.mark.parametrize(
    ("files", "problems"),
    [
        (AD[:2], [NO_GOOD, NO_DEFECTIVE]),
        (AD[2:], ["No training image. Folders of good parts are called good, ok, okay or normal."]),
        (AD_3D[:2], [NO_GOOD, NO_DEFECTIVE]),
        (PLAIN[:3], [NO_GOOD, NO_DEFECTIVE, "good: holds 3 images; from 5 on, every 5th tests."]),
        (PLAIN[:1], [NO_GOOD, NO_DEFECTIVE, "good: holds 1 image; from 5 on, every 5th tests."]),
    ],
)
def test_a_missing_split_is_named(tmp_path: Path, files: tuple[str, ...], problems: list[str]) -> None:
    assert list(open_dataset(lay(tmp_path / "part", files)).problems) == problems


def test_the_folder_of_all_categories(tmp_path: Path) -> None:
    lay(tmp_path / "bolt", AD)
    assert open_dataset(tmp_path).category == "bolt"
    lay(tmp_path / "nut", AD)
    lay(tmp_path / "downloads", ["a.zip"])
    assert open_dataset(tmp_path, category="nut").root == tmp_path / "nut"
    assert open_dataset(tmp_path / "nut", category="nut").category == "nut"
    with pytest.raises(UsageError, match=r"holds 2 categories and none was named\. Choose: bolt, nut\."):
        open_dataset(tmp_path)
    with pytest.raises(UsageError, match=r"'screw' is not among them\. Choose: bolt, nut\."):
        open_dataset(tmp_path, category="screw")
    with pytest.raises(UsageError, match=r"Category 'bolt' was asked for, but .* is the folder of one category, 'nut'"):
        open_dataset(tmp_path / "nut", category="bolt")


def test_a_category_with_another_name_is_not_taken_for_the_only_one(tmp_path: Path) -> None:
    lay(tmp_path / "bolt", AD)
    with pytest.raises(UsageError, match=r"holds 1 categories and 'nut' is not among them\. Choose: bolt\."):
        open_dataset(tmp_path, category="nut")


def test_a_relative_path_names_the_category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "bolt", AD)
    monkeypatch.chdir(tmp_path / "bolt" / "train")
    assert open_dataset("..").category == "bolt"


def test_what_is_no_data_set_is_told_with_the_layouts_expected(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist; expected the folder of a data set"):
        open_dataset(tmp_path / "gone")
    with pytest.raises(BadInputError, match="is a file; expected the folder of a data set"):
        open_dataset(lay(tmp_path / "x", ["a.png"]) / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        BadInputError, match=r"(?s)the folder is empty; expected one of.*VisA.*3D-AD.*LOCO.*BTAD.*MVTec AD.*plain"
    ):
        open_dataset(tmp_path / "empty")
    with pytest.raises(BadInputError, match=r"no known layout: found a\.png; expected one of"):
        open_dataset(tmp_path / "x")
    lay(tmp_path / "many", [f"{i:02d}/a.txt" for i in range(15)])
    with pytest.raises(BadInputError, match=r"found 00/, 01/, .*, 11/ and 3 more; expected"):
        open_dataset(tmp_path / "many")
    lay(tmp_path / "hollow", ["train/good/notes.txt"])
    with pytest.raises(BadInputError, match="no image was found in the folders of layout mvtec-ad"):
        open_dataset(tmp_path / "hollow")


def test_the_fingerprint_is_what_its_docstring_says(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", AD))
    digest = hashlib.sha256()
    for name in (b"train/good/000.png", b"train/good/001.png"):
        digest.update((18).to_bytes(8, "big") + name + (18).to_bytes(8, "big") + name)
    assert dataset.fingerprint() == digest.hexdigest()


def test_the_fingerprint_sees_training_images_only(tmp_path: Path) -> None:
    reference = open_dataset(lay(tmp_path / "a", AD)).fingerprint()
    copy = lay(tmp_path / "b", AD)
    (copy / "test/good/000.png").write_bytes(b"other")
    assert open_dataset(copy).fingerprint() == reference
    (copy / "train/good/001.png").write_bytes(b"other")
    assert open_dataset(copy).fingerprint() != reference
    renamed = lay(tmp_path / "c", AD)
    (renamed / "train/good/001.png").rename(renamed / "train/good/002.png")
    assert open_dataset(renamed).fingerprint() != reference


def test_there_is_no_fingerprint_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no training image to take a fingerprint of"):
        open_dataset(lay(tmp_path / "a", AD[2:])).fingerprint()


def test_the_fingerprint_of_scans_covers_what_is_read_of_them(tmp_path: Path) -> None:
    root = lay(tmp_path / "bagel", SCANS)
    dataset, rgb, xyz = open_dataset(root), b"train/good/rgb/000.png", b"train/good/xyz/000.tiff"

    def digest(*parts: bytes, last: bytes = b"") -> str:
        lengths = [len(part).to_bytes(8, "big") + part for part in parts]
        return hashlib.sha256(b"".join(lengths) + last).hexdigest()

    other = [name.replace(b"000", b"001") for name in (rgb, xyz)]
    images, clouds, scans = (dataset.fingerprint(reads) for reads in ("image", "cloud", "cloud+rgb"))
    # Of images it is what earlier releases took it of, whatever lies beside them.
    assert images == dataset.fingerprint() == digest(rgb, rgb, other[0], other[0])
    assert clouds == digest(rgb, xyz, other[0], other[1])
    assert scans == digest(rgb, xyz, rgb, other[0], other[1], other[0])
    lay(root, ["calibration/camera_parameters.json"])
    assert dataset.fingerprint() == images
    assert dataset.fingerprint("cloud") == digest(
        rgb, xyz, other[0], other[1], last=b"calibration/camera_parameters.json"
    )
    (root / "train/good/xyz/001.tiff").write_bytes(b"moved")
    assert dataset.fingerprint() == images
    assert dataset.fingerprint("cloud+rgb") != scans


def test_a_copy_of_the_images_alone_is_another_training_set_of_scans(tmp_path: Path) -> None:
    whole = open_dataset(lay(tmp_path / "a", SCANS))
    images = open_dataset(lay(tmp_path / "b", [name for name in SCANS if "/xyz/" not in name]))
    assert images.fingerprint() == whole.fingerprint()
    assert images.fingerprint("cloud") != whole.fingerprint("cloud")


SCANS = tuple(
    f"{folder}/{part}/{name}.{suffix}"
    for folder in ("train/good", "validation/good", "test/good", "test/cut")
    for part, suffix in (("rgb", "png"), ("xyz", "tiff"), *([("gt", "png")] if "test" in folder else []))
    for name in ("000", "001")
)


def test_scans_with_their_clouds(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bagel", (*SCANS, "calibration/camera_parameters.json")), strict=True)
    assert count(dataset) == Counts(2, 2, 2, 2)
    assert all(scan_files(sample.path)[0].is_file() for sample in dataset.samples)


@pytest.mark.parametrize(
    ("without", "extra", "problem"),
    [
        ("train/good/xyz/001.tiff", (), "train/good/rgb/001.png: has no cloud."),
        (
            "test/cut/rgb/000.png",
            ("test/cut/rgb/002.png",),
            "test/cut/xyz/000.tiff: is a cloud without an image; the scan is left out.",
        ),
        ("", ("test/good/xyz/000.ply",), "test/good/xyz/000.ply: no .tiff or .tif file among clouds; ignored."),
    ],
)
def test_clouds_and_images_that_do_not_fit(tmp_path: Path, without: str, extra: tuple[str, ...], problem: str) -> None:
    dataset = open_dataset(lay(tmp_path / "bagel", (*(name for name in SCANS if name != without), *extra)))
    assert problem in dataset.problems


def test_a_copy_of_the_images_alone_lacks_nothing(tmp_path: Path) -> None:
    assert open_dataset(lay(tmp_path / "bagel", [name for name in SCANS if "/xyz/" not in name])).problems == ()


def test_sizes_are_compared_where_they_are_official(tmp_path: Path) -> None:
    root = lay(tmp_path / "rope", SCANS)
    for sample in open_dataset(root).samples:
        Image.new("RGB", (900, 400)).save(sample.path)
    assert check_sizes(open_dataset(root)) == ()
    Image.new("RGB", (450, 200)).save(root / "test/cut/rgb/000.png")
    (note,) = check_sizes(open_dataset(root))
    assert note == "rope: 1 image is 200x450 (height x width); MVTec 3D-AD's rope has 400x900."
    assert check_sizes(open_dataset(lay(tmp_path / "bolt", SCANS))) == ()
    assert MVTEC_3D_AD_SIZES.keys() == MVTEC_3D_AD.keys()


def test_the_official_numbers_add_up() -> None:
    np.testing.assert_array_equal(np.sum(list(MVTEC_AD.values()), axis=0), (3629, 0, 467, 1258))
    np.testing.assert_array_equal(np.sum(list(MVTEC_3D_AD.values()), axis=0), (2656, 294, 249, 948))
    assert (len(MVTEC_AD), len(MVTEC_3D_AD)) == (15, 10)


def complete(root: Path, *, without: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> Dataset:
    files = [f"train/good/{i:03d}.png" for i in range(60)] + [f"test/good/{i:03d}.png" for i in range(12)]
    files += [f"test/defective/{i:03d}.png" for i in range(30)]
    files += [f"ground_truth/defective/{i:03d}_mask.png" for i in range(30)]
    return open_dataset(lay(root, [*(f for f in files if f not in without), *extra]))


def test_counts_of_a_complete_and_of_a_damaged_copy(tmp_path: Path) -> None:
    assert check_counts(complete(tmp_path / "a" / "toothbrush")) == ()
    gone = ("train/good/003.png", "train/good/004.png", "test/defective/007.png", "ground_truth/defective/008_mask.png")
    damaged = complete(tmp_path / "b" / "toothbrush", without=gone, extra=("test/good/9.png",))
    assert check_counts(damaged) == (
        "toothbrush: 58 training images found, 2 fewer than MVTec AD's toothbrush has (60).",
        "toothbrush: 13 good test images found, 1 more than MVTec AD's toothbrush has (12).",
        "toothbrush: 29 anomalous test images found, 1 fewer than MVTec AD's toothbrush has (30).",
        "toothbrush: 28 masks found for 29 anomalous test images.",
    )


def test_counts_never_pass_in_silence(tmp_path: Path) -> None:
    (note,) = check_counts(open_dataset(lay(tmp_path / "bolt", AD)))
    assert note == "bolt: no official numbers are known for this category in layout mvtec-ad; nothing was compared."
    (note,) = check_counts(open_dataset(lay(tmp_path / "tire", PLAIN)))
    assert "in layout folder; nothing was compared" in note


def real(*parts: str) -> Dataset:
    folder = REAL.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"the data set {'/'.join(parts)} is not at ../shared/data")
    return open_dataset(folder, strict=True)


@pytest.mark.realdata
def test_real_screw_is_complete() -> None:
    dataset = real("mvtec_ad", "screw")
    assert count(dataset) == MVTEC_AD["screw"] == Counts(320, 0, 41, 119)
    assert check_counts(dataset) == ()
    assert sum(len(s.mask_paths) for s in dataset.test) == 119
    assert check_contents(dataset, "image") == dataset
    sample = next(s for s in dataset.test if s.label)
    frame = decode_image(sample.path)
    assert read_mask(sample, expected_shape=frame.shape[:2]).any()


@pytest.mark.realdata
def test_real_tire_is_complete() -> None:
    dataset = real("mvtec_3d", "tire")
    assert count(dataset) == MVTEC_3D_AD["tire"] == Counts(210, 29, 25, 87)
    assert check_counts(dataset) == ()
    per_type = {d: sum(s.defect == d for s in dataset.test) for d in sorted({s.defect for s in dataset.test})}
    assert per_type == {"combined": 5, "contamination": 28, "cut": 27, "good": 25, "hole": 27}
    sample = next(s for s in dataset.test if s.defect == "combined")
    with Image.open(*sample.mask_paths) as image:
        values = np.asarray(image)
    np.testing.assert_array_equal(read_mask(sample, expected_shape=(400, 300)), values > 0)


@pytest.mark.realdata
def test_real_hazelnuts_with_masks_of_another_name() -> None:
    dataset = real("hazelnut_toy")
    assert count(dataset) == Counts(28, 0, 6, 17)
    assert [s.mask_paths[0].name for s in dataset.test if s.label] == [f"{i:02d}.png" for i in range(17)]
    for sample in dataset.test:
        if sample.label:
            assert read_mask(sample, expected_shape=decode_image(sample.path).shape[:2]).any()
