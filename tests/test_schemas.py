"""The published JSON Schemas: made from the types, and what the commands write follows them to the last key."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof import cli
from lineproof.bundle.store import open_bundle
from lineproof.runtime.engine import availability

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "bundle" / "schemas"


def load_updater():
    spec = importlib.util.spec_from_file_location("update_schemas", ROOT / "docs" / "update_schemas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def closed(schema):
    """The schema with every object closed, so that a key which it does not know is an error."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {**inner, "additionalProperties": False} if "required" in inner else inner


def check(name, value):
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(closed(schema)).validate(value)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run one command: (exit status, the JSON on stdout)."""
    if not availability("ort-cpu").is_available:
        pytest.skip("ort-cpu cannot run here")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["lineproof", *map(str, words), "--json", "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, json.loads(capsys.readouterr().out)

    return command


@pytest.fixture
def parts(tmp_path):
    """Two good parts, two bad ones with masks, and one file that is no image."""
    root = tmp_path / "parts"
    for kind in ("good", "bad", "masks"):
        (root / kind).mkdir(parents=True)
    for index, level in enumerate((20, 30)):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(root / "good" / f"{index}.png")
        pixels = np.full((12, 16, 3), 20, np.uint8)
        pixels[2:5, 2:5] = 230
        Image.fromarray(pixels).save(root / "bad" / f"{index}.png")
        Image.fromarray((pixels[..., 0] > 100).astype(np.uint8) * 255).save(root / "masks" / f"{index}.png")
    (root / "bad" / "2.png").write_bytes(b"no image")
    return root


def test_the_published_schemas_are_those_of_the_types():
    made = load_updater().schemas()
    assert {path.name for path in SCHEMAS.iterdir()} == set(made)
    for name, schema in made.items():
        assert json.loads((SCHEMAS / name).read_text()) == schema, "run: python docs/update_schemas.py"


def test_they_are_shipped():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    names = {Path(name).name for name in listed["lineproof.bundle"] if name.startswith("schemas/")}
    assert names == {path.name for path in SCHEMAS.iterdir()}


def test_a_parity_report_follows_its_schema(run, tiny_bundle, parts):
    pytest.importorskip("openvino")
    words = ("verify", tiny_bundle.path, "--engine", "ort-cpu", "--min-used", "0.5")
    check("parity", run(*words)[1])
    report = run(*words, "--data", parts, "--reference", "openvino")[1]
    check("parity", report)
    assert report["used"]["skipped"]
    assert report["mcnemar"] is not None
    for filed in json.loads((tiny_bundle.path / "proof.json").read_text()):
        assert filed.pop("time")
        check("parity", filed)


def test_a_profile_follows_its_schema(run, tiny_bundle):
    words = ("profile", tiny_bundle.path, "--engine", "ort-cpu", "--runs", 3, "--batch", "1:2", "--deadline-ms", 1e6)
    check("profile", run(*words)[1])
    report = run(*words, "--samples", "--cold-starts", 0)[1]
    check("profile", report)
    assert len(report["batches"][1]["samples"]["execute_ns"]) == 3
    for filed in json.loads((tiny_bundle.path / "profile.json").read_text()):
        assert filed.pop("time")
        check("profile", filed)


def test_an_evaluation_follows_its_schema(run, tiny_bundle, parts):
    report = run(
        "evaluate", tiny_bundle.path, "--data", parts, "--engine", "ort-cpu", "--min-used", "0.5", "--table", "5"
    )[1]
    check("evaluation", report)
    assert report["evaluated"][0]["accuracy"]["pixel"]["aupro"] is not None


def test_a_calibration_follows_its_schema_and_so_does_the_bundle_after_it(run, tiny_bundle, parts):
    report = run("calibrate", tiny_bundle.path, "--data", parts / "good", "--engine", "ort-cpu")[1]
    check("calibration", report)
    run("verify", tiny_bundle.path, "--engine", "ort-cpu")
    check("manifest", json.loads((tiny_bundle.path / "manifest.json").read_text()))
    assert open_bundle(tiny_bundle.path).manifest.engine_thresholds.keys() == {"ort-cpu"}


def test_verdicts_follow_their_schema(run, tiny_bundle, parts):
    status, printed = run("run", tiny_bundle.path, parts / "bad", "--engine", "ort-cpu", "--out", "o", "--allow-failed")
    assert status == 1
    filed = [json.loads(line) for line in Path("o/verdicts.jsonl").read_text().splitlines()]
    assert filed == printed["verdicts"]
    assert [line["verdict"] for line in filed] == ["NG", "NG", "ERR"]
    for line in filed:
        check("verdict", line)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("max_batch",), "8"),
        (("colour",), 1),
        (("threshold", "value"), None),
        (("preprocessing", "fit"), "squeeze"),
        (("inputs", 0, "shape"), "NHWC"),
        (("files", "model.onnx", "sha256"), 0),
    ],
)
def test_what_the_reader_of_a_manifest_refuses_its_schema_refuses(tiny_bundle, place, value):
    raw = json.loads((tiny_bundle.path / "manifest.json").read_text())
    schema = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "manifest.json").read_text()))
    schema.validate(raw)
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert not schema.is_valid(raw)


def test_a_report_that_lacks_a_field_is_seen():
    with pytest.raises(jsonschema.ValidationError, match="is a required property"):
        check("verdict", {"file": "a.png"})
