import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lineproof.bundle import store
from lineproof.bundle.decide import set_threshold
from lineproof.bundle.manifest import FileRecord
from lineproof.bundle.parse import parse_manifest
from lineproof.bundle.store import check_place, now, open_bundle, write_bundle
from lineproof.core.errors import BundleError, UsageError
from lineproof.eval.calibrate import record_calibration

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
        ({"format_version": 99}, r"format_version 99; this release reads 1, 2\."),
        (
            {"parity": {"ort-cpu": {"state": "maybe", "decision": "", "time": ""}}},
            r"parity\.ort-cpu\.state is 'maybe', expected one of 'passed'",
        ),
        ({"colour": "blue"}, r"colour is no field of this file; expected name,"),
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


def test_a_plan_is_recorded_with_its_hash(tiny_bundle, make_plan):
    record = make_plan(model_sha256=tiny_bundle.model_sha256)
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


def test_a_manifest_of_format_version_1_is_read(tiny_bundle):
    """What an older release wrote opens; its proofs did not say for which decision, so they count as outdated."""
    text = (HERE / "data" / "manifest-1.json").read_text()
    manifest = parse_manifest(text, where="x")
    assert manifest.format_version == 2
    assert {name: manifest.parity_of(name) for name in manifest.parity} == {
        "ort-cpu": "outdated",
        "openvino": "outdated",
    }
    assert manifest.parity["openvino"].state == "failed"
    assert manifest.threshold == tiny_bundle.manifest.threshold
    assert manifest.score_spread == 0.0
    fp32 = manifest.tolerances["fp32"]
    assert (fp32.score_spread, fp32.score_margin, fp32.anomaly_map) == (1e-2, 1e-4, 1e-3)
    (entry,) = manifest.history
    assert (entry.action, entry.time, entry.value) == ("upgrade", manifest.created, manifest.threshold.value)
    assert manifest.is_decision_recorded
    (tiny_bundle.path / "manifest.json").write_text(text)
    # Only these bytes of the files differ from run to run.
    files = tiny_bundle.manifest.files
    changed = open_bundle_with(tiny_bundle, files).change(lambda item: item.with_parity("ort-cpu", "passed", time="t"))
    assert json.loads((tiny_bundle.path / "manifest.json").read_text())["format_version"] == 2
    assert open_bundle(tiny_bundle.path).manifest.parity_of("ort-cpu") == "passed"
    assert changed.manifest.history[0].action == "upgrade"


def open_bundle_with(bundle, files):
    """The bundle whose manifest on disk was given these file records by hand."""
    path = bundle.path / "manifest.json"
    records = {name: {"sha256": item.sha256, "num_bytes": item.num_bytes} for name, item in files.items()}
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": records}))
    return open_bundle(bundle.path)


def edit_threshold_by_hand(bundle, value):
    path = bundle.path / "manifest.json"
    raw = json.loads(path.read_text())
    raw["threshold"]["value"] = value
    path.write_text(json.dumps(raw))
    return open_bundle(bundle.path)


def test_a_threshold_edited_by_hand_is_not_what_was_proved(tiny_bundle):
    proved = tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    assert (proved.manifest.parity_of("ort-cpu"), proved.manifest.is_decision_recorded) == ("passed", True)
    edited = edit_threshold_by_hand(proved, 0.9)
    assert (edited.manifest.parity_of("ort-cpu"), edited.manifest.is_decision_recorded) == ("outdated", False)
    back = edit_threshold_by_hand(edited, tiny_bundle.manifest.threshold.value)
    assert (back.manifest.parity_of("ort-cpu"), back.manifest.is_decision_recorded) == ("passed", True)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: dataclasses.replace(m, threshold=dataclasses.replace(m.threshold, value=0.123)),
        lambda m: dataclasses.replace(m, engine_thresholds={"ort-cpu": m.threshold}),
        lambda m: dataclasses.replace(m, preprocessing=dataclasses.replace(m.preprocessing, mean=(0.1, 0.2, 0.3))),
        lambda m: dataclasses.replace(m, inputs=(dataclasses.replace(m.inputs[0], name="images"),)),
        lambda m: dataclasses.replace(m, outputs=m.outputs[:1]),
        lambda m: dataclasses.replace(m, files={**m.files, "model.onnx": FileRecord("0" * 64, 1)}),
    ],
)
def test_everything_that_decides_is_in_the_digest(tiny_bundle, change):
    assert change(tiny_bundle.manifest).decision != tiny_bundle.manifest.decision


def test_what_does_not_decide_is_not_in_the_digest(tiny_bundle):
    manifest = tiny_bundle.manifest
    other = dataclasses.replace(manifest, name="x", created="y", max_batch=1, tools={"a": "1"})
    assert other.decision == manifest.decision
    # The same thresholds with another promise decide the same.
    promise = dataclasses.replace(manifest.threshold, num_good=99)
    assert dataclasses.replace(manifest, threshold=promise).decision == manifest.decision


def test_a_threshold_is_set_with_a_reason_that_stays(tiny_bundle):
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    change = set_threshold(tiny_bundle, 0.5, engine="ort-cpu", reason=" scratches pass ", who="Ann")
    manifest = open_bundle(tiny_bundle.path).manifest
    assert manifest == change.bundle.manifest
    assert (manifest.threshold_for("ort-cpu").value, manifest.threshold_for("openvino").value) == (
        0.5,
        tiny_bundle.manifest.threshold.value,
    )
    entry = manifest.history[-1]
    assert (entry.action, entry.who, entry.reason, entry.engine) == (
        "set-threshold",
        "Ann",
        "scratches pass",
        "ort-cpu",
    )
    assert (entry.previous, entry.value) == (tiny_bundle.manifest.threshold.value, 0.5)
    assert (manifest.parity_of("ort-cpu"), manifest.is_decision_recorded) == ("outdated", True)
    assert "Verify each engine again" in change.summary_lines()[1]


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [(float("nan"), "x", "expected a finite number"), (float("inf"), "x", "finite"), (0.5, "  ", "--reason TEXT")],
)
def test_a_threshold_is_not_set_without_number_or_reason(tiny_bundle, value, reason, words):
    with pytest.raises(UsageError, match=words):
        set_threshold(tiny_bundle, value, reason=reason)
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest


def test_a_new_plan_makes_its_engine_unverified(tiny_bundle, make_plan):
    tiny_bundle.change(
        lambda manifest: manifest.with_parity("trt", "passed", time="t").with_parity("ort-cpu", "passed", time="t")
    )
    record = make_plan(model_sha256=tiny_bundle.model_sha256)
    manifest = tiny_bundle.add_plan(b"plan", record).manifest
    assert (manifest.parity_of("trt"), manifest.parity_of("ort-cpu")) == ("unverified", "passed")


def exchange(bundle):
    """Another bundle, of another model, takes the place of this one."""

    def fill(folder):
        (folder / "model.onnx").write_bytes(bundle.model_path.read_bytes() + b"\0")
        (folder / "golden.npz").write_bytes((bundle.path / "golden.npz").read_bytes() + b"\0")

    return write_bundle(bundle.path, dataclasses.replace(bundle.manifest, files={}, history=()), fill)


def test_a_handle_of_an_exchanged_bundle_mixes_nothing(tiny_bundle):
    exchange(tiny_bundle)
    with pytest.raises(BundleError, match="was exchanged for another bundle while it was being read"):
        tiny_bundle.golden()
    with pytest.raises(BundleError, match="was exchanged for another bundle"):
        tiny_bundle.check_same_files()


def test_a_bundle_that_is_exchanged_while_it_is_opened_is_opened_again(tiny_bundle, monkeypatch):
    """The manifest of the old one and the files of the new one are not an altered bundle."""
    check_file, calls = store._check_file, []

    def exchange_first(*arguments):
        if not calls:
            calls.append("exchanged")
            exchange(tiny_bundle)
        check_file(*arguments)

    monkeypatch.setattr(store, "_check_file", exchange_first)
    opened = open_bundle(tiny_bundle.path)
    assert opened.model_sha256 != tiny_bundle.model_sha256


CHANGER = """
import json, sys
from lineproof.bundle.store import open_bundle
path, name = sys.argv[1:]
bundle = open_bundle(path)
print("open", flush=True)
number = 0
while True:
    number += 1
    with bundle.transaction() as change:
        change.append_report("proof.json", {"who": name, "number": number})
        change.write(change.manifest.with_parity(name, "passed", time=str(number)))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_many_processes_change_a_bundle_and_a_kill_loses_nothing(tiny_bundle):
    """Each of four processes works on a handle of its own, opened before all changes; all are killed at any moment."""
    done = {}
    for trial in range(3):
        names = [f"engine-{trial}-{index}" for index in range(4)]
        command = [sys.executable, "-c", CHANGER, str(tiny_bundle.path)]
        writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in names]
        for writer in writers:
            assert writer.stdout.readline() == "open\n"
        time.sleep(0.5 + 0.07 * trial)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for name, writer in zip(names, writers, strict=True):
            lines = writer.stdout.read().split("\n")[:-1]
            done[name] = int(lines[-1]) if lines else 0
            writer.wait()
            writer.stdout.close()
    manifest = open_bundle(tiny_bundle.path).manifest
    entries = json.loads((tiny_bundle.path / "proof.json").read_text())
    assert sum(done.values()) > 10
    for name, number in done.items():
        numbers = [entry["number"] for entry in entries if entry["who"] == name]
        # What was said to be done is there; the one that was being made when the kill came may be there too.
        assert numbers in ([*range(1, number + 1)], [*range(1, number + 2)])
        stated = int(manifest.parity[name].time) if name in manifest.parity else 0
        assert number <= stated <= len(numbers)
    # What a kill left half written goes away with the next change.
    tiny_bundle.change(lambda manifest: manifest)
    assert [item.name for item in tiny_bundle.path.iterdir() if item.name.endswith(".tmp")] == []


def test_a_manifest_written_before_the_rules_for_images_is_read_with_their_defaults(tiny_bundle):
    file = tiny_bundle.path / "manifest.json"
    raw = json.loads(file.read_text())
    assert [raw["preprocessing"].pop(key) for key in ("fit", "bit_depth", "channel_order")] == ["none", None, "rgb"]
    file.write_text(json.dumps(raw))
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest
    raw["preprocessing"]["frame_channels"] = 1
    raw["inputs"][0]["shape"][3] = 1
    assert parse_manifest(json.dumps(raw), where="x").preprocessing.channel_order == "mono"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fit": "squeeze"}, r"preprocessing\.fit is 'squeeze', expected one of 'none', 'stretch', 'pad', 'crop'"),
        ({"bit_depth": 40}, r"bit_depth \(--bit-depth\) is 40; expected 8 to 16"),
        ({"channel_order": "bgr"}, "channel_order is 'bgr' for 3 channels; expected 'rgb'"),
        ({"channel_order": "mono"}, "channel_order is 'mono' for 3 channels"),
    ],
)
def test_a_rule_for_images_that_cannot_be_is_refused(tiny_bundle, change, message):
    file = tiny_bundle.path / "manifest.json"
    raw = json.loads(file.read_text())
    raw["preprocessing"].update(change)
    file.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=message):
        open_bundle(tiny_bundle.path)


def test_the_rules_for_images_survive_a_round_trip(tiny_bundle):
    spec = dataclasses.replace(tiny_bundle.manifest.preprocessing, fit="pad", bit_depth=12)
    changed = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, preprocessing=spec))
    assert open_bundle(changed.path).manifest.preprocessing == spec
    assert json.loads((changed.path / "manifest.json").read_text())["preprocessing"]["bit_depth"] == 12


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("threshold", "value"), True, r"threshold\.value is True, expected float"),
        (("threshold", "num_good"), "8", r"threshold\.num_good is '8', expected int"),
        (("precision",), "fp99", "precision is 'fp99', expected fp32, fp16, int8; tolerances hold none for fp99"),
        (("tolerances",), {}, "tolerances hold none for fp32"),
        (("tolerances", "fp32", "score_spread"), "x", r"tolerances\.fp32\.score_spread is 'x', expected float"),
        (("tolerances", "fp32", "score_spread"), -1, "a tolerance is negative"),
        (("score_spread",), -0.1, "score_spread or map_range is negative"),
        (("max_batch",), 0, "max_batch is 0, expected 1 or more"),
        (("history", 0, "value"), "12", r"history\.0\.value is '12', expected float"),
        (("inputs", 0, "shape"), ["N", "H", "W", 3], r"inputs are .*expected TensorSpec\(name='frames'.*"),
        (("preprocessing", "frame_height_px"), 99, r"inputs are .*expected TensorSpec\(name='frames'.*"),
        (("outputs", 0, "name"), "scores", "outputs are not score and anomaly_map"),
        (("training", "fitted"), [1], r"training\.fitted\.0 is 1, expected str"),
        (("preprocessing", "mean"), [0.5, 0.5], r"preprocessing\.mean is \[0\.5, 0\.5\], expected a list of 3 float"),
        (("max_batch",), "8", "max_batch is '8', expected int"),
        (("max_batch",), 8.0, r"max_batch is 8\.0, expected int"),
        (("max_batch",), None, "max_batch is None, expected int"),
        (("colour",), 1, "colour is no field of this file; expected name, created, .*"),
        (("threshold", "colour"), 1, r"threshold\.colour is no field of this file; expected value, num_good, .*"),
        (("threshold",), {"value": 0.5}, r"threshold\.num_good is missing; expected int"),
        (("threshold",), 0.5, r"threshold is 0\.5, expected an object"),
        (("files",), [], r"files is \[\], expected an object"),
        (("files", "model.onnx", "num_bytes"), "9", r"files\.model\.onnx\.num_bytes is '9', expected int"),
        (("plans",), {}, r"plans is \{\}, expected a list of an object"),
        (("history", 0, "action"), "shout", r"history\.0\.action is 'shout', expected one of 'export', .*"),
        (("history", 0, "previous"), "x", r"history\.0\.previous is 'x', expected float"),
        (("inputs", 0, "shape", 0), 1.5, r"inputs\.0\.shape\.0 is 1\.5, expected int or str"),
    ],
)
def test_a_field_of_another_type_or_out_of_range_is_refused(tiny_bundle, place, value, words):
    raw = json.loads((tiny_bundle.path / "manifest.json").read_text())
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tiny_bundle.path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=rf"does not follow bundle/FORMAT\.md: .*{words}\. Export"):
        open_bundle(tiny_bundle.path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("threshold", "num_good"), 800),
        (("threshold", "interval_high"), 0.001),
        (("tolerances", "fp32", "score_margin"), 1e9),
        (("score_spread",), 1e9),
        (("training", "fitted"), ["0" * 16]),
        (("training", "category"), "screw"),
        (("precision",), "fp16"),
        (("history", 0, "value"), 0.7),
        (("parity", "ort-cpu", "state"), "passed"),
        (("name",), "other"),
    ],
)
def test_an_edit_of_any_field_is_noticed_and_stays_in_the_history(tiny_bundle, place, value):
    tiny_bundle.change(lambda manifest: manifest.with_parity("openvino", "passed", time=now()))
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "failed", time=now()))
    file = tiny_bundle.path / "manifest.json"
    raw = json.loads(file.read_text())
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    file.write_text(json.dumps(raw))
    edited = open_bundle(tiny_bundle.path)
    assert not edited.manifest.is_decision_recorded
    assert "passed" not in {edited.manifest.parity_of(name) for name in ("ort-cpu", "openvino")}
    # The next command that writes does not make the edit its own.
    after = edited.change(lambda manifest: manifest.with_parity("openvino", "passed", time=now()))
    assert after.manifest == open_bundle(tiny_bundle.path).manifest
    assert [entry.action for entry in after.manifest.history] == ["export", "edited"]
    assert (after.manifest.parity_of("openvino"), after.manifest.is_decision_recorded) == ("passed", False)
    assert "manifest.json was changed by hand" in after.manifest.history[-1].sentence()
    # A person who sets the threshold with a reason takes it over; the entry stays.
    final = set_threshold(after, 0.5, reason="looked at it").bundle
    assert [entry.action for entry in final.manifest.history] == ["export", "edited", "set-threshold"]
    assert final.manifest.is_decision_recorded


def test_a_threshold_edited_by_hand_is_not_taken_over_by_another_engines_calibration(tiny_bundle):
    edited = edit_threshold_by_hand(tiny_bundle, 0.9)
    own = dataclasses.replace(tiny_bundle.manifest.threshold, engine="openvino")
    record_calibration(edited, own)
    entries = [(entry.action, entry.previous, entry.value) for entry in open_bundle(tiny_bundle.path).manifest.history]
    before = tiny_bundle.manifest.threshold.value
    assert entries == [("export", None, before), ("edited", before, 0.9), ("calibrate", 0.9, before)]


def test_a_manifest_without_its_seal_is_refused(tiny_bundle):
    file = tiny_bundle.path / "manifest.json"
    raw = json.loads(file.read_text())
    assert len(raw.pop("seal")) == 64
    file.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="seal is missing; expected str"):
        open_bundle(tiny_bundle.path)
    file.write_text(json.dumps({**raw, "seal": ""}))
    assert not open_bundle(tiny_bundle.path).manifest.is_as_written
    file.write_text(json.dumps({**raw, "seal": "", "is_as_written": True}))
    with pytest.raises(BundleError, match="is_as_written is no field of this file"):
        open_bundle(tiny_bundle.path)


def test_other_arithmetic_has_a_threshold_of_its_own_and_else_the_engines(tiny_bundle):
    def of(name, value):
        return dataclasses.replace(tiny_bundle.manifest.threshold, value=value, engine=name)

    manifest = tiny_bundle.manifest.with_threshold(of("openvino", 0.3), engine="openvino")
    assert [manifest.threshold_for(name).value for name in ("openvino", "openvino:bf16")] == [0.3, 0.3]
    manifest = manifest.with_threshold(of("openvino:bf16", 0.4), engine="openvino:bf16")
    assert [manifest.threshold_for(name).value for name in ("openvino", "openvino:bf16")] == [0.3, 0.4]
    assert manifest.threshold_for("ort-cpu") == tiny_bundle.manifest.threshold
