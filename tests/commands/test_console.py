"""What a command found is filed also where nobody reads what it prints."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import open_bundle


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
