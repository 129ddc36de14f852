"""How far a training run got, read from its folder without PyTorch."""

import json

import pytest

from lineproof.bundle.runs.folder import (
    epochs_kept,
    finish_command,
    is_finished,
    is_unfinished,
    read_record,
    refuse_run,
    stopped_words,
    unfinished_words,
)
from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, BundleError

COMMAND = "lineproof train fastflow --data '/parts of today' --out /old/run"


def start(run, **fields):
    run.mkdir(exist_ok=True)
    (run / "train.json").write_text(
        json.dumps({"detector": "fastflow", "parameters": {}, "command": COMMAND, **fields})
    )


def state(run, metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    (run / "trainer.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def test_an_unfinished_run_says_what_is_kept_and_how_to_finish_it_where_it_is_now(tmp_path):
    run = tmp_path / "my run"
    start(run)
    assert is_unfinished(run)
    state(run, {"progress": json.dumps({"epoch": 12}), "epochs": "30"})
    assert epochs_kept(run) == (12, 0, 30)
    command = f"lineproof train fastflow --data '/parts of today' --out '{run}'"
    assert finish_command(run) == command
    assert unfinished_words(run) == (
        f"{run} is an unfinished training run of fastflow (kept up to epoch 12 of 30). Finish it: {command}"
    )
    (run / "checkpoint.json").write_text("{}")
    assert is_finished(run)
    assert not is_unfinished(run)


def test_a_run_that_no_command_began(tmp_path):
    start(tmp_path, command="")
    assert finish_command(tmp_path) == ""
    assert unfinished_words(tmp_path).endswith(f"Finish it: train it again as it was begun, into {tmp_path}")


def test_a_training_that_was_stopped_says_what_is_saved_and_what_goes_on(tmp_path):
    run, line = tmp_path / "my run", "lineproof train fastflow --data d"
    begins = f"Stopped before the training began: nothing was saved. Begin it: {line}"
    assert stopped_words(None, command=line) == begins
    assert stopped_words(run, command=line) == f"{begins} --out '{run}'"
    assert stopped_words(run, command="").endswith("nothing was saved. Begin it: train again")
    start(run)
    said = stopped_words(run, command=line)
    assert said == f"Stopped. {unfinished_words(run)}"
    assert "(nothing of it is kept yet). Finish it: " in said
    state(run, {"progress": json.dumps({"epoch": 12}), "epochs": "30"})
    assert "(kept up to epoch 12 of 30). Finish it: " in stopped_words(run, command=line)
    (run / "checkpoint.json").write_text("{}")
    said = stopped_words(run, command=line)
    assert said == (f"Stopped. {run} is a finished run and stays as it is. Score its test images: {line} --out '{run}'")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 9, b"\x02" + b"\0" * 7 + b"{}", b"\x04" + b"\0" * 7 + b"null"]
)
def test_a_broken_state_keeps_nothing(tmp_path, content):
    (tmp_path / "trainer.safetensors").write_bytes(content)
    assert epochs_kept(tmp_path) == (0, 0, 0)


def test_a_state_of_an_older_release_does_not_know_the_total(tmp_path):
    start(tmp_path)
    state(tmp_path, {"progress": json.dumps({"epoch": 3})})
    assert "(kept up to epoch 3)" in unfinished_words(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": [], "annotations": []}'])
def test_another_train_json_is_no_run(tmp_path, content):
    (tmp_path / "train.json").write_text(content)
    assert not is_unfinished(tmp_path)
    refuse_run(tmp_path)
    with pytest.raises(BundleError, match="a folder without manifest"):
        open_bundle(tmp_path)


def test_opening_a_run_as_a_bundle_says_what_it_is(tmp_path):
    start(tmp_path)
    with pytest.raises(BadInputError, match="unfinished training run of fastflow"):
        open_bundle(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"detector": {"name": "fastflow"}}')
    with pytest.raises(BadInputError, match=rf"training run \(fastflow\), not a bundle.*lineproof export {tmp_path}"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": "0"}, "seed is '0', expected int"),
        ({"fit": "squeeze"}, "fit is 'squeeze', expected one of 'none', 'stretch', 'pad', 'crop'"),
        ({"frame": [80]}, r"frame is \[80\], expected a list of 2 int"),
        ({"fitted": [1]}, r"fitted\.0 is 1, expected str"),
        ({"command": None}, "command is None, expected str"),
    ],
)
def test_a_beginning_of_another_type_is_refused_by_its_field(tmp_path, fields, words):
    start(tmp_path, **fields)
    with pytest.raises(BadInputError, match=rf"train\.json does not say how a run was begun: {words}\. Train again"):
        refuse_run(tmp_path)


RECORD = {
    "detector": {"name": "padim", "parameters": {}},
    "training": {"dataset": "d", "category": "", "fingerprint": "f", "num_images": 8, "num_holdout": 1, "seed": 0},
    "holdout": ["a.png"], "holdout_scores": [1], "frame": [96, 96], "fit": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frame": ["96", 96]}, r"frame\.0 is '96', expected int"),
        ({"holdout_scores": ["1"]}, r"holdout_scores\.0 is '1', expected float"),
        ({"training": {**RECORD["training"], "seed": None}}, r"training\.seed is None, expected int"),
        ({"detector": "padim"}, r"detector is 'padim', expected an object"),
        ({"frame_fit": "squeeze"}, r"frame_fit is 'squeeze', expected one of"),
    ],
)
def test_a_record_of_another_type_is_refused_by_its_field(tmp_path, fields, words):
    (tmp_path / "checkpoint.json").write_text(json.dumps({**RECORD, "a field of a later release": 1}))
    assert read_record(tmp_path).frame == (96, 96)
    (tmp_path / "checkpoint.json").write_text(json.dumps({**RECORD, **fields}))
    with pytest.raises(BadInputError, match=rf"checkpoint\.json is not a checkpoint record of this release \({words}"):
        read_record(tmp_path)
