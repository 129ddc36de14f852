"""Rank correlation, masks in map coordinates, streamed predictions, and what verification may import."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.spec import Preprocessing
from lineproof.core.used import UsedShare
from lineproof.data.dataset import Sample
from lineproof.data.inputs.table import input_of
from lineproof.eval.predictions import FrameBatch, ImagePrediction, Skipped, predict_files, read_batches, used_of
from lineproof.metrics.correlation import average_ranks, rank_correlation
from lineproof.runtime.engine import EngineOptions, open_engine


def test_ranks_share_ties():
    np.testing.assert_array_equal(average_ranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1.0, 3.5, 2.0])


@settings(deadline=None)  # the first call imports SciPy
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=60))
def test_rank_correlation_equals_scipy(pairs):
    spearmanr = pytest.importorskip("scipy.stats").spearmanr
    first, second = np.array(pairs, dtype=np.float32).T
    correlation = rank_correlation(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert correlation is None
    else:
        np.testing.assert_allclose(correlation, spearmanr(first, second).statistic, atol=1e-12)


@pytest.mark.parametrize("first", [[1.0], [1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_rank_correlation_is_none_where_undefined(first):
    assert rank_correlation(np.array(first), np.arange(len(first), dtype=np.float64)) is None


def test_defective_image_without_a_mask_has_unknown_pixels(tmp_path):
    preprocessing = Preprocessing.of((12, 16, 3), (12, 16), (12, 16))
    bad = Sample(path=tmp_path / "x.png", label=1, defect="dent", split="test")
    good = Sample(path=tmp_path / "y.png", label=0, defect="good", split="test")
    assert input_of(preprocessing).read_mask(bad) is None
    np.testing.assert_array_equal(input_of(preprocessing).read_mask(good), np.zeros((12, 16), bool))


def test_a_set_used_in_part_is_said_briefly():
    assert UsedShare(7).lines() == []
    size = "the image is 20x12 pixels; this bundle takes 16x12"
    skipped = tuple((f"bad/{index}.png", size) for index in range(5))
    used = UsedShare(20, skipped)
    (line,) = used.lines()
    names = "bad/0.png, bad/1.png, bad/2.png and 2 more"
    assert line == f"Only 15 of 20 images could be used (75.0%). Not used: {names}: {size}."
    assert used.lines(lists_all=True)[1:] == [f"  bad/{index}.png: {size}" for index in range(5)]
    mixed = UsedShare(20, (*skipped, ("x.png", "empty")))
    assert mixed.lines()[0].endswith("takes 16x12 (and 1 other reason; -v lists all).")
    assert used.to_dict()["num_used"] == 15
    assert len(used.to_dict()["skipped"]) == 5


def test_too_small_a_share_is_an_error():
    used = UsedShare(10, (("a.png", "empty"),))
    used.check(0.9)
    with pytest.raises(BadInputError, match=r"Only 9 of 10 images could be used \(90\.0%\); expected at least 95%"):
        used.check(0.95)
    UsedShare(0).check(1.0)


def test_equal_reasons_of_other_files_are_one(tiny_bundle, tiny_dataset):
    for name in ("a", "b"):
        (tiny_dataset.root / f"{name}.png").write_bytes(b"")
    samples = [
        Sample(path=tiny_dataset.root / f"{name}.png", label=0, defect="good", split="test") for name in ("a", "b")
    ]
    items = list(read_batches(tiny_bundle, samples, batch=1))
    used = used_of(items, num_total=2, root=tiny_dataset.root)
    assert [file for file, _ in used.skipped] == ["a.png", "b.png"]
    assert len({reason for _, reason in used.skipped}) == 1
    assert "other reason" not in used.lines()[0]


def test_batches_keep_the_order_and_name_what_does_not_fit(tiny_bundle, tiny_dataset):
    odd = tiny_dataset.root / "odd.png"
    Image.new("RGB", (20, 12)).save(odd)
    samples = list(tiny_dataset.test)
    samples.insert(1, Sample(path=odd, label=0, defect="good", split="test"))
    heard = []
    items = list(read_batches(tiny_bundle, samples, batch=4, progress=lambda *event: heard.append(event)))
    assert [type(item) for item in items] == [Skipped, FrameBatch, FrameBatch]
    assert items[0].sample.path == odd
    assert [sample for item in items[1:] for sample in item.samples] == list(tiny_dataset.test)
    assert [item.frames.shape for item in items[1:]] == [(4, 12, 16, 3), (2, 12, 16, 3)]
    assert heard == [("images", done, 7) for done in range(1, 8)]


def test_mono_bundle_gets_mono_frames(tiny_bundle, tiny_dataset):
    bundle = tiny_bundle.change(
        lambda manifest: dataclasses.replace(
            manifest,
            preprocessing=Preprocessing.of((12, 16, 1), (12, 16), (12, 16)),
        )
    )
    (item,) = read_batches(bundle, tiny_dataset.test[:1], batch=1)
    assert item.frames.shape == (1, 12, 16, 1)


def test_predictions_stream_one_batch_at_a_time(tiny_bundle, tiny_dataset, add_engine):
    made = add_engine("numpy")
    engine = open_engine(tiny_bundle, "numpy", options=EngineOptions())
    stream = predict_files(engine, tiny_bundle, tiny_dataset.test, batch=2)
    first = next(stream)
    assert made.batches == [2]
    assert isinstance(first, ImagePrediction)
    assert first.score == first.anomaly_map.max()
    assert [item.sample for item in (first, *stream)] == list(tiny_dataset.test)


@pytest.mark.parametrize("batch", [0, 9])
def test_batch_outside_the_bundles_range_is_refused(tiny_bundle, tiny_dataset, batch):
    with pytest.raises(UsageError, match=rf"batch \(--batch\) is {batch}; this bundle takes 1 to 8"):
        next(read_batches(tiny_bundle, tiny_dataset.test, batch=batch))


def test_verification_needs_no_training_package():
    code = (
        "import sys, lineproof.eval.parity.verify, lineproof.eval.calibrate\n"
        "banned = {'torch', 'torchvision', 'timm', 'FrEIA', 'sklearn', 'scipy', 'onnx', 'onnxruntime', 'openvino'}\n"
        "print(sorted(banned & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
