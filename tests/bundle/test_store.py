import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lineproof.bundle.manifest import PlanRecord, parse_manifest
from lineproof.bundle.store import check_place, open_bundle, write_bundle
from lineproof.core.errors import BundleError

HERE = Path(__file__).resolve().parent


def test_round_trip(tiny_bundle):
    opened = open_bundle(tiny_bundle.path)
    assert opened.manifest == tiny_bundle.manifest
    golden = opened.golden()
    assert golden.frames.dtype == np.uint8
    assert golden.names[0] == "good/000.png"
    np.testing.assert_array_equal(golden.reference.score, golden.reference.anomaly_map.max(axis=(1, 2)))


def test_same_manifest_gives_the_same_bytes(tiny_bundle):
    text = (tiny_bundle.path / "manifest.json").read_text()
    assert parse_manifest(text, where="x").to_json() == text


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_one_altered_byte_is_refused(tiny_bundle, name):
    file = tiny_bundle.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was altered: its sha256 is"):
        open_bundle(tiny_bundle.path)


def test_missing_file_is_named(tiny_bundle):
    (tiny_bundle.path / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz is missing"):
        open_bundle(tiny_bundle.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, r"format_version 99; this release reads 1"),
        ({"parity": {"ort-cpu": "maybe"}}, r"parity of ort-cpu is 'maybe'"),
        ({"colour": "blue"}, r"unexpected keyword argument 'colour'"),
        ({"files": {}}, r"lists no model\.onnx and no golden\.npz"),
        ({"files": {"../../x": {"sha256": "0", "num_bytes": 1}}}, r"lists no model\.onnx"),
    ],
)
def test_a_manifest_that_does_not_fit_says_so(tiny_bundle, change, message):
    file = tiny_bundle.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(BundleError, match=message):
        open_bundle(tiny_bundle.path)


def test_a_file_outside_the_bundle_is_refused(tiny_bundle):
    file = tiny_bundle.path / "manifest.json"
    raw = json.loads(file.read_text())
    raw["files"]["../outside"] = {"sha256": "0" * 64, "num_bytes": 1}
    file.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="lies outside the bundle"):
        open_bundle(tiny_bundle.path)


def test_places_that_are_no_bundle(tmp_path):
    (tmp_path / "file").write_text("x")
    for place, seen in (("nothing", "nothing there"), (".", "a folder without"), ("file", "a file")):
        with pytest.raises(BundleError, match=seen):
            open_bundle(tmp_path / place)


def test_a_folder_with_other_things_is_not_overwritten(tmp_path, tiny_bundle):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.png").write_text("x")
    with pytest.raises(BundleError, match="is not a bundle; nothing was written"):
        write_bundle(other, tiny_bundle.manifest, lambda _: None)
    assert (other / "holiday.png").read_text() == "x"


def test_a_failing_writer_leaves_the_old_bundle(tiny_bundle):
    before = (tiny_bundle.path / "manifest.json").read_bytes()

    def fail(folder):
        (folder / "model.onnx").write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_bundle(tiny_bundle.path, tiny_bundle.manifest, fail)
    with pytest.raises(BundleError, match=r"golden\.npz was not written"):
        write_bundle(tiny_bundle.path, tiny_bundle.manifest, lambda folder: (folder / "model.onnx").write_bytes(b"x"))
    assert (tiny_bundle.path / "manifest.json").read_bytes() == before
    assert [item.name for item in tiny_bundle.path.parent.iterdir()] == [tiny_bundle.path.name]


def test_reports_are_appended(tiny_bundle):
    tiny_bundle.append_report("proof.json", {"passed": True})
    tiny_bundle.append_report("proof.json", {"passed": False})
    entries = json.loads((tiny_bundle.path / "proof.json").read_text())
    assert [entry["passed"] for entry in entries] == [True, False]
    open_bundle(tiny_bundle.path)


def test_a_plan_is_recorded_with_its_hash(tiny_bundle):
    record = PlanRecord("plans/a.plan", "0" * 64, 4, "trt", "11.4", "sm_89", "fp32", tiny_bundle.model_sha256, 8)
    bundle = tiny_bundle.add_plan(b"plan", record).add_plan(b"plan", record)
    assert open_bundle(bundle.path).manifest.plans == (record,)


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from conftest import write_tiny_bundle
write_tiny_bundle(sys.argv[1])
print("first", flush=True)
while True:
    write_tiny_bundle(sys.argv[1])
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_whole_bundle(tmp_path):
    place = tmp_path / "x.bundle"
    for trial in range(12):
        command = [sys.executable, "-c", WRITER, str(place), str(HERE.parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "first\n"
            time.sleep(0.013 * trial + 0.003)
            process.send_signal(signal.SIGKILL)
        assert len(open_bundle(place).golden().frames) == 8


def test_a_place_that_cannot_hold_a_bundle_is_known_before_the_work(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"exists and is not a bundle; nothing was written"):
        check_place(tmp_path)
    with pytest.raises(BundleError, match=r"cannot be written: .*notes\.txt is a file"):
        check_place(tmp_path / "notes.txt" / "new.bundle")
    check_place(tmp_path / "deep" / "new.bundle")
