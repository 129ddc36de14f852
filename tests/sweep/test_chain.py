"""Training and export from the command line's words."""

import dataclasses
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, StoppedError, UsageError
from lineproof.core.spec import Preprocessing
from lineproof.core.tiles import Tiles
from lineproof.data.dataset import open_dataset
from lineproof.data.notes import DataNotes
from lineproof.data.records import relative
from lineproof.detectors.training import from_folder as from_folder_module
from lineproof.detectors.training.from_folder import train_detector, train_on_sample
from lineproof.detectors.training.operating import (
    TEST_SCORES,
    operation_of_run,
    recorded_dataset,
    score_test_split,
    stored_scores,
)
from lineproof.detectors.training.options import TrainOptions
from lineproof.detectors.training.trained import TrainingResult
from lineproof.export.options import ExportOptions
from lineproof.metrics.operating import RunOperation
from lineproof.sweep import chain as chain_module
from lineproof.sweep.chain import ExportRequest, export_and_prove
from lineproof.sweep.export_result import ExportResult

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": "64", "crop_px": "64", "num_features": "12"}


@pytest.fixture
def quick(monkeypatch):
    """No gate and no verification, which test_acceptance.py is about: proofs are what ``prove`` was asked for."""
    asked = []

    def prove(bundle, **options):
        asked.append((bundle, options))
        return ExportResult(bundle=bundle, gate=None, parity=None, notes=())

    monkeypatch.setattr(chain_module, "prove", prove)
    monkeypatch.setattr(chain_module, "check_environment", lambda *_words, **_options: None)
    return asked


def test_a_run_says_what_came_of_it(trained):
    text = "\n".join(trained.summary_lines())
    assert "Trained padim on 8 good images of" in text
    assert "flange; 2 held out." in text
    assert f"Next: lineproof export {trained.run}" in text
    plain = json.loads(json.dumps(trained.to_dict(), allow_nan=False))
    assert plain["run"] == str(trained.run)
    assert plain["detector"]["name"] == "padim"
    assert plain["data"]["problems"] == []


def test_a_run_ends_in_an_operating_table(trained, sample_folder):
    """The figures are those of the detector on the test split, whose scores stay in the run."""
    dataset = open_dataset(sample_folder, category="flange")
    table = trained.operation.table
    assert (table.num_good, table.num_defective) == (2, 6)
    assert trained.operation.used.num_total == len(dataset.test)
    lines = "\n".join(trained.summary_lines()).splitlines()
    place = lines.index("Operating table on 2 good and 6 defective test images:")
    assert max(map(len, lines[place : place + 7])) < 110
    scores = stored_scores(trained.run)
    assert scores.labels == tuple(bool(sample.label) for sample in dataset.test)
    defective = np.array(scores.scores)[np.array(scores.labels)]
    passed = int((defective <= table.calibrated.threshold).sum())
    assert table.calibrated.passed_defective.num == passed
    assert trained.to_dict()["operating"]["table"]["calibrated"]["passed_defective"]["num"] == passed


@pytest.mark.usefixtures("quick")
def test_export_shows_what_its_threshold_does(trained, here):
    options = ExportOptions(max_false_reject=0.6)
    proof = export_and_prove(ExportRequest(source=str(trained.run), out=here / "x.bundle"), options=options)
    assert proof.operation.table.calibrated.threshold == proof.bundle.manifest.threshold.value
    assert "Operating table on 2 good and 6 defective test images:" in proof.summary_lines()
    assert proof.data == trained.data
    assert "2 good and 6 defective test images" in proof.data.summary
    assert proof.to_dict()["operating"]["table"]["num_defective"] == 6


def test_an_operation_is_scored_again_where_no_scores_are_kept(trained, here):
    from lineproof.bundle.runs.folder import read_record

    run = here / "run"
    shutil.copytree(trained.run, run)
    spec, other = (Preprocessing.of((*size, 3), (64, 64), (64, 64)) for size in (read_record(run).frame, (128, 128)))
    kept = operation_of_run(run, None, spec=spec, threshold=1.0)
    (run / TEST_SCORES).unlink()
    assert operation_of_run(run, recorded_dataset(run), spec=spec, threshold=1.0) == kept
    assert stored_scores(run) == stored_scores(trained.run)
    assert operation_of_run(run, None, spec=other, threshold=1.0).summary_lines() == [
        "No operating table: the bundle's frames, or their tiles, are not those of the training. lineproof evaluate "
        "BUNDLE --data DIR measures it on images of yours."
    ]


def test_tiles_of_the_sample_are_refused_before_it_is_learned(here):
    pytest.importorskip("torch")
    options = ExportOptions(tiles=Tiles(height_px=64, width_px=64, overlap_px=0))
    with pytest.raises(UsageError, match=r"^is_sample \(--sample\) learns whole frames; leave it or tiles"):
        export_and_prove(ExportRequest(source="padim", is_sample=True), options=options)
    assert list(here.iterdir()) == []


def test_a_run_of_tiles_says_so_and_keeps_its_operating_table(sample_folder, here):
    pytest.importorskip("torch")
    tiles = Tiles(height_px=64, width_px=48, overlap_px=16)
    result = train_detector(
        "padim",
        sample_folder,
        category="flange",
        settings=SETTINGS,
        out=here / "run",
        options=TrainOptions(tiles=tiles),
    )
    words = "Each frame of 96x96 is 6 tiles of 64x48 px with 16 px of overlap; its score is the largest of theirs."
    assert words in result.summary_lines()
    spec = dataclasses.replace(Preprocessing.of((96, 96, 3), (64, 64), (64, 64)), tiles=tiles)
    operation = operation_of_run(result.run, None, spec=spec, threshold=1.0)
    assert operation.table.num_defective == 6
    for other in (None, dataclasses.replace(tiles, overlap_px=8)):
        operation = operation_of_run(result.run, None, spec=dataclasses.replace(spec, tiles=other), threshold=1.0)
        assert operation.summary_lines()[0].startswith("No operating table: the bundle's frames, or their tiles,")


def test_scores_of_other_weights_are_not_taken(trained, here):
    from lineproof.bundle.runs.folder import read_record

    run = here / "run"
    shutil.copytree(trained.run, run)
    raw = json.loads((run / TEST_SCORES).read_text())
    (run / TEST_SCORES).write_text(json.dumps({**raw, "checkpoint_sha256": "0" * 64}))
    assert stored_scores(run) is None
    started = json.loads((run / "train.json").read_text())
    (run / "train.json").write_text(json.dumps({**started, "data": str(here / "gone")}))
    spec = Preprocessing.of((*read_record(run).frame, 3), (64, 64), (64, 64))
    operation = operation_of_run(run, recorded_dataset(run), spec=spec, threshold=1.0)
    assert operation.summary_lines()[0].startswith("No operating table: no labelled test images are at hand.")


def test_a_test_image_that_cannot_be_read_costs_no_training(trained, sample_folder, here):
    shutil.copytree(sample_folder, here / "sample")
    dataset = open_dataset(here / "sample", category="flange")
    dataset.test[0].path.write_bytes(b"")
    run = here / "run"
    shutil.copytree(trained.run, run)
    measured = score_test_split(run, dataset)
    ((file, reason),) = measured.skipped
    assert file == relative(dataset.test[0].path, dataset.root)
    assert "empty" in reason
    assert measured.scores == pytest.approx(stored_scores(trained.run).scores[1:])


def test_a_run_without_a_name_goes_under_runs(sample_folder, here):
    pytest.importorskip("timm")
    settings = {"backbone": "test_resnet", "weights": "random", "resize_px": 32, "crop_px": None, "num_features": 3}
    settings["crop_px"] = 32
    result = train_detector("padim", sample_folder, category="flange", settings=settings, out=None)
    assert result.run.parent.name == "runs"
    assert result.run.name.startswith("padim-flange-")
    assert (here / result.run / "checkpoint.json").is_file()


def test_export_takes_the_newest_run(trained, here, quick):
    (here / "runs").mkdir()
    (here / "runs" / "one").symlink_to(trained.run)
    bundle = export_and_prove(ExportRequest(source="padim")).bundle
    assert bundle.path.name == "flange-padim.bundle"
    assert quick[0][1]["engine"] == "onnx"
    assert quick[0][1]["is_verified"] is True
    named = export_and_prove(ExportRequest(source="padim", checkpoint=trained.run, out=here / "x.bundle"))
    assert open_bundle(here / "x.bundle").manifest == named.bundle.manifest


@pytest.mark.usefixtures("here")
def test_without_a_run_the_message_holds_the_commands():
    pytest.importorskip("onnxscript")
    with pytest.raises(BadInputError, match=r"lineproof train padim .* lineproof export padim --sample"):
        export_and_prove(ExportRequest(source="padim"))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            ExportRequest(source="padimm"),
            r"'padimm' is no detector, run folder or bundle\. Name one; .*padim",
        ),
        (ExportRequest(source="padim", engine="trt11"), r"engine \(--engine\) is 'trt11'; export knows"),
        (
            ExportRequest(source="padim", is_sample=True, engine="trt11"),
            r"engine \(--engine\) is 'trt11'; export knows",
        ),
        (ExportRequest(source="padim", targets=("sm_89",)), "targets go with trt-rtx only"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(here, request_, words):
    pytest.importorskip("onnxscript")
    with pytest.raises(UsageError, match=words):
        export_and_prove(request_)
    assert list(here.iterdir()) == []


def test_a_checkpoint_of_another_detector_is_refused(trained, here):
    with pytest.raises(UsageError, match=r"holds padim; expected a run of patchcore"):
        export_and_prove(ExportRequest(source="patchcore", checkpoint=trained.run))
    with pytest.raises(UsageError, match=r"holds no finished run; expected a run of padim"):
        export_and_prove(ExportRequest(source="padim", checkpoint=here))
    with pytest.raises(UsageError, match=r"is_sample \(--sample\) trains anew\. Leave one of them out"):
        export_and_prove(ExportRequest(source="padim", checkpoint=trained.run, is_sample=True))


def test_a_run_folder_takes_neither_checkpoint_nor_sample(trained, here):
    for request in (
        ExportRequest(source=str(trained.run), is_sample=True),
        ExportRequest(source=str(trained.run), checkpoint=here),
    ):
        with pytest.raises(UsageError, match=r"is a run already; checkpoint \(--checkpoint\) and is_sample"):
            export_and_prove(request)


def test_a_bundle_is_taken_as_it_is(tiny_bundle, quick):
    export_and_prove(ExportRequest(source=str(tiny_bundle.path), engine="openvino"), options=ExportOptions(max_batch=8))
    assert quick[0][0].manifest == tiny_bundle.manifest
    assert quick[0][1]["engine"] == "openvino"


@pytest.mark.parametrize(
    ("options", "request_", "names"),
    [
        ({"precision": "fp16"}, {}, "precision (--precision)"),
        ({"frame": (64, 64, 3), "max_batch": 4}, {}, "frame (--frame), max_batch (--batch)"),
        (
            {"has_reference": False, "max_false_reject": 0.2},
            {},
            "max_false_reject (--max-false-reject), has_reference (--no-reference)",
        ),
        ({}, {"is_sample": True}, "is_sample (--sample)"),
        ({}, {"out": "x.bundle"}, "out (--out)"),
        ({}, {"is_replacing": True}, "is_replacing (--replace)"),
    ],
)
def test_what_would_change_nothing_in_a_bundle_is_refused(tiny_bundle, options, request_, names):
    """``export a.bundle --precision fp16`` must not end well with an fp32 bundle."""
    with pytest.raises(
        UsageError, match=rf"is a bundle already \(fp32\): {re.escape(names)} would change nothing in it\. Export"
    ):
        export_and_prove(ExportRequest(source=str(tiny_bundle.path), **request_), options=ExportOptions(**options))


def test_a_finished_run_is_said_to_be(trained, sample_folder):
    again = train_detector("padim", sample_folder, category="flange", settings=SETTINGS, out=trained.run)
    words = f"{trained.run} is finished already, with the same images and settings: nothing was trained."
    assert again.record == dataclasses.replace(trained.record, beginning=words)
    assert again.summary_lines()[0] == again.to_dict()["beginning"] == words


def test_a_run_that_is_refused_leaves_no_folder(sample_folder, here):
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match=r"holdout \(--holdout\) is 2"):
        train_detector(
            "padim", sample_folder, category="flange", settings=SETTINGS, out=None, options=TrainOptions(holdout=2)
        )
    assert list((here / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("open_dataset", "Stopped before the training began: nothing was saved. Begin it: L --out "),
        ("check_contents", "Stopped before the training began: nothing was saved. Begin it: L --out "),
        ("_operation", "is a finished run and stays as it is. Score its test images: L --out "),
    ],
)
def test_ctrl_c_before_and_after_the_fit_says_what_is_saved(trained, sample_folder, here, monkeypatch, place, words):
    def stop(*_words, **_options):
        raise KeyboardInterrupt

    run = here / "run"
    if place == "_operation":
        shutil.copytree(trained.run, run)
    monkeypatch.setattr(from_folder_module, place, stop)
    options = TrainOptions(command="L")
    with pytest.raises(StoppedError, match=re.escape(words + str(run)) + "$"):
        train_detector("padim", sample_folder, category="flange", settings=SETTINGS, out=run, options=options)


def test_a_run_of_the_sample_says_how_to_finish_it(trained, here, monkeypatch):
    pytest.importorskip("torch")
    asked = {}
    monkeypatch.setattr(from_folder_module, "write_sample", lambda *_words, **_options: None)
    done = TrainingResult(run=here / "run", record=trained.record, data=DataNotes(), operation=RunOperation())
    monkeypatch.setattr(from_folder_module, "train_detector", lambda *_, **options: asked.update(options) or done)
    assert train_on_sample("padim", folder=here / "my sample") == here / "run"
    line = shlex.split(asked["options"].command)
    assert line[:7] == ["lineproof", "train", "padim", "--data", str(here / "my sample"), "--category", "flange"]
    assert line[7:] == ["--preset", "quick"]
    assert (asked["preset"], asked["settings"]) == ("quick", {})


def test_training_without_defective_test_images_says_so_first(quick, sample_folder, here):
    """What is odd about the data set is said before the hours of training begin."""
    pytest.importorskip("torch")
    data = here / "flange"
    shutil.copytree(sample_folder / "flange" / "train", data / "train")
    shutil.copytree(sample_folder / "flange" / "test" / "good", data / "test" / "good")
    said = []

    def progress(*_stage):
        assert len(said) == 1

    result = train_detector(
        "padim", data, category=None, settings=SETTINGS, out=here / "run", say_data=said.append,
        progress=progress,
    )  # fmt: skip
    first = 'No defective test image: figures that need one are "-".'
    assert result.summary_lines()[0] == first
    assert result.to_dict()["operating"]["warnings"] == [first]
    assert said == [result.data]
    assert "No defective test image. Whether defects are found cannot be measured." in result.data.brief
    assert export_and_prove(ExportRequest(source=str(result.run), out=here / "x.bundle")).summary_lines()[0] == first
    assert len(quick) == 1


def test_test_images_are_scored_as_the_frames_of_their_run(sample_folder, here):
    """12-bit images, cropped, give the scores of 8-bit images that were cut out before."""
    pytest.importorskip("torch")
    files = [path.relative_to(sample_folder) for path in (sample_folder / "flange").rglob("*.png")]
    for file in files:
        pixels = np.asarray(Image.open(sample_folder / file).convert("L"))[:64, :64]
        for name, values in (("plain", pixels[2:-2, 4:-4]), ("deep", pixels.astype(np.uint16) << 4)):
            (here / name / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(here / name / file)
    rule = {"fit": "crop", "frame": (60, 56), "bit_depth": 12}
    for name, options in (("plain", {}), ("deep", rule)):
        train_detector("padim", here / name / "flange", category=None, settings=SETTINGS, out=here / f"{name}.run",
                       options=TrainOptions(**options))  # fmt: skip
    plain, deep = (stored_scores(here / f"{name}.run") for name in ("plain", "deep"))
    assert (deep.files, deep.skipped) == (plain.files, ())
    np.testing.assert_allclose(deep.scores, plain.scores, rtol=1e-6)


@pytest.mark.usefixtures("quick")
def test_copies_among_the_training_images_are_said_first(sample_folder, here):
    """The held-out copy of an image that was fitted to sets a threshold that is too low."""
    pytest.importorskip("torch")
    shutil.copytree(sample_folder / "flange", here / "flange")
    for path in sorted((here / "flange" / "train" / "good").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    result = train_detector("padim", here / "flange", category=None, settings=SETTINGS, out=here / "run")
    (line,) = (line for line in result.warnings() if "what the detector was fitted to" in line)
    assert " of 4 held-out images show, pixel by pixel, what" in line
    assert line in result.summary_lines()[:3]
    assert line in result.to_dict()["warnings"]
    proof = export_and_prove(ExportRequest(source=str(result.run), out=here / "x.bundle"))
    assert line in proof.summary_lines()[:3]
