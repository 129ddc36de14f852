"""Verification against the library that trained an imported detector: on its scale, at its threshold, ties named."""

import dataclasses
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.atomic import file_sha256
from lineproof.bundle.imported import ImportRecord, Normalisation
from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, EnvironmentMissingError, UsageError
from lineproof.core.prediction import Prediction
from lineproof.eval.parity import foreign
from lineproof.eval.parity.foreign import ForeignReference, verify_against
from lineproof.eval.parity.proof import record_parity
from lineproof.eval.parity.request import ParityRequest, foreign_reference, verify_as_asked
from lineproof.importers.anomalib.engine_predict import EnginePredictions, predict_with_anomalib

IMAGE = Normalisation(threshold=0.5, low=0.1, high=0.9)
PIXEL = Normalisation(threshold=0.4, low=0.0, high=1.0)
#: Stands for a Python with anomalib: takes the script's arguments, and answers with the grey levels of the images.
FAKE = """#!{python}
import sys
from pathlib import Path
import numpy as np
from PIL import Image
checkpoint, model, images, out, batch = sys.argv[-5:]
if model == "Broken":
    raise ValueError("its state dict does not fit")
if model == "Absent":
    raise ModuleNotFoundError("No module named 'anomalib'")
files = sorted(Path(images).iterdir())
means = np.array([np.asarray(Image.open(file)).mean() for file in files[: -1 if model == "Short" else None]])
out = Path(out)
np.save(out / "scores.npy", means.astype(np.float32))
np.save(out / "labels.npy", means > 100)
(out / "version.txt").write_text(f"fake {{model}} {{batch}}")
print("done", len(files))
"""


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"a checkpoint")
    return path


@pytest.fixture
def imported(tiny_bundle, checkpoint):
    """The tiny bundle as if it had been imported."""
    record = ImportRecord(
        library="anomalib",
        library_version="2.7 or later",
        model="Padim",
        file=checkpoint.name,
        sha256=file_sha256(checkpoint),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        image=IMAGE,
        pixel=PIXEL,
    )
    return tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, imported=record))


def normalised(values, item):
    """The library's formula in float64."""
    return np.clip((values.astype(np.float64) - item.threshold) / (item.high - item.low) + 0.5, 0.0, 1.0)


def truth_of(bundle, change=None):
    """What the library says: what the tiny graph computes, in float64 and on its scale, changed on the way."""

    def predict(imported, *, images, **_):
        assert imported == bundle.manifest.imported
        maps = np.stack([np.asarray(Image.open(path).convert("RGB")).mean(2) / 255.0 for path in images])
        scores = normalised(maps.max((1, 2)), IMAGE).astype(np.float32)
        maps = normalised(maps, PIXEL).astype(np.float32)
        if change:
            scores, maps = change(scores, maps)
        return EnginePredictions(scores=scores, labels=scores > 0.5, maps=maps, version="2.7.0")

    return predict


def test_normalised_is_the_librarys_formula():
    record = ImportRecord(
        library="anomalib", library_version="", model="Padim", file="f", sha256="0" * 64, mean=(0, 0, 0), std=(1, 1, 1),
        image=IMAGE, pixel=PIXEL,
    )  # fmt: skip
    raw = Prediction(np.array([0.0, 0.5, 0.7, 2.0], np.float32), np.linspace(-1, 2, 24).reshape(4, 2, 3).astype("f4"))
    scaled = record.normalised(raw)
    np.testing.assert_allclose(scaled.score, [0.0, 0.5, 0.75, 1.0], atol=1e-7)
    np.testing.assert_allclose(scaled.anomaly_map, normalised(raw.anomaly_map, PIXEL), atol=1e-6)
    assert scaled.score.dtype == scaled.anomaly_map.dtype == np.float32
    on_scale = dataclasses.replace(record, score_scale="anomalib")
    np.testing.assert_array_equal(on_scale.normalised(scaled).score, scaled.score)
    np.testing.assert_allclose((record.threshold, on_scale.threshold), (0.500008, 0.50001))
    sensitive = dataclasses.replace(record, image_sensitivity=0.75)
    np.testing.assert_allclose((sensitive.threshold, sensitive.normalised_threshold), (0.300008, 0.25001))
    with pytest.raises(BadInputError, match="has one value only in the range of image scores"):
        dataclasses.replace(record, image=Normalisation(threshold=1, low=1, high=1)).normalised(raw)


def test_the_same_predictions_pass_and_prove_no_engine(imported, tiny_dataset, add_engine, monkeypatch, checkpoint):
    add_engine("numpy")
    monkeypatch.setattr(foreign, "predict_with_anomalib", truth_of(imported))
    request = ParityRequest(
        engine="numpy", data=tiny_dataset.root, other_data=True,
        foreign=foreign_reference("anomalib", checkpoint=checkpoint, python=Path(sys.executable)),
    )  # fmt: skip
    report = verify_as_asked(imported, request)
    assert (report.passed, report.library, report.reference) == (True, "anomalib", "anomalib 2.7.0")
    assert report.verdict_flips == ()
    np.testing.assert_allclose(report.threshold, 0.50001)
    np.testing.assert_allclose(report.score_tolerance, 1e-4)
    assert report.map_tolerance <= 1e-3
    assert "and anomalib 2.7.0 on" in " ".join(report.summary_lines())
    assert record_parity(imported, report).warning == ""
    assert open_bundle(imported.path).manifest.parity == imported.manifest.parity


def against(imported, dataset, checkpoint):
    reference = ForeignReference(checkpoint=checkpoint, python=Path(sys.executable))
    return verify_against(imported, engine="numpy", dataset=dataset, other_data=True, reference=reference)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scores, maps: (1 - scores, maps), "verdicts differ"),
        (lambda scores, maps: (scores, maps + np.float32(2e-3)), "The map is off by 0.002"),
        (lambda scores, maps: (scores + np.float32(3e-4), maps), "The score is off by 0.0003"),
    ],
)
def test_another_prediction_fails(imported, tiny_dataset, add_engine, monkeypatch, checkpoint, change, words):
    add_engine("numpy")
    monkeypatch.setattr(foreign, "predict_with_anomalib", truth_of(imported, change))
    report = against(imported, tiny_dataset, checkpoint)
    assert report.state == "failed"
    assert words in " ".join(report.failures)


def test_labels_that_contradict_the_scores_fail(imported, tiny_dataset, add_engine, monkeypatch, checkpoint):
    add_engine("numpy")
    plain = truth_of(imported)
    monkeypatch.setattr(
        foreign,
        "predict_with_anomalib",
        lambda *words, **more: dataclasses.replace(plain(*words, **more), labels=plain(*words, **more).scores < 0.5),
    )
    report = against(imported, tiny_dataset, checkpoint)
    assert report.state == "failed"
    assert "anomalib's own labels are not those of its scores" in report.failures[0]


def test_a_model_without_maps_is_compared_by_its_scores(imported, tiny_dataset, add_engine, monkeypatch, checkpoint):
    add_engine("numpy")
    monkeypatch.setattr(foreign, "predict_with_anomalib", truth_of(imported, lambda scores, _: (scores, None)))
    report = against(imported, tiny_dataset, checkpoint)
    assert report.verdict_flips == ()
    assert report.score_max_abs_error < 1e-6


def test_what_was_not_imported_has_no_such_reference(tiny_bundle, tiny_dataset, add_engine, checkpoint):
    add_engine("numpy")
    with pytest.raises(UsageError, match=r"was trained by lineproof; against \(--against\) compares with anomalib"):
        verify_against(
            tiny_bundle, engine="numpy", dataset=tiny_dataset,
            reference=ForeignReference(checkpoint=checkpoint, python=Path(sys.executable)),
        )  # fmt: skip


def test_what_belongs_together_is_asked_for_together(checkpoint):
    assert foreign_reference(None, checkpoint=None, python=None) is None
    with pytest.raises(UsageError, match=r"go with against \(--against anomalib\)"):
        foreign_reference(None, checkpoint=checkpoint, python=None)
    with pytest.raises(UsageError, match=r"expected with it the checkpoint that was imported"):
        foreign_reference("anomalib", checkpoint=checkpoint, python=None)
    with pytest.raises(UsageError, match=r"against \(--against\) is 'halcon'; expected anomalib"):
        foreign_reference("halcon", checkpoint=checkpoint, python=Path(sys.executable))


def test_a_folder_and_no_engine_are_asked_for(imported, checkpoint, add_engine):
    add_engine("numpy")
    reference = foreign_reference("anomalib", checkpoint=checkpoint, python=Path(sys.executable))
    with pytest.raises(UsageError, match=r"give its folder \(--data\), and leave out reference"):
        verify_as_asked(imported, ParityRequest(engine="numpy", foreign=reference))


@pytest.fixture
def fake_python(tmp_path):
    path = tmp_path / "python-with-anomalib"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run(imported, checkpoint, python, images, model="Padim"):
    record = dataclasses.replace(imported.manifest.imported, model=model)
    return predict_with_anomalib(record, checkpoint=checkpoint, python=python, images=images, batch=3)


def test_predictions_come_in_the_order_of_the_images(imported, checkpoint, fake_python, tiny_dataset):
    paths = [sample.path for sample in tiny_dataset.test][::-1]
    predictions = run(imported, checkpoint, fake_python, paths)
    wanted = [np.asarray(Image.open(path)).mean() for path in paths]
    np.testing.assert_allclose(predictions.scores, wanted, rtol=1e-6)
    assert len(set(wanted)) > 1
    assert predictions.maps is None
    assert predictions.version == "fake Padim 3"


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("Broken", BadInputError, "ended with an error: ValueError: its state dict does not fit"),
        ("Absent", EnvironmentMissingError, "cannot import what it needs .*Expected an environment with anomalib"),
        ("Short", BadInputError, "scores for .* images: it left some out"),
    ],
)
def test_what_goes_wrong_there_is_said(imported, checkpoint, fake_python, tiny_dataset, model, error, words):
    paths = [sample.path for sample in tiny_dataset.test]
    with pytest.raises(error, match=words):
        run(imported, checkpoint, fake_python, paths, model=model)


def test_a_program_that_is_no_python_is_said_so(imported, checkpoint, tmp_path):
    program = tmp_path / "true"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(BadInputError, match=r"gave no scores\.npy and no labels\.npy .*it is no Python"):
        run(imported, checkpoint, program, [])


def test_a_python_in_the_current_folder_is_meant_as_it_is_typed(
    imported, checkpoint, fake_python, tiny_dataset, monkeypatch
):
    monkeypatch.chdir(fake_python.parent)
    paths = [sample.path for sample in tiny_dataset.test]
    assert len(run(imported, checkpoint, Path(fake_python.name), paths).scores) == len(paths)


def test_another_checkpoint_and_no_python_are_refused(imported, checkpoint, tmp_path):
    with pytest.raises(EnvironmentMissingError, match=r"anomalib_python \(--anomalib-python\) is .*cannot be run"):
        run(imported, checkpoint, tmp_path / "absent", [])
    with pytest.raises(BadInputError, match=r"is no file\. Give the one imported"):
        run(imported, tmp_path / "absent.ckpt", Path(sys.executable), [])
    checkpoint.write_bytes(b"another one")
    with pytest.raises(BadInputError, match="is another one than the bundle was imported from"):
        run(imported, checkpoint, Path(sys.executable), [])


def test_without_a_threshold_there_is_nothing_to_compare(imported, tiny_dataset, add_engine, checkpoint):
    add_engine("numpy")
    record = dataclasses.replace(imported.manifest.imported, has_threshold=False)
    bundle = imported.change(lambda manifest: dataclasses.replace(manifest, imported=record))
    with pytest.raises(UsageError, match="holds no threshold of anomalib"):
        against(bundle, tiny_dataset, checkpoint)
