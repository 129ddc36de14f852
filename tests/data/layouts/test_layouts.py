"""Every layout on small trees: labels by the usual names, masks where each layout has them, and what is odd."""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.registry import resolve
from lineproof.data.counts import BTAD as BTAD_COUNTS
from lineproof.data.counts import MVTEC_LOCO, VISA, Counts, check_counts, count
from lineproof.data.dataset import LAYOUTS, Dataset, enclosing_dataset, open_dataset
from lineproof.data.layouts.layout import MASKS_AMONG_PARTS, MASKS_OF_GOOD, Layout
from lineproof.data.layouts.names import BAD_NAMES, GOOD_NAMES, is_good_name, sounds_good, spelled


def lay(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def told(dataset: Dataset) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Per image: split, type of defect, masks."""

    def name(path: Path) -> str:
        return path.relative_to(dataset.root).as_posix()

    assert all(bool(s.label) == (s.defect != "good") for s in dataset.samples)
    return {name(s.path): (s.split, s.defect, tuple(name(m) for m in s.mask_paths)) for s in dataset.samples}


AD = ("train/good/0.png", "test/good/0.png", "test/dent/0.png", "ground_truth/dent/0_mask.png")
LOCO = (
    "train/good/000.png", "validation/good/000.png", "test/good/000.png", "test/logical_anomalies/000.png",
    "test/logical_anomalies/001.png", "test/structural_anomalies/000.png", "ground_truth/logical_anomalies/000/000.png",
    "ground_truth/logical_anomalies/000/001.png", "ground_truth/logical_anomalies/001/000.png",
    "ground_truth/structural_anomalies/000/000.png", "defects_config.json",
)  # fmt: skip
BTAD = (
    "train/ok/0000.bmp", "train/ok/0001.bmp", "test/ok/0000.bmp", "test/ko/0000.bmp", "test/ko/0001.bmp",
    "ground_truth/ko/0000.png", "ground_truth/ko/0001.bmp",
)  # fmt: skip
AD_3D = (
    "train/OK/rgb/0.png",
    "test/Normal/rgb/0.png",
    "test/Normal/gt/0.png",
    "test/cut/RGB/0.png",
    "test/cut/Gt/0.png",
)
VISA_FILES = (
    "Data/Images/Normal/0000.JPG", "Data/Images/Normal/0001.JPG", "Data/Images/Anomaly/000.JPG",
    "Data/Images/Anomaly/001.JPG", "Data/Masks/Anomaly/000.png", "Data/Masks/Anomaly/001.png", "image_anno.csv",
)  # fmt: skip
VISA_ROWS = (
    "object,split,label,image,mask",
    "candle,train,normal,candle/Data/Images/Normal/0001.JPG,",
    "candle,test,normal,candle/Data/Images/Normal/0000.JPG,",
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
    "candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png",
    "capsules,train,normal,capsules/Data/Images/Normal/000.JPG,",
)
OTHERWISE = "in split_csv/1cls.csv, its folder says otherwise; ignored."
PLAIN = (*(f"good/{i:02d}.png" for i in range(10)), "bad/a.png", "masks/a.png")
COMPLETE: Mapping[str, tuple[str, ...]] = {
    "visa": VISA_FILES, "mvtec-3d-ad": AD_3D, "mvtec-loco-ad": LOCO, "btad": BTAD, "mvtec-ad": AD, "folder": PLAIN,
}  # fmt: skip


def visa(root: Path, *, rows: Iterable[str] = VISA_ROWS, extra: Iterable[str] = ()) -> Path:
    lay(root / "candle", [*VISA_FILES, *extra])
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows))
    return root / "candle"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_reads_its_tree_and_no_other_takes_it(tmp_path: Path, name: str) -> None:
    layout = resolve(LAYOUTS, name, kind="layout")
    assert isinstance(layout, Layout)
    root = visa(tmp_path) if name == "visa" else lay(tmp_path / "part", COMPLETE[name])
    dataset = open_dataset(root, strict=True)
    assert (dataset.layout, dataset.name, dataset.problems) == (name, layout.title, ())
    assert min(count(dataset)[0], *count(dataset)[2:]) > 0
    assert all(sample.mask_paths for sample in dataset.test if sample.label)


@pytest.mark.parametrize("name", LAYOUTS)
def test_litter_and_empty_hidden_folders_change_nothing(tmp_path: Path, name: str) -> None:
    root = visa(tmp_path) if name == "visa" else lay(tmp_path / "part", COMPLETE[name])
    clean = open_dataset(root)
    for folder in {root, *(sample.path.parent for sample in clean.samples), *root.glob("*/*/")}:
        if folder.is_dir():
            lay(folder, [".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "@eaDir/0.png"])
    assert open_dataset(root, strict=True) == clean


@pytest.mark.parametrize("good", ["good", "ok", "okay", "normal", "OK", "Good", "Ok", "NORMAL", "ＯＫ"])
@pytest.mark.parametrize("bad", ["ng", "NG", "bad", "defective", "anomaly"])
def test_good_folders_by_any_usual_name_in_any_case(tmp_path: Path, good: str, bad: str) -> None:
    split = lay(tmp_path / "a", [f"train/{good}/0.png", f"test/{good}/0.png", f"test/{bad}/0.png"])
    (split / "ground_truth").mkdir()
    dataset = open_dataset(split)
    assert dataset.layout == "mvtec-ad"
    assert told(dataset) == {
        f"train/{good}/0.png": ("train", "good", ()),
        f"test/{good}/0.png": ("test", "good", ()),
        f"test/{bad}/0.png": ("test", bad, ()),
    }
    assert dataset.notes == (
        f"train/{good} holds the good training images.", f"test/{good} holds the good test images.",
    )  # fmt: skip
    plain = open_dataset(lay(tmp_path / "b", [*(f"{good}/{i}.png" for i in range(5)), f"{bad}/0.png"]), strict=True)
    assert count(plain) == Counts(4, 0, 1, 1)
    assert told(plain)[f"{bad}/0.png"] == ("test", bad, ())


def test_names_are_told_apart() -> None:
    assert all(map(is_good_name, GOOD_NAMES))
    assert not any(is_good_name(name) or sounds_good(name) for name in BAD_NAMES)
    assert {spelled(name) for name in BAD_NAMES | GOOD_NAMES} == BAD_NAMES | GOOD_NAMES
    assert not any(map(is_good_name, ("not good", "goods", "ok2", "abnormal", "nok", "gut", "")))
    assert all(
        map(sounds_good, ("gut", "Passed", "i.O.", "good_parts", "OK-2", "ok 1", "goods", "良品", "Defect-free"))
    )
    assert not any(map(sounds_good, ("crack", "abnormal", "not good", "NOK", "okapi", "goodyear", "normalised", "bad")))


def test_two_good_folders_in_one_split_are_both_good_and_said(tmp_path: Path) -> None:
    root = lay(tmp_path / "bolt", [*AD, "test/OK/0.png", "Test/normal/5.png", "Train/ok/7.png"])
    dataset = open_dataset(root, strict=True)
    assert count(dataset) == Counts(2, 0, 3, 1)
    assert dataset.notes == (
        "Train/ok and train/good hold the good training images.",
        "Test/normal and test/OK and test/good hold the good test images.",
    )
    assert dataset.summary_lines() == [
        "bolt: 2 training, 3 good and 1 defective test images (dent 1), 1 with masks; MVTec AD layout; "
        "good = Test/normal, test/OK, test/good"
    ]


def test_images_directly_in_train_are_good_where_no_folder_is(tmp_path: Path) -> None:
    files = ["train/0.png", "train/1.PNG", *AD[1:]]
    dataset = open_dataset(lay(tmp_path / "bolt", files), strict=True)
    assert [s.path.name for s in dataset.train] == ["0.png", "1.PNG"]
    assert dataset.notes == (
        "train holds the good training images.",
        "test/good holds the good test images.",
        "The images directly in train count as good: it has no folder good, ok, okay or normal.",
    )
    assert dataset.summary_lines()[1:] == [dataset.notes[2]]
    odd = open_dataset(lay(tmp_path / "nut", [*files, "train/crack/1.png", "train/list.txt"]))
    assert odd.problems == (
        "train/list.txt: no image file among images; ignored.",
        "train/crack: only good images belong into train, in a folder good, ok, okay or normal; ignored.",
    )
    alone = open_dataset(lay(tmp_path / "raw", ["train/0.png"]))
    assert (count(alone), len(alone.lacking)) == (Counts(1, 0, 0, 0), 2)


def test_no_good_test_image_is_said_first_with_the_folders_taken_as_defects(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", [AD[0], *AD[2:], "test/gut/0.png", "ground_truth/gut/0.png"]))
    assert dataset.problems == (
        "No good test image. Taken as defective: test/dent, test/gut. Folders of good parts are called good, ok, "
        "okay or normal. How well good and defective parts are told apart cannot be measured.",
        "test/gut: counts as a type of defect, though its name may mean good parts; those are called good, ok, okay or "
        "normal.",
    )
    lines = dataset.summary_lines()
    assert lines[0] == (
        "bolt: 1 training, NO good and 2 defective test images (dent 1, gut 1), 2 with masks; MVTec AD layout; "
        "good = no folder of the test split"
    )
    assert lines[1:] == list(dataset.problems)


def test_no_defective_test_image_and_no_training_image_are_said(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", ["test/good/0.png", "train/gut/0.png"]))
    assert dataset.problems == (
        "No defective test image. Whether defects are found cannot be measured.",
        "No training image. Folders of good parts are called good, ok, okay or normal.",
        "train/gut: only good images belong into train, in a folder good, ok, okay or normal; ignored.",
    )
    assert dataset.summary_lines()[0] == (
        "bolt: NO training, 1 good and NO defective test images; MVTec AD layout; good = test/good"
    )


def test_loco_has_several_masks_per_image(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "pushpins", LOCO), strict=True)
    gt = "ground_truth/logical_anomalies"
    assert told(dataset) == {
        "train/good/000.png": ("train", "good", ()),
        "validation/good/000.png": ("validation", "good", ()),
        "test/good/000.png": ("test", "good", ()),
        "test/logical_anomalies/000.png": ("test", "logical_anomalies", (f"{gt}/000/000.png", f"{gt}/000/001.png")),
        "test/logical_anomalies/001.png": ("test", "logical_anomalies", (f"{gt}/001/000.png",)),
        "test/structural_anomalies/000.png": (
            "test", "structural_anomalies", ("ground_truth/structural_anomalies/000/000.png",)
        ),
    }  # fmt: skip
    assert dataset.summary_lines() == [
        "pushpins: 1 training, 1 validation, 1 good and 3 defective test images (logical_anomalies 2, "
        "structural_anomalies 1), 3 with masks; MVTec LOCO AD layout; good = test/good"
    ]


def test_folders_of_masks_are_found_under_any_type_of_defect(tmp_path: Path) -> None:
    files = [*AD[:2], "test/crack/000.png", "test/crack/001.png", "ground_truth/crack/000/a.png"]
    files += ["ground_truth/crack/000/a_mask.png"]
    root = lay(tmp_path / "m", [*files, "ground_truth/crack/007/0.png", "ground_truth/crack/008/notes.txt"])
    dataset = open_dataset(root)
    assert dataset.layout == "mvtec-loco-ad"
    assert told(dataset)["test/crack/000.png"][2] == tuple(f"ground_truth/crack/000/{n}.png" for n in ("a", "a_mask"))
    assert dataset.problems == (
        "ground_truth/crack/008/notes.txt: no image file among masks; ignored.",
        "ground_truth/crack/008: is a folder of masks with no mask in it.",
        "test/crack/001.png: has no mask.",
        "ground_truth/crack/007: is a folder of masks without an image.",
    )


def test_btad_calls_good_parts_ok(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "01", BTAD), strict=True)
    assert told(dataset) == {
        "train/ok/0000.bmp": ("train", "good", ()),
        "train/ok/0001.bmp": ("train", "good", ()),
        "test/ok/0000.bmp": ("test", "good", ()),
        "test/ko/0000.bmp": ("test", "ko", ("ground_truth/ko/0000.png",)),
        "test/ko/0001.bmp": ("test", "ko", ("ground_truth/ko/0001.bmp",)),
    }
    assert dataset.summary_lines() == [
        "01: 2 training, 1 good and 2 defective test images (ko 2), 2 with masks; BTAD layout; good = test/ok"
    ]
    # Half of its names alone is MVTec AD's layout with other names.
    half = open_dataset(
        lay(tmp_path / "x", ["train/good/0.png", "test/good/0.png", "test/ko/0.png", "ground_truth/ko/0.png"])
    )
    assert half.layout == "mvtec-ad"


def test_mixed_case_everywhere(tmp_path: Path) -> None:
    upper = [name.upper() for name in BTAD]
    dataset = open_dataset(lay(tmp_path / "01", upper), strict=True)
    assert dataset.layout == "btad"
    assert told(dataset)["TEST/KO/0001.BMP"] == ("test", "KO", ("GROUND_TRUTH/KO/0001.BMP",))
    files = ["Train/Good/0.PNG", "TEST/Good/0.Png", "TEST/Dent/0.PNG", "Ground Truth/DENT/0_mask.PNG"]
    assert told(open_dataset(lay(tmp_path / "nut", files), strict=True))["TEST/Dent/0.PNG"] == (
        "test", "Dent", ("Ground Truth/DENT/0_mask.PNG",),
    )  # fmt: skip
    scans = open_dataset(lay(tmp_path / "scan", AD_3D), strict=True)
    assert told(scans) == {
        "train/OK/rgb/0.png": ("train", "good", ()),
        "test/Normal/rgb/0.png": ("test", "good", ("test/Normal/gt/0.png",)),
        "test/cut/RGB/0.png": ("test", "cut", ("test/cut/Gt/0.png",)),
    }
    loco = open_dataset(lay(tmp_path / "l", [name.title() for name in LOCO]), strict=True)
    assert (loco.layout, count(loco)) == ("mvtec-loco-ad", Counts(1, 1, 1, 3))


def test_visa_is_split_by_its_table(tmp_path: Path) -> None:
    dataset = open_dataset(visa(tmp_path), strict=True)
    assert told(dataset) == {
        "Data/Images/Normal/0001.JPG": ("train", "good", ()),
        "Data/Images/Normal/0000.JPG": ("test", "good", ()),
        "Data/Images/Anomaly/000.JPG": ("test", "Anomaly", ("Data/Masks/Anomaly/000.png",)),
        "Data/Images/Anomaly/001.JPG": ("test", "Anomaly", ("Data/Masks/Anomaly/001.png",)),
    }
    assert open_dataset(tmp_path) == dataset
    assert open_dataset(tmp_path, category="candle") == dataset


def test_visa_converted_is_mvtec_ads_layout(tmp_path: Path) -> None:
    files = ["train/good/0.JPG", "test/good/1.JPG", "test/bad/000.JPG", "ground_truth/bad/000.png"]
    dataset = open_dataset(lay(tmp_path / "1cls" / "candle", files), strict=True)
    assert (dataset.layout, told(dataset)["test/bad/000.JPG"]) == (
        "mvtec-ad",
        ("test", "bad", ("ground_truth/bad/000.png",)),
    )
    assert check_counts(dataset)[0] == "candle: 1 training images found, 899 fewer than VisA's candle has (900)."


@pytest.mark.parametrize("rows", [None, VISA_ROWS[:1], ("object,split,label,image,mask", VISA_ROWS[-1])])
def test_visa_without_its_table_splits_as_plain_folders_and_says_so(
    tmp_path: Path, rows: tuple[str, ...] | None
) -> None:
    more = [f"Data/Images/Normal/{i:04d}.JPG" for i in range(10)]
    root = lay(tmp_path / "candle", [*VISA_FILES, *more]) if rows is None else visa(tmp_path, rows=rows, extra=more)
    dataset = open_dataset(root)
    why = "is not there" if rows is None else "names no image of this category"
    splits = "every 5th normal image tests, and the figures compare with no published ones."
    assert dataset.problems == (f"../split_csv/1cls.csv: {why}; {splits}",)
    assert [s.path.name for s in dataset.test if not s.label] == ["0004.JPG", "0009.JPG"]
    assert count(dataset) == Counts(8, 0, 2, 2)
    assert all(len(s.mask_paths) == 1 for s in dataset.test if s.label)


def test_visa_of_a_renamed_folder_and_with_windows_paths(tmp_path: Path) -> None:
    root = visa(tmp_path, rows=[VISA_ROWS[0], *(row.replace("/", "\\") for row in VISA_ROWS[1:])])
    assert count(open_dataset(root, strict=True)) == Counts(1, 0, 1, 2)
    root = root.rename(tmp_path / "Candle")
    assert count(open_dataset(root, strict=True)) == Counts(1, 0, 1, 2)


@pytest.mark.parametrize(
    ("row", "problems"),
    [
        (
            "candle,test,anomaly,candle/../../outside.JPG,",
            ["../../outside.JPG: is in split_csv/1cls.csv, but not among the images of the category; ignored."],
        ),
        (
            "candle,test,anomaly,/etc/hostname,",
            ["/etc/hostname: is in split_csv/1cls.csv, but not among the images of the category; ignored."],
        ),
        (
            "candle,test,anomaly,candle/Data/Images/Anomaly/002.JPG,candle/../../mask.png",
            ["Data/Images/Anomaly/002.JPG: has no mask: candle/../../mask.png is not there."],
        ),
        ("candle,test,anomaly,candle/Data/Images/Anomaly/002.JPG,", ["Data/Images/Anomaly/002.JPG: has no mask."]),
        ("candle,test,anomaly,candle/Data/Images/Anomaly/002.JPG", ["Data/Images/Anomaly/002.JPG: has no mask."]),
        (
            "candle,test,normal,candle/Data/Images/Anomaly/002.JPG,",
            [f"Data/Images/Anomaly/002.JPG: is labelled 'normal' {OTHERWISE}"],
        ),
        (
            "candle,test,blurred,candle/Data/Images/Anomaly/002.JPG,",
            [f"Data/Images/Anomaly/002.JPG: is labelled 'blurred' {OTHERWISE}"],
        ),
        (
            "candle,train,anomaly,candle/Data/Images/Anomaly/002.JPG,",
            ["Data/Images/Anomaly/002.JPG: is anomaly and of split 'train' in split_csv/1cls.csv; ignored."],
        ),
        (
            "candle,val,normal,candle/Data/Images/Normal/0001.JPG,",
            [
                "Data/Images/Normal/0001.JPG: is in split_csv/1cls.csv more than once; the first row counts.",
                "Data/Images/Anomaly/002.JPG: is not in split_csv/1cls.csv; ignored.",
            ],
        ),
    ],
)
def test_visa_and_its_table_must_agree(tmp_path: Path, row: str, problems: list[str]) -> None:
    (tmp_path / "outside.JPG").write_bytes(b"x")
    (tmp_path / "mask.png").write_bytes(b"x")
    root = visa(tmp_path / "v", rows=[*VISA_ROWS, row], extra=["Data/Images/Anomaly/002.JPG"])
    left = "Data/Images/Anomaly/002.JPG: is not in split_csv/1cls.csv; ignored."
    expected = problems if "002.JPG" in row or left in problems else [*problems, left]
    dataset = open_dataset(root)
    assert list(dataset.problems) == expected
    assert set(told(dataset)) - {"Data/Images/Anomaly/002.JPG"} == set(told(open_dataset(visa(tmp_path / "w"))))


def test_what_visa_has_left_over_is_named(tmp_path: Path) -> None:
    extra = ["Data/Images/Blurred/0.JPG", "Data/Masks/Normal/0.png", "Data/Masks/Anomaly/9.png", "more/0.png"]
    assert open_dataset(visa(tmp_path, extra=extra)).problems == (
        "Data/Images/Blurred: not in a folder that the layout knows; ignored.",
        f"Data/Masks/Normal: {MASKS_OF_GOOD}.",
        "more: not in a folder that the layout knows; ignored.",
        "Data/Masks/Anomaly/9.png: is a mask without an image.",
    )


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    root = visa(tmp_path, rows=["object,split,image", "candle,train,x"])
    with pytest.raises(
        BadInputError, match=r"1cls\.csv: lacks the columns label, mask; expected object,split,label,image"
    ):
        open_dataset(root)
    table = tmp_path / "split_csv" / "1cls.csv"
    table.write_bytes(b"")
    with pytest.raises(BadInputError, match="lacks the columns object, split, label, image, mask"):
        open_dataset(root)
    table.write_bytes(b"object,split,label,image,mask\ncandle,train,normal,\xff\xfe,\n")
    with pytest.raises(BadInputError, match=r"1cls\.csv: cannot be read .*utf-8.*; expected the table of VisA"):
        open_dataset(root)
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(VISA_ROWS).encode())
    assert open_dataset(root, strict=True).layout == "visa"


def test_a_root_with_the_table_alone_is_no_data_set(tmp_path: Path) -> None:
    lay(tmp_path, ["split_csv/1cls.csv"])
    with pytest.raises(BadInputError, match=r"no known layout: found split_csv/; expected one of"):
        open_dataset(tmp_path)


def test_plain_folders_with_other_names_and_masks_of_their_own(tmp_path: Path) -> None:
    files = [f"OK/{i}.png" for i in range(5)]
    files += ["NG/a.PNG", "NG/b.png", "defect/a.png", "defect/dent/c.png", "Masks/a.png", "Masks/NG/a.png"]
    files += ["Masks/NG/b/1.png", "Masks/NG/b/2.png", "Masks/dent/c_mask.png"]
    dataset = open_dataset(lay(tmp_path / "part", files), strict=True)
    assert {name: rest for name, rest in told(dataset).items() if rest[1] != "good"} == {
        "NG/a.PNG": ("test", "NG", ("Masks/NG/a.png",)),
        "NG/b.png": ("test", "NG", ("Masks/NG/b/1.png", "Masks/NG/b/2.png")),
        "defect/a.png": ("test", "defect", ("Masks/a.png",)),
        "defect/dent/c.png": ("test", "dent", ("Masks/dent/c_mask.png",)),
    }
    assert dataset.summary_lines()[0] == (
        "part: 4 training, 1 good and 4 defective test images (NG 2, defect 1, dent 1), 4 with masks; plain folder; "
        "good = OK"
    )


def test_one_mask_is_never_given_to_two_images(tmp_path: Path) -> None:
    goods = [f"good/{i}.png" for i in range(5)]
    dataset = open_dataset(
        lay(tmp_path / "a", [*goods, "bad/a.png", "ng/a.png", "ng/b.png", "masks/a.png", "masks/b.png"])
    )
    assert [s.mask_paths for s in dataset.test if s.label] == [(), (), (dataset.root / "masks/b.png",)]
    assert dataset.problems == (
        "bad/a.png: has no mask.", "ng/a.png: has no mask.",
        "masks/a.png: may belong to bad/a.png or ng/a.png; not used.",
    )  # fmt: skip
    twins = open_dataset(lay(tmp_path / "b", [*AD, "test/dent/0.jpg"]))
    assert [s.mask_paths for s in twins.test if s.label] == [(), ()]
    assert twins.problems == (
        "test/dent/0.png: has the same name as 0.jpg but for the suffix.",
        "test/dent/0.jpg: has no mask.", "test/dent/0.png: has no mask.",
        "ground_truth/dent/0_mask.png: may belong to test/dent/0.jpg or test/dent/0.png; not used.",
    )  # fmt: skip


def test_two_masks_of_one_image_are_not_both_taken(tmp_path: Path) -> None:
    more = ["ground_truth/dent/0.png", "ground_truth/dent/0_mask.tif"]
    dataset = open_dataset(lay(tmp_path / "a", [*AD, *more]))
    assert told(dataset)["test/dent/0.png"][2] == ("ground_truth/dent/0_mask.png",)
    assert dataset.problems == (
        "ground_truth/dent/0_mask.tif: is a mask without an image.",
        "ground_truth/dent/0.png: is a mask without an image.",
    )


def test_a_mask_beside_its_image_is_no_image(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", [*AD, "test/dent/0_mask.png", "test/dent/alone_mask.png"]))
    assert [s.path.name for s in dataset.test if s.label] == ["0.png", "alone_mask.png"]
    assert dataset.problems[0] == (
        "test/dent/0_mask.png: is called like the mask of an image beside it, and counts as none; ignored."
    )


@pytest.mark.parametrize("name", ["masks", "Ground Truth", "gt"])
def test_a_folder_of_masks_among_parts_holds_no_images(tmp_path: Path, name: str) -> None:
    """Counted as a type of defect, black images with a white spot raise every figure."""
    dataset = open_dataset(lay(tmp_path / "bolt", [*AD, f"test/{name}/0.png"]))
    assert {s.defect for s in dataset.test} == {"good", "dent"}
    assert dataset.problems == (f"test/{name}: {MASKS_AMONG_PARTS}.",)
    goods = [f"good/{i}.png" for i in range(5)]
    plain = open_dataset(lay(tmp_path / "nut", [*goods, "bad/a.png", f"bad/{name}/a.png"]))
    assert [(s.path.name, s.defect) for s in plain.test if s.label] == [("a.png", "bad")]
    assert plain.problems == (f"bad/{name}: {MASKS_AMONG_PARTS}.",)


def test_masks_of_good_images_are_said(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", [*AD, "ground_truth/Good/0.png"]))
    assert dataset.problems == (f"ground_truth/Good: {MASKS_OF_GOOD}.",)
    assert told(dataset)["test/good/0.png"] == ("test", "good", ("ground_truth/Good/0.png",))
    goods = [f"good/{i}.png" for i in range(5)]
    plain = open_dataset(
        lay(tmp_path / "nut", [*goods, "bad/a.png", "bad/ok/1.png", "masks/a.png", "masks/good/1.png"])
    )
    assert plain.problems == (
        "bad/ok: a folder of good parts among bad ones; ignored.",
        f"masks/good: {MASKS_OF_GOOD}.",
    )


def test_no_folder_of_masks_is_one_problem_and_a_missing_mask_is_its_own(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "a", [*AD[:3], "test/dent/1.png"]))
    assert dataset.problems == ("ground_truth: is not there; no defective image has a mask.",)
    files = [*AD, *(f"test/dent/{i}.png" for i in range(1, 7))]
    dataset = open_dataset(lay(tmp_path / "b", files))
    assert len(dataset.problems) == 6
    assert dataset.summary_lines()[1:] == [
        "has no mask (6): test/dent/1.png, test/dent/2.png, test/dent/3.png and 3 more."
    ]
    assert dataset.summary_lines(most_names=6)[1].endswith("test/dent/5.png, test/dent/6.png.")


def test_many_types_of_defect_are_counted_in_brief(tmp_path: Path) -> None:
    files = [*AD[:2], *(f"test/d{i}/0.png" for i in range(10)), *(f"ground_truth/d{i}/0.png" for i in range(10))]
    head = open_dataset(lay(tmp_path / "a", files), strict=True).summary_lines()[0]
    assert "10 defective test images (d0 1, d1 1, d2 1, d3 1, d4 1, d5 1, d6 1, d7 1, and 2 more types), 10" in head


def test_names_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "prüfling é") for form in ("NFC", "NFD"))
    files = [*AD[:2], f"test/kratzer ü/{apart}.png", f"ground_truth/kratzer ü/{composed}_mask.png"]
    dataset = open_dataset(lay(tmp_path / "schraube ß", files), strict=True)
    assert (dataset.category, [len(s.mask_paths) for s in dataset.test if s.label]) == ("schraube ß", [1])


def test_a_line_is_one_line_whatever_folders_are_called(tmp_path: Path) -> None:
    lines = open_dataset(lay(tmp_path / "a\nb", [*AD, "test/de\r\nnt/0.png", "o\x0bdd/0.png"])).summary_lines()
    assert lines[0].startswith("a b: 1 training, 1 good and 2 defective test images (de nt 1, dent 1)")
    assert [len(line.splitlines()) for line in lines] == [1, 1, 1]


def test_names_that_are_no_unicode_are_read(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "bolt", [*AD, "test/good/\udcff.png"]), strict=True)
    assert count(dataset) == Counts(1, 0, 2, 1)


def test_links_are_followed_and_broken_ones_named(tmp_path: Path) -> None:
    real = lay(tmp_path / "real", AD)
    root = tmp_path / "linked"
    (root / "test").mkdir(parents=True)
    os.symlink(real / "train", root / "train")
    os.symlink(real / "test" / "good", root / "test" / "good")
    os.symlink(real / "test" / "dent", root / "test" / "dent")
    os.symlink(real / "ground_truth", root / "ground_truth")
    assert told(open_dataset(root, strict=True)) == told(open_dataset(real))
    os.symlink(tmp_path / "gone.png", real / "test" / "dent" / "1.png")
    os.symlink("2.png", real / "test" / "dent" / "2.png")
    assert open_dataset(root).problems == (
        "test/dent/1.png: a link that leads nowhere among images; ignored.",
        "test/dent/2.png: a link that leads nowhere among images; ignored.",
    )


@pytest.mark.parametrize("name", ["good", "ok", "train", "test", "masks", "Data"])
def test_a_category_may_be_called_like_a_folder_of_the_layout(tmp_path: Path, name: str) -> None:
    for layout, files in COMPLETE.items():
        is_flat = any(file.partition("/")[0] in GOOD_NAMES for file in files)
        if is_flat and name in ("train", "test"):
            # A good folder below train/ is just what MVTec AD's layout looks like.
            continue
        root = tmp_path / layout
        lay(root / name, files)
        lay(root / "nut", files)
        with pytest.raises(UsageError, match=f"Choose: {name}, nut" if name < "nut" else f"Choose: nut, {name}"):
            open_dataset(root)
        dataset = open_dataset(root, category=name)
        assert (dataset.category, dataset.layout, dataset.root) == (name, layout, root / name)


def test_categories_one_folder_deeper_are_pointed_at(tmp_path: Path) -> None:
    lay(tmp_path / "1cls" / "candle", AD)
    lay(tmp_path / "1cls" / "cashew", AD)
    (tmp_path / "a").mkdir()
    with pytest.raises(
        BadInputError, match=r"no known layout, but 1cls in it holds the categories candle, cashew: give"
    ):
        open_dataset(tmp_path)


def test_masks_of_a_plain_folder_may_be_called_ground_truth(tmp_path: Path) -> None:
    dataset = open_dataset(lay(tmp_path / "a", [*PLAIN[:-1], "ground_truth/a.png"]), strict=True)
    assert (dataset.layout, [len(s.mask_paths) for s in dataset.test if s.label]) == ("folder", [1])


def test_the_data_set_around_a_folder(tmp_path: Path) -> None:
    root = lay(tmp_path / "set" / "bolt", AD)
    assert enclosing_dataset(root / "test" / "dent").root == root
    assert enclosing_dataset(root / "ground_truth" / "dent") is None
    # The outer folder looks like a split tree without an image; that is no reason to fail.
    odd = lay(tmp_path / "odd", ["test/good/notes.txt", "mine/1.png"])
    assert enclosing_dataset(odd / "mine") is None
    root = visa(tmp_path / "visa")
    assert enclosing_dataset(root / "Data" / "Images" / "Normal").layout == "visa"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    lay(tmp_path / "bolt", AD)
    closed = lay(tmp_path / "lost+found", ["x"])
    closed.chmod(0)
    try:
        assert open_dataset(tmp_path).category == "bolt"
        with pytest.raises(BadInputError, match=r"lost\+found: the folder cannot be listed \(Permission denied\)"):
            open_dataset(closed)
    finally:
        closed.chmod(0o700)


def test_the_official_numbers_add_up() -> None:
    np.testing.assert_array_equal(np.sum(list(MVTEC_LOCO.values()), axis=0), (1778, 305, 575, 993))
    np.testing.assert_array_equal(np.sum(list(BTAD_COUNTS.values()), axis=0), (1799, 0, 451, 290))
    np.testing.assert_array_equal(np.sum(list(VISA.values()), axis=0), (8659, 0, 962, 1200))


def test_counts_name_the_benchmark_they_are_of(tmp_path: Path) -> None:
    assert check_counts(open_dataset(lay(tmp_path / "01", BTAD))) == (
        "01: 2 training images found, 398 fewer than BTAD's 01 has (400).",
        "01: 1 good test images found, 20 fewer than BTAD's 01 has (21).",
        "01: 2 anomalous test images found, 47 fewer than BTAD's 01 has (49).",
    )
    assert check_counts(open_dataset(visa(tmp_path)))[0].endswith("899 fewer than VisA's candle has (900).")
    loco = check_counts(open_dataset(lay(tmp_path / "pushpins", LOCO)))
    assert loco[1] == "pushpins: 1 validation images found, 68 fewer than MVTec LOCO AD's pushpins has (69)."
    # A category of one's own that is called as one of VisA's is not compared with it.
    own = open_dataset(lay(tmp_path / "o" / "candle", AD))
    assert "nothing was compared" in check_counts(own)[0]
