"""Training and export from the command line's words."""

import json

import pytest

from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, UsageError
from lineproof.workflows import training as training_module
from lineproof.workflows.training import DEFAULTS, ExportRequest, export_and_prove, train_detector


@pytest.fixture
def quick(monkeypatch):
    """No gate and no verification, which test_prove.py is about: proofs are what ``prove`` was asked for."""
    asked = []

    def prove(bundle, **options):
        asked.append((bundle, options))
        return bundle

    monkeypatch.setattr(training_module, "prove", prove)
    return asked


def test_a_run_says_what_came_of_it(trained):
    text = "\n".join(trained.sentences())
    assert "Trained padim on 8 good images of" in text
    assert "flange; 2 held out." in text
    assert f"Next: lineproof export {trained.run}" in text
    plain = json.loads(json.dumps(trained.to_dict(), allow_nan=False))
    assert plain["run"] == str(trained.run)
    assert plain["detector"]["name"] == "padim"
    assert plain["problems"] == []


def test_a_run_without_a_name_goes_under_runs(sample_folder, here):
    pytest.importorskip("timm")
    settings = {"backbone": "test_resnet", "weights": "random", "resize_px": 32, "crop_px": None, "num_features": 3}
    settings["crop_px"] = 32
    found = train_detector("padim", sample_folder, category="flange", settings=settings, out=None, options={})
    assert found.run.parent.name == "runs"
    assert found.run.name.startswith("padim-flange-")
    assert (here / found.run / "checkpoint.json").is_file()


def test_export_takes_the_newest_run(trained, here, quick):
    (here / "runs").mkdir()
    (here / "runs" / "one").symlink_to(trained.run)
    bundle = export_and_prove(ExportRequest("padim"))
    assert bundle.path.name == "flange-padim.bundle"
    assert quick[0][1]["engine"] == "onnx"
    assert quick[0][1]["is_verified"] is True
    named = export_and_prove(ExportRequest("padim", checkpoint=trained.run, out=here / "x.bundle"))
    assert open_bundle(here / "x.bundle").manifest == named.manifest


@pytest.mark.usefixtures("here")
def test_without_a_run_the_message_holds_the_commands():
    with pytest.raises(BadInputError, match=r"lineproof train padim .* lineproof export padim --sample"):
        export_and_prove(ExportRequest("padim"))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ExportRequest("padimm"), r"'padimm' is no detector, run folder or bundle\. Detectors: .*padim"),
        (ExportRequest("padim", engine="trt11"), "--engine trt11: export knows"),
        (ExportRequest("padim", is_sample=True, engine="trt11"), "--engine trt11: export knows"),
        (ExportRequest("padim", targets=("sm_89",)), "--target goes with"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(here, request_, words):
    with pytest.raises(UsageError, match=words):
        export_and_prove(request_)
    assert list(here.iterdir()) == []


def test_a_checkpoint_of_another_detector_is_refused(trained, here):
    with pytest.raises(UsageError, match=r"holds padim, not patchcore"):
        export_and_prove(ExportRequest("patchcore", checkpoint=trained.run))
    with pytest.raises(UsageError, match=r"holds no finished run, not padim"):
        export_and_prove(ExportRequest("padim", checkpoint=here))
    with pytest.raises(UsageError, match=r"--sample trains anew and takes no checkpoint"):
        export_and_prove(ExportRequest("padim", checkpoint=trained.run, is_sample=True))


def test_a_run_folder_takes_neither_checkpoint_nor_sample(trained, here):
    for request in (ExportRequest(str(trained.run), is_sample=True), ExportRequest(str(trained.run), checkpoint=here)):
        with pytest.raises(UsageError, match=r"is a run already; --checkpoint and --sample go with a detector's name"):
            export_and_prove(request)


def test_a_bundle_is_taken_as_it_is(tiny_bundle, quick):
    options = {"frame": None, "max_batch": 8, "precision": "fp32", "max_false_reject": 0.01, "has_reference": True}
    export_and_prove(ExportRequest(str(tiny_bundle.path), engine="openvino"), options=options)
    assert quick[0][0].manifest == tiny_bundle.manifest
    assert quick[0][1]["engine"] == "openvino"


@pytest.mark.parametrize(
    ("options", "request_", "names"),
    [
        ({"precision": "fp16"}, {}, "--precision"),
        ({"frame": (64, 64, 3), "max_batch": 4}, {}, "--frame, --batch"),
        ({"has_reference": False, "max_false_reject": 0.2}, {}, "--no-reference, --max-false-reject"),
        ({}, {"is_sample": True}, "--sample"),
        ({}, {"out": "x.bundle"}, "--out"),
    ],
)
def test_what_would_change_nothing_in_a_bundle_is_refused(tiny_bundle, options, request_, names):
    """``export a.bundle --precision fp16`` must not end well with an fp32 bundle."""
    with pytest.raises(UsageError, match=rf"is a bundle already \(fp32\): {names} would change nothing in it\. Export"):
        export_and_prove(ExportRequest(str(tiny_bundle.path), **request_), options=options)


def test_defaults_are_those_of_the_export():
    pytest.importorskip("torch")
    import dataclasses

    from lineproof.export.bundle import ExportOptions

    assert dataclasses.asdict(ExportOptions()) == DEFAULTS
