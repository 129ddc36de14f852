"""From a checkpoint to a run, a bundle and verdicts, with what is said on the way."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lineproof import cli
from lineproof.bundle.runs.folder import read_record
from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.dataset import check_contents, open_dataset
from lineproof.data.sample.write import write_sample
from lineproof.export.bundle import check_run
from lineproof.export.options import ExportOptions
from lineproof.importers.anomalib.run import ImportOptions, check_score_scale, import_anomalib
from lineproof.runtime.engine import open_engine, predict

LOW, HIGH = 5.0, 25.0


@pytest.fixture
def lineproof(monkeypatch, capsys):
    """Run one command: (stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words, fails=0):
        monkeypatch.setattr(sys, "argv", ["lineproof", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == fails, printed.err
        return printed.out, printed.err

    return run


@pytest.fixture
def import_file(part, write, tmp_path):
    """A function that imports what a checkpoint holds."""

    def run(values, *, dataset=part, out="run", **options):
        return import_anomalib(write(values), dataset=dataset, out=tmp_path / out, options=ImportOptions(**options))

    return run


def without(values, *names):
    for name in names:
        del values["state_dict"][name]
    return values


def test_the_run_says_where_it_came_from_and_claims_no_training(contents, import_file):
    result = import_file(contents())
    record = read_record(result.run)
    assert record == result.record
    training = record.training
    assert (training.num_images, training.fingerprint, training.fitted) == (0, "", ())
    assert (training.num_holdout, len(training.held_out), record.imported.good_split) == (2, 2, "test")
    assert [name.split("/")[:2] for name in record.holdout] == [["test", "good"]] * 2
    assert record.detector.parameters["border"] == "reflect"
    assert "2 good images of" in result.summary_lines()[2]
    assert "own threshold 12.0002 rejects" in result.summary_lines()[2]
    json.dumps(result.to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["state_dict"].update({"model.extra": torch.zeros(2)}), r"1 tensors that are not .*model\.extra"),
        (lambda v: v["hyper_parameters"].update(temperature=0.5), r"settings that are not .*: temperature = 0\.5"),
        (lambda v: v["hyper_parameters"].update(layers=["layer2"]), r"made with layers = \['layer2'\]; exp"),
        (lambda v: v["hyper_parameters"].update(backbone=18), r"made with backbone = 18; expected str"),
        (lambda v: v["hyper_parameters"].update(backbone="no_such_net"), r"its Padim cannot be built .*no_such_net"),
        (lambda v: without(v, "model.gaussian.mean"), r"holds no tensor model\.gaussian\.mean"),
        (
            lambda v: without(v, *[name for name in v["state_dict"] if "feature_extractor" in name]),
            r"no tensor below model\.feature_extractor\.feature_extractor",
        ),
        (
            lambda v: without(v, "model.feature_extractor.feature_extractor.conv1.weight"),
            r"the tensors of its Padim do not fit its settings .*backbone\.network\.conv1\.weight",
        ),
        (lambda v: v.update(anomalib_components_enabled={"pre_processor": False}), r"made with pre_processor=False"),
        (
            lambda v: v["state_dict"].update({"model.feature_extractor.feature_extractor.bn1.bias": torch.zeros(7)}),
            r"do not fit its settings .*bn1\.bias",
        ),
    ],
)  # fmt: skip
def test_what_is_not_known_is_an_error_that_names_it(change, message, contents, import_file, tmp_path):
    values = contents()
    change(values)
    with pytest.raises(BadInputError, match=f"(?s){message}"):
        import_file(values)
    assert not (tmp_path / "run").exists()


def test_patchcore_of_another_precision_is_refused(contents, import_file):
    values = contents("patchcore")
    values["hyper_parameters"]["precision"] = "float16"
    with pytest.raises(BadInputError, match="precision = 'float16'; expected 'float32'"):
        import_file(values)


def test_fastflow_of_a_transformer_is_refused(contents, import_file):
    values = contents("fastflow")
    values["hyper_parameters"]["backbone"] = "cait_m48_448"
    with pytest.raises(BadInputError, match="has the backbone cait_m48_448; expected one of resnet18"):
        import_file(values)


def test_stages_behind_the_last_tapped_one_are_left_out(contents, import_file):
    values = contents()
    values["state_dict"]["model.feature_extractor.feature_extractor.layer4.0.conv1.weight"] = torch.zeros(8)
    assert import_file(values).run.is_dir()


def test_a_score_that_is_not_finite_is_refused(contents, import_file):
    values = contents()
    values["state_dict"]["model.gaussian.mean"][:] = float("nan")
    with pytest.raises(BadInputError, match=r"not finite"):
        import_file(values)


def test_a_folder_that_holds_a_run_is_kept(contents, import_file):
    before = import_file(contents()).run
    with pytest.raises(UsageError, match="holds a run already"):
        import_file(contents())
    assert read_record(before)


def test_good_images_are_of_the_validation_then_the_test_then_the_training_split(contents, import_file, tmp_path, part):
    copy = tmp_path / "flange"
    shutil.copytree(part.root, copy)

    def split(out):
        dataset = check_contents(open_dataset(copy), "image")
        return import_file(contents(), dataset=dataset, out=out).record.imported.good_split

    assert split("a") == "test"
    shutil.rmtree(copy / "test" / "good")
    assert split("b") == "train"
    for path in sorted((copy / "train" / "good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(BadInputError, match="fewer than 2 good images in every split"):
        split("c")


def test_a_scale_is_one_of_two():
    assert check_score_scale("anomalib") == "anomalib"
    with pytest.raises(UsageError, match=r"score_scale .* is 'unit'; expected native or anomalib"):
        check_score_scale("unit")


@pytest.mark.slow
def test_the_graph_gives_scores_on_anomalibs_scale(contents, import_file, tmp_path):
    from lineproof.export.bundle import export_bundle

    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3)).astype(np.uint8)
    seen = {}
    for scale in ("native", "anomalib"):
        run = import_file(contents(threshold=14.0), out=scale, score_scale=scale).run
        bundle = export_bundle(run, tmp_path / f"{scale}.bundle")
        assert bundle.manifest.imported.score_scale == scale
        for engine in ("torch", "ort-cpu"):
            seen[scale, engine] = predict(open_engine(bundle, engine), frames)
    for engine in ("torch", "ort-cpu"):
        native, scaled = seen["native", engine], seen["anomalib", engine]
        exact = [
            (getattr(native, part).astype(np.float64) - at) for part, at in (("score", 14.0), ("anomaly_map", 15.0))
        ]
        for values, found in zip(exact, (scaled.score, scaled.anomaly_map), strict=True):
            np.testing.assert_allclose(found, np.clip(values / (HIGH - LOW) + 0.5, 0, 1), atol=1e-6)
    assert bundle.manifest.threshold.value == 0.50001
    np.testing.assert_allclose(seen["anomalib", "ort-cpu"].score, seen["anomalib", "torch"].score, atol=1e-5)


@pytest.mark.slow
def test_a_newcomer_goes_from_a_checkpoint_to_verdicts(contents, write, sample_folder, here, lineproof):
    checkpoint = write(contents("patchcore", threshold=1000.0))
    said, notes = lineproof(
        "import", "anomalib", checkpoint, "--data", sample_folder, "--category", "flange", "--out", "run"
    )
    assert "Imported from anomalib 2.7 or later: Patchcore of model.ckpt" in said
    assert "rejects 0 of them" in said
    assert "flange" in notes
    said, _ = lineproof("export", "run", "--out", "a.bundle")
    assert "anomalib's own threshold was set on the images of its validation" in said
    assert "Threshold 1000: it promises no rate" in said
    assert "Parity passed" in said

    said, _ = lineproof("inspect", "a.bundle")
    assert "Imported from anomalib" in said
    assert "What it was trained on is not recorded. 2 good images of" in said
    assert "(test split) served for golden frames" in said
    assert "Trained on" not in said
    assert "held out" not in said
    values = json.loads(lineproof("inspect", "a.bundle", "--json")[0])
    assert values["imported"]["library"] == "anomalib"

    said, notes = lineproof("evaluate", "a.bundle", "--data", sample_folder)
    assert "was imported, and what it was trained on is not recorded" in notes
    assert "fingerprint" not in notes
    for source, reason in (
        ("run", "its good images are of the test split"),
        (sample_folder / "flange", "may have been fitted to them"),
        (sample_folder / "flange" / "train" / "good", "was imported, and may have been fitted to them"),
        (sample_folder / "flange" / "test" / "good", "they are test images"),
    ):
        assert reason in lineproof("calibrate", "a.bundle", "--data", source, fails=1)[1]

    write_sample(here / "drawn", seed=4, num_train=4, num_test_good=1, num_test_defect=1, size_px=96)
    shutil.copytree(here / "drawn" / "flange" / "train" / "good", here / "elsewhere" / "parts")
    said, _ = lineproof("calibrate", "a.bundle", "--data", "elsewhere/parts")
    assert (
        "a.bundle was imported, and what it was fitted to is not recorded: whether these images are among that" in said
    )
    lineproof("verify", "a.bundle")
    verdict = json.loads(lineproof("run", "a.bundle", next((here / "elsewhere" / "parts").iterdir()))[0])
    assert verdict["verdict"] in ("OK", "NG")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "train", "validation"])
def test_without_a_threshold_export_sets_one_and_says_on_what(split, contents, import_file, lineproof, tmp_path):
    values = contents()
    for part in ("image", "pixel"):
        values["state_dict"][f"post_processor._{part}_threshold"] = torch.tensor(float("nan"))
    folder = {"test": "test/good", "train": "train/good", "validation": "validation/good"}[split]
    root = tmp_path / "bolt"
    rng = np.random.default_rng(1)
    for name in {"train/good", folder}:
        (root / name).mkdir(parents=True)
        for index in range(3 if name == folder else 1):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(root / name / f"{index}.png")
    (root / "test" / "scratch").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(root / "test" / "scratch" / "0.png")
    result = import_file(values, dataset=check_contents(open_dataset(root), "image"))
    assert "The file holds no threshold: export sets one on these images." in result.summary_lines()[2]
    said, _ = lineproof("export", result.run, "--out", tmp_path / "a.bundle", "--no-verify")
    manifest = open_bundle(tmp_path / "a.bundle").manifest
    assert manifest.threshold.num_good == 3
    assert manifest.threshold.source.endswith(f"({split} split)")
    assert ("holds no threshold. This one was set on good" in said) == (split != "validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["hyper_parameters"].update(num_neighbors=-3), r"made with num_neighbors = -3; expected 1 or more"),
        (
            lambda v: v["state_dict"].update({"model.memory_bank": torch.rand(40, 200)}),
            r"the tensors of its Patchcore do not fit its settings",
        ),
    ],
)
def test_banks_that_cannot_be_searched_are_refused(change, message, contents, import_file, tmp_path):
    values = contents("patchcore")
    change(values)
    with pytest.raises(BadInputError, match=message):
        import_file(values, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_share_that_would_change_nothing_is_refused(contents, import_file, tmp_path):
    record = import_file(contents(), out=tmp_path / "run").record
    check_run(record, ExportOptions())
    with pytest.raises(UsageError, match=r"is 0\.05, and the run was imported with anomalib's own threshold"):
        check_run(record, ExportOptions(max_false_reject=0.05))


def test_a_file_is_no_place_for_a_run(contents, import_file, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match=r"run \(--out\) is a file; expected a folder"):
        import_file(contents(), out=tmp_path / "run")


def test_the_threshold_of_maps_stands_in_and_that_is_said(contents, import_file, tmp_path):
    values = contents()
    values["state_dict"]["post_processor._image_threshold"] = torch.tensor(float("nan"))
    result = import_file(values, out=tmp_path / "run")
    assert result.record.imported.image.threshold == 13.0
    assert "no threshold of image scores: anomalib judges images by that of anomaly maps" in " ".join(
        result.conversions
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["hyper_parameters"].update(n_features=50), r"was made with n_features = 50; expected as many"),
        (lambda v: v["state_dict"]["model.idx"].__setitem__(0, -1), r"draws 12 channels from -1 on"),
        (
            lambda v: v["state_dict"]["model.idx"].__setitem__(0, 100_000),
            r"do not fit its settings",
        ),
        (
            lambda v: v["state_dict"]["model.gaussian.inv_covariance"][7].neg_(),
            r"have negative values",
        ),
        (
            lambda v: v["state_dict"]["model.gaussian.inv_covariance"][:, 0].mul_(2.0),
            r"are not symmetric; expected inverse covariances",
        ),
        (
            lambda v: v["state_dict"].update({"model.gaussian.mean": torch.zeros(3, 256)}),
            r"the tensors of its model do not fit one another",
        ),
    ],
)
def test_gaussians_that_were_changed_are_refused(change, message, contents, import_file, tmp_path):
    values = contents()
    change(values)
    with pytest.raises(BadInputError, match=message):
        import_file(values, out=tmp_path / "run")
