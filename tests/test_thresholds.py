"""A threshold that is not finite is refused by every command and in every file: against NaN every part is good."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from lineproof import cli
from lineproof.bundle.store import MANIFEST, open_bundle
from lineproof.core.errors import BadInputError, BundleError, UsageError
from lineproof.core.threshold import Threshold, calibrate
from lineproof.eval.accuracy.evaluate import EvaluationRequest
from lineproof.eval.accuracy.outputs_file import open_outputs, save_outputs

VALUES = [float("nan"), float("inf"), float("-inf")]
WORDS = r"The threshold is {}; expected a finite number in units of the score\."


@pytest.mark.parametrize("value", VALUES)
def test_no_threshold_is_made_of_it(value):
    with pytest.raises(UsageError, match=WORDS.format(value)):
        Threshold(
            value=value,
            num_good=10,
            num_rejected=0,
            max_false_reject=0.0,
            interval_low=0.0,
            interval_high=0.3,
            engine="torch",
            source="test",
        )
    whole = calibrate([0.1, 0.2, 0.3], max_false_reject=0.0, engine="torch", source="test")
    with pytest.raises(UsageError, match=WORDS.format(value)):
        dataclasses.replace(whole, value=value)
    with pytest.raises(UsageError, match=WORDS.format(value)):
        EvaluationRequest(threshold=value)


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999", "null", '"nan"'])
@pytest.mark.parametrize("place", ["threshold", "engine_thresholds"])
def test_a_manifest_that_holds_one_is_no_manifest(tiny_bundle, written, place):
    raw = json.loads((tiny_bundle.path / MANIFEST).read_text())
    if place == "engine_thresholds":
        raw[place] = {"openvino": {**raw["threshold"]}}
        raw[place]["openvino"]["value"] = "HERE"
    else:
        raw[place]["value"] = "HERE"
    (tiny_bundle.path / MANIFEST).write_text(json.dumps(raw).replace('"HERE"', written))
    with pytest.raises(BundleError, match=r"manifest\.json (is not JSON|does not follow)") as raised:
        open_bundle(tiny_bundle.path)
    if written in ("NaN", "Infinity", "-Infinity"):
        assert f"it holds {written}, which is no number of JSON" in str(raised.value)
    if written == "1e999":
        assert "value is inf, expected a finite float" in str(raised.value)


@pytest.mark.parametrize("value", VALUES)
def test_saved_outputs_cannot_be_judged_by_one(tiny_bundle, tmp_path, value):
    outputs = _outputs(tiny_bundle)
    with pytest.raises(UsageError, match=WORDS.format(value)):
        outputs.with_threshold(value)
    path = tmp_path / "o.npz"
    save_outputs(outputs, path)
    with np.load(path) as arrays:
        kept = dict(arrays)
    header = {**json.loads(kept["header"].tobytes()), "threshold": value}
    kept["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **kept)
    with pytest.raises(BadInputError, match=rf"o\.npz holds no saved outputs .*{WORDS.format(value)}"):
        open_outputs(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "command",
    [
        ("run", "tiny.bundle", "images"),
        ("evaluate", "tiny.bundle", "--data", "images"),
        ("badcases", "tiny.bundle", "--data", "images"),
        ("set-threshold", "tiny.bundle", "--reason", "test"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_refuses_it_before_it_begins(tiny_bundle, monkeypatch, capsys, command, value):
    monkeypatch.chdir(tiny_bundle.path.parent)
    given = ["--", value] if command[0] == "set-threshold" else [f"--threshold={value}"]
    monkeypatch.setattr(sys, "argv", ["lineproof", *command, *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"error: The threshold is {value}; expected a finite number in units of the score." in printed.err


def _outputs(bundle):
    from lineproof.eval.accuracy.outputs import Outputs, Source

    manifest = bundle.manifest
    source = Source(
        bundle=manifest.name,
        model_sha256="0" * 64,
        detector="tiny",
        engine="numpy",
        precision="fp32",
        threshold=manifest.threshold.value,
        dataset="folder",
        category="",
        root=".",
        preprocessing=manifest.preprocessing,
    )
    maps = np.zeros((2, 12, 16), np.float32)
    return Outputs(
        source=source,
        files=("a.png", "b.png"),
        defects=("good", "hole"),
        score=np.array([0.1, 0.9], np.float32),
        label=np.array([False, True]),
        has_mask=np.array([True, True]),
        anomaly_map=maps,
        packed_mask=np.packbits(maps > 0.5, axis=2),
    )
