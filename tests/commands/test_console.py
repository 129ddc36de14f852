"""The result of a command is filed also where nobody reads what it prints."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import open_bundle
from lineproof.commands._console import ConsoleProgress, Ui
from lineproof.core.errors import ParityError


def run_into_a_closed_pipe(*words):
    """Exit status and stderr of a command whose reader is gone before it prints."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from lineproof.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    return ended.returncode, ended.stderr


def test_verify_and_calibrate_are_kept_where_the_reader_goes_away(tiny_bundle, tmp_path):
    pytest.importorskip("onnxruntime")
    status, err = run_into_a_closed_pipe("verify", tiny_bundle.path, "--engine", "ort-cpu", "--quiet")
    assert (status, err) == (141, "")
    assert open_bundle(tiny_bundle.path).manifest.parity_of("ort-cpu") == "passed"
    (tmp_path / "good").mkdir()
    for level in (10, 20, 30):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(tmp_path / "good" / f"{level}.png")
    words = ("--engine", "ort-cpu", "--data", tmp_path / "good", "--max-false-reject", "0", "--quiet")
    assert run_into_a_closed_pipe("calibrate", tiny_bundle.path, *words)[0] == 141
    threshold = open_bundle(tiny_bundle.path).manifest.threshold_for("ort-cpu")
    assert (threshold.engine, round(threshold.value, 6)) == ("ort-cpu", round((30 + 0.05 * 10) / 255, 6))


def told(monkeypatch, *, is_terminal, is_quiet=False, last="scores"):
    """What a training of two steps leaves on stderr."""
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with ConsoleProgress(is_quiet=is_quiet) as progress:
        progress("training", 1, 2, "epoch 1 of 2, step 1 of 1, training loss 0.5, at most 3 s left")
        progress("training", 2, 2, "epoch 2 of 2, step 1 of 1, training loss 0.4, at most 0 s left")
        if last != "training":
            progress(last, 0, 0)
    return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_pipe_hears_of_each_stage_once(monkeypatch):
    assert told(monkeypatch, is_terminal=False) == "training …\nscores …\n"


def test_quiet_is_quiet(monkeypatch):
    assert told(monkeypatch, is_terminal=False, is_quiet=True) == ""
    assert told(monkeypatch, is_terminal=True, is_quiet=True) == ""


def test_a_terminal_shows_the_bar_and_below_it_the_detail_as_long_as_the_stage_lasts(monkeypatch):
    *_, bar, detail = told(monkeypatch, is_terminal=True, last="training").rstrip().splitlines()
    assert "training" in bar
    assert "2/2" in bar
    assert detail.strip() == "epoch 2 of 2, step 1 of 1, training loss 0.4, at most 0 s left"
    assert "scores" in told(monkeypatch, is_terminal=True).rstrip().splitlines()[-1]


def test_a_report_is_shown_before_it_says_that_it_is_not_good_enough(capsys, tmp_path, monkeypatch):
    class Refused:
        def summary_lines(self):
            return ("one", "two")

        def to_dict(self):
            return {"lines": 2}

        def check(self):
            raise ParityError("not good enough")

    monkeypatch.setattr("sys.argv", ["lineproof", "verify"])
    kept = []
    with pytest.raises(ParityError, match="not good enough"):
        Ui(as_json=False, is_quiet=False, is_verbose=False).conclude(
            Refused(), page=tmp_path / "r.html", keep=lambda: kept.append(1) or ["not filed"]
        )
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("one\ntwo\n", "warning: not filed\n")
    assert "two" in (tmp_path / "r.html").read_text()
    assert kept == [1]
