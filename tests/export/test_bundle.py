"""From a run to a bundle: whole or not at all, the same whatever was exported before, checked by two engines."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from lineproof.bundle.atomic import file_sha256  # noqa: E402
from lineproof.bundle.runs.folder import CHECKPOINT, RECORD  # noqa: E402
from lineproof.bundle.store import GOLDEN, MODEL, REFERENCE, open_bundle  # noqa: E402
from lineproof.core.errors import BadInputError, BundleError, UsageError  # noqa: E402
from lineproof.core.prediction import Prediction  # noqa: E402
from lineproof.data.inputs.table import input_of  # noqa: E402
from lineproof.eval.parity.verify import verify  # noqa: E402
from lineproof.export import bundle as bundle_module  # noqa: E402
from lineproof.export.bundle import export_bundle  # noqa: E402
from lineproof.export.options import ExportOptions  # noqa: E402
from lineproof.runtime.engine import availability, cpu_engines, open_engine, predict  # noqa: E402

CPU_ENGINES = cpu_engines()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def require():
    def check(engine):
        state = availability(engine)
        if not state.is_available:
            pytest.skip(f"{engine} cannot run here. Found: {state.found}. To fix: {state.fix}.")

    return check


@pytest.fixture
def traced(bundle_of, monkeypatch):
    """Take the graph that was traced already: for tests that are about everything else."""
    ir = pytest.importorskip("onnx_ir")
    path = bundle_of().model_path
    monkeypatch.setattr(bundle_module, "export_onnx", lambda *_args, **_options: ir.load(path))


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "fp16"}, {"frame": (96, 96, 1)}, {"frame": (50, 130, 3), "fit": "stretch"}],
    ids=["fp32", "fp16", "mono", "another frame"],
)
def test_the_engines_give_the_golden_answers(bundle_of, require, options, engine):
    require(engine)
    bundle = bundle_of(**options)
    report = verify(bundle, engine=engine)
    assert report.passed, report.failures
    assert report.verdict_flips == ()
    assert 4 <= report.num_golden <= 6


def test_golden_answers_are_the_training_forms(bundle_of):
    bundle = bundle_of()
    golden = bundle.golden()
    answer = predict(open_engine(bundle, "torch"), golden.frames)
    np.testing.assert_allclose(answer.score, golden.reference.score, rtol=1e-5)
    np.testing.assert_allclose(answer.anomaly_map, golden.reference.anomaly_map, rtol=1e-4, atol=1e-4)
    is_marked = np.array([name.endswith("+mark") for name in golden.names])
    assert is_marked.tolist() == [*[False] * (len(is_marked) - 2), True, True]
    assert golden.reference.score[is_marked].max() > golden.reference.score[~is_marked].max()
    # Each of them decides: none lies within the widest tolerance of the threshold.
    margins = np.abs(golden.reference.score - bundle.manifest.threshold.value)
    assert margins.min() > 0.1 * bundle.manifest.score_spread


def test_the_manifest_says_what_was_made(bundle_of, run_folder):
    manifest = open_bundle(bundle_of().path).manifest
    record = json.loads((run_folder / RECORD).read_text())
    assert manifest.name == "flange-padim"
    assert manifest.detector.parameters == record["detector"]["parameters"]
    assert manifest.inputs[0].shape == ("N", 96, 96, 3)
    assert [item.shape for item in manifest.outputs] == [("N",), ("N", 64, 64)]
    assert manifest.threshold.num_good == 4
    assert manifest.threshold.engine == "torch"
    assert "held-out good images of" in manifest.threshold.source
    assert manifest.figures.extra_parameters == 0
    assert manifest.figures.backbone == "test_resnet"
    assert manifest.parity == {}
    assert set(manifest.files) == {MODEL, GOLDEN, REFERENCE}


def test_the_model_alone_says_what_it_is(bundle_of):
    onnx = pytest.importorskip("onnx")
    bundle = bundle_of()
    model = onnx.load(bundle.model_path)
    onnx.checker.check_model(model, full_check=True)
    notes = {item.key: item.value for item in model.metadata_props}
    assert notes["lineproof.detector"] == "padim"
    assert notes["lineproof.precision"] == "fp32"
    assert float(notes["lineproof.threshold"]) == bundle.manifest.threshold.value
    assert model.producer_name == "lineproof"
    assert b"/tmp" not in bundle.model_path.read_bytes()


def test_a_bundle_of_an_earlier_release_is_run(bundle_of, require, tmp_path):
    """Where sizes are lists now, its manifest has one number for the side of a square."""
    require("torch")
    old = tmp_path / "old.bundle"
    shutil.copytree(bundle_of().path, old)
    text = (old / "manifest.json").read_text()
    lists = re.compile(r'"(resize_px|crop_px)": \[\s*64,\s*64\s*\]')
    assert len(lists.findall(text)) == 2
    (old / "manifest.json").write_text(lists.sub(r'"\1": 64', text))
    bundle = open_bundle(old)
    assert {bundle.manifest.detector.parameters[key] for key in ("resize_px", "crop_px")} == {64}
    report = verify(bundle, engine="torch")
    assert report.passed, report.failures
    assert 4 <= report.num_golden <= 6


@pytest.mark.slow
def test_the_order_of_exports_does_not_matter(run_folder, tmp_path, bundle_of):
    half = export_bundle(run_folder, tmp_path / "a", options=ExportOptions(precision="fp16"))
    full = export_bundle(run_folder, tmp_path / "b", options=ExportOptions())
    assert full.model_path.read_bytes() == bundle_of().model_path.read_bytes()
    assert half.model_path.read_bytes() != full.model_path.read_bytes()
    assert half.manifest.figures.nodes_per_dtype["float16"] > 0
    assert "float16" not in full.manifest.figures.nodes_per_dtype
    assert half.manifest.threshold == full.manifest.threshold
    for one, other in zip(half.golden().reference.score, full.golden().reference.score, strict=True):
        assert one == other


@pytest.mark.usefixtures("traced")
def test_a_failed_export_leaves_the_old_bundle(run_folder, tmp_path, bundle_of, monkeypatch):
    out = tmp_path / "a.bundle"
    shutil.copytree(bundle_of().path, out)
    before = contents(out)

    def disk_full(*_args, **_arrays):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle_module.np, "savez_compressed", disk_full)
        with pytest.raises(OSError, match="No space left"):
            export_bundle(run_folder, out, options=ExportOptions(has_reference=False))
    assert contents(out) == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.bundle"]
    replaced = export_bundle(run_folder, out, options=ExportOptions(has_reference=False))
    assert open_bundle(out).manifest == replaced.manifest
    assert set(contents(out)) == {MODEL, GOLDEN, "manifest.json"}
    assert [item.name for item in tmp_path.iterdir()] == ["a.bundle"]


@pytest.mark.usefixtures("traced")
def test_something_else_at_the_place_is_left_alone(run_folder, tmp_path):
    (tmp_path / "a.bundle").mkdir()
    (tmp_path / "a.bundle" / "thesis.txt").write_text("unsaved")
    with pytest.raises(BundleError, match=r"a\.bundle exists and is not a bundle; nothing was written\. Give another"):
        export_bundle(run_folder, tmp_path / "a.bundle")
    assert contents(tmp_path) == {"a.bundle/thesis.txt": b"unsaved"}


@pytest.mark.usefixtures("traced")
def test_without_its_reference_the_torch_engine_refuses_in_words(run_folder, tmp_path):
    bundle = export_bundle(run_folder, tmp_path / "a.bundle", options=ExportOptions(has_reference=False))
    assert REFERENCE not in bundle.manifest.files
    assert not (bundle.path / REFERENCE).exists()
    with pytest.raises(BundleError, match=r"holds no reference\.safetensors, so PyTorch has nothing to run\. Export"):
        open_engine(bundle, "torch")


@pytest.mark.usefixtures("traced")
def test_weights_beside_the_graph_are_hashed_and_found(run_folder, tmp_path, bundle_of, monkeypatch):
    monkeypatch.setattr(bundle_module, "_EXTERNAL_ABOVE_BYTES", 1000)
    bundle = export_bundle(run_folder, tmp_path / "big.bundle")
    data = bundle.path / f"{MODEL}.data"
    assert data.stat().st_size > 100_000 > (bundle.path / MODEL).stat().st_size
    assert bundle.manifest.files[data.name].sha256 == file_sha256(data)
    assert bundle.model_sha256 != bundle_of().model_sha256
    assert "+" in bundle.model_sha256
    frames = bundle.golden().frames
    for engine in filter(lambda name: availability(name).is_available, CPU_ENGINES):
        answers = []
        for item in (bundle, bundle_of()):
            opened = open_engine(item, engine)
            answers.append(predict(opened, frames))
            opened.close()
        assert isinstance(answers[0], Prediction)
        np.testing.assert_allclose(answers[0].score, answers[1].score, rtol=1e-6)
        assert verify(bundle, engine=engine).passed
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx\.data was altered"):
        open_bundle(bundle.path)


def test_the_threshold_is_for_frames_of_this_size(bundle_of, run_folder):
    record = json.loads((run_folder / RECORD).read_text())
    own, other = bundle_of().manifest.threshold, bundle_of(frame=(50, 130, 3), fit="stretch").manifest.threshold
    assert own.num_good == other.num_good == 4
    assert own.value > max(record["holdout_scores"])
    assert other.value != own.value
    bundle = bundle_of(frame=(50, 130, 3), fit="stretch")
    spec = bundle.manifest.preprocessing
    frames = np.stack([input_of(spec).read(Path(record["root"]) / name) for name in record["holdout"]])
    scores = predict(open_engine(bundle, "torch"), frames).score  # the held-out images as frames of this size
    assert other.value > scores.max()
    np.testing.assert_allclose(other.value, scores.max() + 0.05 * (scores.max() - np.median(scores)), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, r"precision \(--precision\) is int8; export writes fp32 or fp16"),
        ({"precision": "half"}, r"precision \(--precision\) is half"),
        ({"max_batch": 0}, r"max_batch \(--batch\) is 0; expected at least 1"),
        ({"frame": (96, 96, 4)}, "A frame has 4 channels; expected 3"),
        ({"max_false_reject": 1.0}, r"max_false_reject \(--max-false-reject\) is 1\.0"),
    ],
)
def test_what_cannot_be_is_refused(run_folder, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        export_bundle(run_folder, tmp_path / "a.bundle", options=ExportOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_refused(run_folder, tmp_path):
    shutil.copy(run_folder / CHECKPOINT, tmp_path)
    with pytest.raises(BadInputError, match=r"holds no checkpoint\.json: it is no finished run"):
        export_bundle(tmp_path, tmp_path / "a.bundle")


def moved(run_folder, sample_dataset, tmp_path):
    """A copy of the run, and a copy of its data elsewhere; the run believes that its data was somewhere else still."""
    run, data = tmp_path / "run", tmp_path / "elsewhere" / "flange"
    shutil.copytree(run_folder, run)
    shutil.copytree(sample_dataset.root, data)
    record = json.loads((run / RECORD).read_text())
    assert record["root"] == str(sample_dataset.root)
    (run / RECORD).write_text(json.dumps({**record, "root": "/gone/flange"}))
    return run, data


def test_held_out_images_that_are_gone_are_named(run_folder, sample_dataset, tmp_path):
    run, _ = moved(run_folder, sample_dataset, tmp_path)
    with pytest.raises(
        BadInputError, match=r"4 of 4 held-out images are not where they were: /gone/flange/train/.*--data ROOT"
    ):
        export_bundle(run, tmp_path / "a.bundle")


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("is_above", [False, True])
def test_a_run_finds_its_data_where_it_was_moved(run_folder, sample_dataset, tmp_path, bundle_of, is_above):
    run, data = moved(run_folder, sample_dataset, tmp_path)
    options = ExportOptions(data=data.parent if is_above else data)
    golden = export_bundle(run, tmp_path / "a.bundle", options=options).golden()
    np.testing.assert_array_equal(golden.frames, bundle_of().golden().frames)


def test_data_that_changed_is_named(run_folder, sample_dataset, tmp_path):
    run, data = moved(run_folder, sample_dataset, tmp_path)
    file = data / json.loads((run / RECORD).read_text())["holdout"][1]
    with Image.open(file) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    with pytest.raises(BadInputError, match=rf"1 of 4 held-out images have other content .*{file.name}.*train again"):
        export_bundle(run, tmp_path / "a.bundle", options=ExportOptions(data=data))
    assert not (tmp_path / "a.bundle").exists()


@pytest.mark.usefixtures("traced")
def test_a_run_of_an_older_release_is_read(run_folder, tmp_path, bundle_of):
    """It holds absolute paths and no content; where its data was comes from train.json."""
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    record = json.loads((run / RECORD).read_text())
    root = record.pop("root")
    record["holdout"] = [str(Path(root, name)) for name in record["holdout"]]
    record["training"] = {k: v for k, v in record["training"].items() if k not in ("fitted", "held_out")}
    (run / RECORD).write_text(json.dumps(record))
    bundle = export_bundle(run, tmp_path / "a.bundle")
    np.testing.assert_array_equal(bundle.golden().frames, bundle_of().golden().frames)
    assert bundle.manifest.training.fitted == ()
    data = tmp_path / "flange"
    shutil.copytree(root, data)
    export_bundle(run, tmp_path / "a.bundle", options=ExportOptions(data=data))
    next((data / "train/good").iterdir()).unlink()
    with pytest.raises(BadInputError, match=r"their fingerprint differs|are not where they were"):
        export_bundle(run, tmp_path / "a.bundle", options=ExportOptions(data=data))
    (run / "train.json").unlink()
    export_bundle(run, tmp_path / "a.bundle")
    with pytest.raises(BadInputError, match="older release, which kept its images by absolute path"):
        export_bundle(run, tmp_path / "a.bundle", options=ExportOptions(data=data))


def test_an_unfinished_run_names_the_command_that_finishes_it(run_folder, tmp_path):
    started = {**json.loads((run_folder / "train.json").read_text()), "command": "lineproof train padim --out /old"}
    (tmp_path / "train.json").write_text(json.dumps(started))
    words = rf"unfinished training run of padim \(nothing of it is kept yet\).*lineproof train padim --out {tmp_path}$"
    with pytest.raises(BadInputError, match=words):
        export_bundle(tmp_path, tmp_path / "a.bundle")


def test_a_batch_of_one_is_a_fixed_promise(run_folder, tmp_path):
    bundle = export_bundle(run_folder, tmp_path / "one.bundle", options=ExportOptions(max_batch=1))
    with pytest.raises(UsageError, match="this bundle takes 1 to 1"):
        predict(open_engine(bundle, "ort-cpu"), bundle.golden().frames[:2])
    assert verify(bundle, engine="ort-cpu").passed
