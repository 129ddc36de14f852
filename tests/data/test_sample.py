"""The built-in sample: whole, exact, repeatable, and not to be solved by the mean image."""

import json
from pathlib import Path

import numpy as np
import pytest

from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.counts import Counts, count
from lineproof.data.dataset import Dataset, open_dataset
from lineproof.data.decoding.decode import decode_image
from lineproof.data.masks import read_mask
from lineproof.data.sample import write as module
from lineproof.data.sample.write import MARKER, MASK_LEVELS, write_sample

SMALL = {"num_train": 2, "num_test_good": 1, "num_test_defect": 6, "size_px": 64}
KINDS = {"colour_shift", "contamination", "crack", "scratch", "spot"}


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "set"
    assert write_sample(root, size_px=64) == ("flange", "weave")
    return root


@pytest.fixture(scope="module", params=["flange", "weave"])
def dataset(request: pytest.FixtureRequest, written: Path) -> Dataset:
    return open_dataset(written, category=request.param, strict=True)


def frames(dataset: Dataset, split: str) -> np.ndarray:
    return np.stack([decode_image(s.path) for s in dataset.samples if s.split == split])


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    good, bad = scores[labels == 0][:, None], scores[labels == 1][None, :]
    return float(np.mean((bad > good) + 0.5 * (bad == good)))


def test_counts_and_kinds_of_defects(dataset: Dataset) -> None:
    assert count(dataset) == Counts(40, 0, 12, 24)
    kinds = KINDS | {{"flange": "missing_part", "weave": "missing_thread"}[dataset.category]}
    defects = [s.defect for s in dataset.test if s.label]
    assert {k: defects.count(k) for k in kinds} == dict.fromkeys(kinds, 4)
    assert frames(dataset, "train").shape == (40, 64, 64, 3)


def test_masks_are_small_and_never_empty(dataset: Dataset) -> None:
    shares = [read_mask(s, expected_shape=(64, 64)).mean() for s in dataset.test if s.label]
    assert len(shares) == 24
    assert min(shares) > 0
    assert max(shares) < 0.08
    assert 0.001 < np.median(shares) < 0.02


def test_no_two_images_are_equal(dataset: Dataset) -> None:
    everything = np.concatenate([frames(dataset, "train"), frames(dataset, "test")])
    assert len({image.tobytes() for image in everything}) == 76


def test_nothing_is_washed_out(dataset: Dataset) -> None:
    images = frames(dataset, "train")
    assert np.mean(images == 255) < 0.02
    assert np.mean(images == 0) < 0.01
    assert images.mean(axis=(1, 2, 3)).std() > 4  # the light differs


def test_the_mean_image_does_not_find_the_defects(dataset: Dataset) -> None:
    grey_train = frames(dataset, "train").mean(axis=3)
    grey_test = frames(dataset, "test").mean(axis=3)
    labels = np.array([s.label for s in dataset.test])
    difference = np.abs(grey_test - grey_train.mean(axis=0))
    relative = difference / (grey_train.std(axis=0) + 2)
    for scores in (difference.max(axis=(1, 2)), difference.mean(axis=(1, 2)), relative.max(axis=(1, 2))):
        assert auroc(labels, scores) < 0.8


@pytest.mark.parametrize("category", module._CATEGORIES, ids=lambda c: c.name)
@pytest.mark.parametrize("number", range(6))
def test_a_mask_is_what_the_defect_changed(category: module._Category, number: int) -> None:
    seed, defect = [3, 1, 4, number], category.defects[number]
    image, mask = module._defective(seed, category, defect, 96)
    change = np.abs(image.astype(int) - module._good(seed, category, 96)).max(axis=2)
    np.testing.assert_array_equal(mask, change > MASK_LEVELS)
    assert change[mask].mean() > 2 * MASK_LEVELS
    # What the mask leaves out is the soft rim of the defect: the rest of the image is untouched.
    assert np.mean(change[~mask] > 0) < 0.05


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_sample(tmp_path / name, seed=seed, **SMALL)
    first, again, other = (content(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if "ground_truth" not in name)


def test_more_images_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    write_sample(tmp_path / "few", **SMALL)
    write_sample(tmp_path / "more", **{**SMALL, "num_train": 3, "num_test_good": 2, "num_test_defect": 8})
    few, more = content(tmp_path / "few"), content(tmp_path / "more")
    del few[MARKER]
    assert few.items() < more.items()


def test_the_same_part_at_another_size() -> None:
    category = module._CATEGORIES[0]
    small, large = (module._good([0, 0, 0, 1], category, size).astype(float) for size in (64, 256))
    averaged = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), averaged.ravel())[0, 1] > 0.95


def test_a_sample_is_replaced_whole(tmp_path: Path) -> None:
    write_sample(tmp_path / "set", **{**SMALL, "num_train": 3})
    write_sample(tmp_path / "set", **SMALL)
    listed = json.loads((tmp_path / "set" / MARKER).read_text())["files"]
    assert sorted([*listed, MARKER]) == sorted(content(tmp_path / "set"))
    assert not (tmp_path / "set/flange/train/good/002.png").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_sample(tmp_path / "empty", **SMALL)
    write_sample(str(tmp_path / "x" / "y"), **SMALL)
    assert content(tmp_path / "empty") == content(tmp_path / "x" / "y")
    assert (tmp_path / "empty").stat().st_mode == (tmp_path / "x").stat().st_mode


def test_what_is_not_a_sample_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInputError, match=r"not of a lineproof sample, such as notes\.txt \(1 in all\); nothing was"):
        write_sample(tmp_path, **SMALL)
    with pytest.raises(BadInputError, match=r"notes\.txt: is a file; expected a folder for the sample"):
        write_sample(tmp_path / "notes.txt", **SMALL)
    assert content(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"files": 3}', '{"files": ["other.txt"]}'])
def test_a_marker_alone_does_not_make_a_folder_replaceable(tmp_path: Path, marker: str) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / MARKER).write_text(marker)
    with pytest.raises(BadInputError, match="not of a lineproof sample"):
        write_sample(tmp_path, **SMALL)


def test_a_file_added_to_a_sample_protects_it(tmp_path: Path) -> None:
    write_sample(tmp_path / "set", **SMALL)
    (tmp_path / "set/flange/train/good/mine.png").write_bytes(b"mine")
    with pytest.raises(BadInputError, match=r"such as flange/train/good/mine\.png \(1 in all\)"):
        write_sample(tmp_path / "set", **SMALL)


def test_a_stop_half_way_leaves_the_old_sample_and_no_rest(tmp_path: Path) -> None:
    write_sample(tmp_path / "set", **SMALL)
    before = content(tmp_path / "set")

    def stop(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("drawing the sample", 18)
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "set", seed=1, progress=stop, **SMALL)
    assert content(tmp_path / "set") == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_test_good": -1}, {"size_px": 63}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected train from 1, size_px from 64, the others from 0"):
        write_sample(tmp_path / "set", **{**SMALL, **wrong})
    assert not (tmp_path / "set").exists()
