"""Outputs: collected from an engine, saved, mapped back, judged and corrected without it."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError, LineproofError
from lineproof.data.dataset import open_dataset
from lineproof.eval.accuracy.corrections import correct, read_corrections
from lineproof.eval.accuracy.outputs import collect_outputs
from lineproof.eval.accuracy.outputs_file import open_outputs, save_outputs
from lineproof.eval.accuracy.report import judge, measure_accuracy
from lineproof.metrics.image import image_metrics
from lineproof.metrics.pixel import pixel_metrics


@pytest.fixture
def outputs(tiny_bundle, tiny_dataset, add_engine):
    add_engine("numpy")
    return collect_outputs(tiny_bundle, tiny_dataset, engine="numpy", batch=4)


def test_what_an_engine_said_and_the_truth_beside_it(outputs, tiny_bundle, tiny_dataset):
    assert outputs.files == ("bad/000.png", "bad/001.png", "bad/002.png", "bad/003.png", "good/004.png", "good/009.png")
    np.testing.assert_array_equal(outputs.label, [True] * 4 + [False] * 2)
    assert outputs.has_mask.all()
    masks = np.stack([outputs.mask_of(index) for index in range(6)])
    assert masks.shape == (6, 12, 16)
    assert masks[:4, 3:6, 4:9].all()
    assert masks.sum() == 4 * 15
    assert outputs.packed_mask.shape == (6, 12, 2)
    np.testing.assert_array_equal(outputs.score, outputs.anomaly_map.max(axis=(1, 2)))
    assert outputs.source.threshold == tiny_bundle.manifest.threshold.value
    assert outputs.source.root == str(tiny_dataset.root)
    assert str(outputs.source) == "tiny (fp32) on numpy"


def test_saved_outputs_are_mapped_and_the_same(outputs, tmp_path):
    path = tmp_path / "outputs.npz"
    save_outputs(outputs, path)
    reopened = open_outputs(path)
    assert isinstance(reopened.anomaly_map, np.memmap)
    assert not reopened.anomaly_map.flags.writeable
    assert (reopened.source, reopened.files, reopened.defects) == (outputs.source, outputs.files, outputs.defects)
    for name in ("score", "label", "has_mask", "anomaly_map", "packed_mask"):
        np.testing.assert_array_equal(getattr(reopened, name), getattr(outputs, name))
        assert getattr(reopened, name).dtype == getattr(outputs, name).dtype
    with np.load(path, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["anomaly_map"], outputs.anomaly_map)
        masks = np.unpackbits(plain["packed_mask"], axis=2, count=16)
        np.testing.assert_array_equal(masks[0], outputs.mask_of(0))


def test_maps_go_to_a_folder_where_one_is_given(tiny_bundle, tiny_dataset, outputs, tmp_path):
    collected = collect_outputs(tiny_bundle, tiny_dataset, engine="numpy", scratch=tmp_path)
    assert isinstance(collected.anomaly_map, np.memmap)
    assert (tmp_path / "anomaly_map.npy").stat().st_size > outputs.anomaly_map.nbytes
    np.testing.assert_array_equal(collected.anomaly_map, outputs.anomaly_map)
    np.testing.assert_array_equal(collected.packed_mask, outputs.packed_mask)


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_a_file_that_holds_no_outputs(content, tmp_path):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"x\.npz holds no saved outputs .*--save-outputs"):
        open_outputs(path)


def test_a_compressed_file_and_another_version(outputs, tmp_path):
    np.savez_compressed(tmp_path / "c.npz", header=np.zeros(3, np.uint8))
    with pytest.raises(BadInputError, match="compressed"):
        open_outputs(tmp_path / "c.npz")
    save_outputs(outputs, tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as arrays:
        kept = dict(arrays)
    header = json.loads(kept["header"].tobytes())
    kept["header"] = np.frombuffer(json.dumps({**header, "outputs_version": 1}).encode(), np.uint8)
    np.savez(tmp_path / "o.npz", **kept)
    with pytest.raises(BadInputError, match=r"version 1; this release reads 2 \(its masks are shrunk .*--save-outputs"):
        open_outputs(tmp_path / "o.npz")
    kept["header"] = np.frombuffer(json.dumps({**header, "outputs_version": 99}).encode(), np.uint8)
    np.savez(tmp_path / "o.npz", **kept)
    with pytest.raises(BadInputError, match="outputs of version 99; this release reads 2"):
        open_outputs(tmp_path / "o.npz")


def test_a_failed_save_leaves_the_old_file(outputs, tmp_path, monkeypatch):
    path = tmp_path / "o.npz"
    save_outputs(outputs, path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with pytest.raises(OSError, match="disk full"):
        save_outputs(outputs, path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_nothing_is_measured_on_nan(tiny_bundle, tiny_dataset, add_engine):
    add_engine("broken", lambda score, anomaly_map: (score * np.nan, anomaly_map))
    with pytest.raises(LineproofError, match=r"answer on bad/000\.png is not finite \(score nan\)"):
        collect_outputs(tiny_bundle, tiny_dataset, engine="broken")


def test_images_that_do_not_fit_are_kept_by_name(tiny_bundle, tiny_dataset, add_engine):
    add_engine("numpy")
    Image.new("RGB", (32, 24)).save(tiny_dataset.root / "bad" / "large.png")
    collected = collect_outputs(tiny_bundle, open_dataset(tiny_dataset.root), engine="numpy")
    ((file, reason),) = collected.source.skipped
    assert file == "bad/large.png"
    assert collected.used.lines()[0].startswith(
        "Only 6 of 7 images could be used (85.7%). Not used: bad/large.png: the "
    )
    assert "frames are 12x16" in reason


def test_accuracy_is_that_of_the_metrics(outputs):
    accuracy = measure_accuracy(outputs, fpr_limit=0.05)
    assert accuracy.image == image_metrics(outputs.score, outputs.label)
    masks = [outputs.mask_of(index) for index in range(6)]
    assert accuracy.pixel == pixel_metrics(outputs.anomaly_map, masks, fpr_limit=0.05)
    assert accuracy.value("image_auroc") == accuracy.value("pixel_auroc") == accuracy.value("aupro") == 1.0


def test_another_threshold_needs_no_model(outputs):
    strict = outputs.with_threshold(float(outputs.score.min()) - 1)
    assert judge(strict).num_false_rejects == 2
    assert judge(strict).num_false_accepts == 0
    lax = judge(outputs.with_threshold(float(outputs.score.max())))
    assert (lax.num_false_rejects, lax.num_false_accepts) == (0, 4)
    assert lax.missed == {"bad": (4, 4)}
    assert lax.sentence().startswith("0 of 2 good images rejected (95 % interval 0.0%–84.2%); 4 of 4 defective")


def _corrections(folder, entries):
    path = folder / "corrections.json"
    path.write_text(json.dumps({"corrections_version": 1, "corrections": entries}))
    return path


def test_corrections_change_the_truth_and_nothing_else(outputs, tmp_path):
    mask = np.zeros((12, 16), np.uint8)
    mask[0, 0] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    path = _corrections(
        tmp_path,
        {
            "bad/000.png": {"label": "good", "why": "dust"},
            "bad/001.png": {"ignore": True},
            "bad/002.png": {"mask": "m.png"},
            "good/004.png": {"label": "defective"},
            "good/009.png": {"label": "defective", "mask": "m.png"},
        },
    )
    corrected = correct(outputs, read_corrections(path))
    assert corrected.files == ("bad/000.png", "bad/002.png", "bad/003.png", "good/004.png", "good/009.png")
    np.testing.assert_array_equal(corrected.label, [False, True, True, True, True])
    np.testing.assert_array_equal(corrected.has_mask, [True, True, True, False, True])
    assert [int(corrected.mask_of(index).sum()) for index in range(5)] == [0, 1, 15, 0, 1]
    assert corrected.defects == ("good", "bad", "bad", "corrected", "corrected")
    np.testing.assert_array_equal(corrected.score, outputs.score[[0, 2, 3, 4, 5]])
    assert outputs.label.sum() == 4
    assert measure_accuracy(corrected).image.auroc != measure_accuracy(outputs).image.auroc


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"bad/999.png": {"ignore": True}}, r"1 of 1 corrected images are not among these 6: bad/999\.png"),
        ({"bad/000.png": {"label": "scrap"}}, r"bad/000\.png: label is 'scrap'"),
        ({"bad/000.png": {"why": "x"}}, "expected an object with label, mask or ignore"),
        ({"bad/000.png": {"mask": "gone.png"}}, r"gone\.png does not exist"),
        ({"bad/000.png": {"label": "good", "mask": "gone.png"}}, "needs no mask"),
        ({"bad/000.png": {"verdict": "good"}}, "expected an object with label, mask or ignore"),
    ],
)
def test_corrections_that_cannot_be(outputs, tmp_path, entries, message):
    with pytest.raises(BadInputError, match=message):
        correct(outputs, read_corrections(_corrections(tmp_path, entries)))


def test_a_mask_for_a_good_image_needs_a_label(outputs, tmp_path):
    Image.fromarray(np.full((12, 16), 255, np.uint8)).save(tmp_path / "m.png")
    path = _corrections(tmp_path, {"good/004.png": {"mask": "m.png"}})
    with pytest.raises(BadInputError, match='add "label": "defective"'):
        correct(outputs, read_corrections(path))


@pytest.mark.parametrize("text", ["", "[]", '{"corrections": {}}', '{"corrections_version": 2, "corrections": {}}'])
def test_a_file_of_another_form(text, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(BadInputError, match=r"c\.json: .*docs/badcases\.md"):
        read_corrections(tmp_path / "c.json")


def test_a_defective_image_without_a_mask_has_unknown_pixels(outputs):
    unknown = dataclasses.replace(outputs, has_mask=np.array([False] * 4 + [True] * 2))
    assert measure_accuracy(unknown).pixel is None
    assert measure_accuracy(unknown).value("aupro") is None
