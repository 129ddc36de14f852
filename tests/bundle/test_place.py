"""Nothing that a bundle records is lost by another export."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from lineproof.bundle import place as place_module
from lineproof.bundle.atomic import exchange_directory
from lineproof.bundle.lock import exclusive
from lineproof.bundle.place import (
    bundle_records,
    check_changeable,
    check_replaceable,
    check_space,
    occupy,
    reserved,
    take_place,
)
from lineproof.bundle.store import now, open_bundle, write_bundle
from lineproof.core.errors import BundleError, BusyError, ExportError, StoppedError

HERE = Path(__file__).resolve().parent


def write(path, bundle, name):
    """The files of a bundle under another name, written as an export does."""

    def fill(folder):
        for file in ("model.onnx", "golden.npz"):
            shutil.copy(bundle.path / file, folder)

    return write_bundle(path, dataclasses.replace(bundle.manifest, name=name), fill)


def edit(bundle, **fields):
    file = bundle.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def record_proof(bundle):
    bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_a_fresh_bundle_holds_no_records(tiny_bundle, tmp_path):
    assert bundle_records(tiny_bundle.path) == ()
    assert bundle_records(tmp_path / "absent") == ()


@pytest.mark.parametrize(
    ("fields", "records"),
    [
        ({"engine_thresholds": {"ort-cpu": {}}}, ("calibration",)),
        ({"parity": {"ort-cpu": "failed"}}, ("proofs",)),
        ({"plans": [{}]}, ("plans",)),
        ({"history": [{"action": "export"}, {"action": "set-threshold"}]}, ("history",)),
        ({"history": [{"action": "export"}]}, ()),
        ({"plans": [{}], "parity": {"x": {}}, "engine_thresholds": {"x": {}}}, ("calibration", "plans", "proofs")),
        ({"history": 3}, ("a manifest that cannot be read",)),
    ],
)
def test_what_a_manifest_records(tiny_bundle, fields, records):
    edit(tiny_bundle, **fields)
    assert bundle_records(tiny_bundle.path) == records


def test_what_files_record(tiny_bundle):
    for file, record in (("profile.json", "profiles"), ("proof.json", "proofs"), ("plans/a.plan", "plans")):
        (tiny_bundle.path / file).parent.mkdir(exist_ok=True)
        (tiny_bundle.path / file).write_text("[]")
        assert record in bundle_records(tiny_bundle.path)
    (tiny_bundle.path / "manifest.json").write_text("{")
    assert bundle_records(tiny_bundle.path) == ("a manifest that cannot be read", "plans", "profiles", "proofs")


def test_a_bundle_with_records_is_replaced_when_asked_only(tiny_bundle):
    edit(tiny_bundle, parity={"ort-cpu": "passed"}, engine_thresholds={"ort-cpu": {}})
    words = r"holds calibration, proofs, which another export does not bring back.*Give another --out, or --replace"
    with pytest.raises(BundleError, match=words):
        check_replaceable(tiny_bundle.path, is_replacing=False)
    with pytest.raises(BundleError, match=words), reserved(tiny_bundle.path, is_replacing=False):
        pytest.fail("a place was given")
    check_replaceable(tiny_bundle.path, is_replacing=True)
    assert names(tiny_bundle.path.parent) == ["tiny.bundle"]


def test_where_nothing_is_the_bundle_is_there_before_it_is_proved(tiny_bundle, tmp_path):
    out = tmp_path / "deep" / "a.bundle"
    with reserved(out, is_replacing=False) as place:
        assert place.folder == tmp_path / "deep" / "a.bundle.new-1"
        write(place.folder, tiny_bundle, "a")
        assert occupy(place) == out
        assert open_bundle(out).manifest.name == "a"
    assert names(out.parent) == ["a.bundle"]


def second_export(out, bundle, first):
    with reserved(out, is_replacing=False) as second:
        assert second.folder.name == "a.bundle.new-2"
        write(second.folder, bundle, "second")
        occupy(first)
        occupy(second)


def replace(bundle, *, is_replacing=True, before=lambda: None):
    """Export over a bundle, doing something between the writing and the exchange."""
    with reserved(bundle.path, is_replacing=is_replacing) as place:
        write(place.folder, bundle, "new")
        before()
        take_place(place, keeps_old=False)


def stop_with(error):
    def stop():
        raise error

    return stop


def test_two_exports_at_once_do_not_replace_each_other(tiny_bundle, tmp_path):
    out = tmp_path / "a.bundle"
    with reserved(out, is_replacing=False) as first:
        write(first.folder, tiny_bundle, "first")
        with pytest.raises(
            BundleError, match=r"Something was put at .*a\.bundle while.* The new one is kept at .*a\.bundle\.new-2"
        ):
            second_export(out, tiny_bundle, first)
    assert open_bundle(out).manifest.name == "first"
    assert open_bundle(tmp_path / "a.bundle.new-2").manifest.name == "second"


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("keeps_old", [True, False])
def test_a_bundle_takes_the_place_of_another(tiny_bundle, monkeypatch, can_exchange, keeps_old):
    if not can_exchange:
        monkeypatch.setattr("lineproof.bundle.atomic._exchange", lambda _first, _second: False)
    out = tiny_bundle.path
    record_proof(tiny_bundle)
    with reserved(out, is_replacing=True) as place:
        write(place.folder, tiny_bundle, "new")
        assert occupy(place) == place.folder
        assert open_bundle(out).manifest.name == "tiny"
        old = take_place(place, keeps_old=keeps_old)
    assert open_bundle(out).manifest.name == "new"
    assert names(out.parent) == ["tiny.bundle", *(["tiny.bundle.old-1"] if keeps_old else [])]
    assert old == (out.with_name("tiny.bundle.old-1") if keeps_old else None)
    assert not keeps_old or bundle_records(old) == ("proofs",)


def test_records_that_are_written_meanwhile_are_not_replaced(tiny_bundle):
    with pytest.raises(BundleError, match=r"holds proofs.*The new one is kept at .*tiny\.bundle\.new-1"):
        replace(tiny_bundle, is_replacing=False, before=lambda: record_proof(tiny_bundle))
    assert open_bundle(tiny_bundle.path).manifest.name == "tiny"
    assert open_bundle(f"{tiny_bundle.path}.new-1").manifest.name == "new"


def test_a_bundle_that_is_being_changed_is_not_exchanged(tiny_bundle, monkeypatch):
    monkeypatch.setattr(place_module, "WAIT_S", 0.1)
    with exclusive(tiny_bundle.path, what="a calibration"), pytest.raises(BusyError, match=r"is in use by another"):
        replace(tiny_bundle)
    assert open_bundle(tiny_bundle.path).manifest.name == "tiny"


@pytest.mark.parametrize(
    ("error", "expected"), [(ExportError("refused."), ExportError), (KeyboardInterrupt(), StoppedError)]
)
def test_what_ends_early_is_told_what_is_where(tiny_bundle, error, expected):
    with pytest.raises(expected) as caught:
        replace(tiny_bundle, before=stop_with(error))
    new = f"{tiny_bundle.path}.new-1"
    assert f"The bundle at {tiny_bundle.path} is as it was. The new one is kept at {new};" in str(caught.value)
    assert open_bundle(new).manifest.name == "new"
    assert open_bundle(tiny_bundle.path).manifest == tiny_bundle.manifest


def test_a_bundle_that_was_written_before_ctrl_c_is_said_to_be_whole(tiny_bundle, tmp_path):
    out = tmp_path / "a.bundle"
    with pytest.raises(StoppedError, match=r"whole and unproved: lineproof verify .*a\.bundle$"):  # noqa: PT012, SIM117
        with reserved(out, is_replacing=False) as place:
            write(place.folder, tiny_bundle, "a")
            occupy(place)
            raise KeyboardInterrupt
    assert open_bundle(out).manifest.name == "a"


def test_an_export_that_fails_before_it_writes_leaves_nothing(tiny_bundle):
    with pytest.raises(ExportError, match=r"^refused$"), reserved(tiny_bundle.path, is_replacing=True):
        raise ExportError("refused")
    assert names(tiny_bundle.path.parent) == ["tiny.bundle"]


def test_a_link_keeps_pointing_at_its_bundle(tiny_bundle):
    link = tiny_bundle.path.with_name("link.bundle")
    link.symlink_to(tiny_bundle.path)
    with reserved(link, is_replacing=True) as place:
        write(place.folder, tiny_bundle, "new")
        take_place(place, keeps_old=False)
    assert link.is_symlink()
    assert open_bundle(link).manifest.name == open_bundle(tiny_bundle.path).manifest.name == "new"


def test_a_bundle_that_cannot_be_written_is_asked(tiny_bundle, monkeypatch):
    check_changeable(tiny_bundle.path)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(
        BundleError, match=r"tiny\.bundle is not writable: a plan would be built and could not be stored"
    ):
        check_changeable(tiny_bundle.path)


def test_too_little_space_is_said(tmp_path, monkeypatch):
    check_space(tmp_path / "not" / "there", 0)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(3_000_000))
    with pytest.raises(BundleError, match=rf"{tmp_path} has 3 MB free; this needs at least 5 MB"):
        check_space(tmp_path / "not" / "there", 5_000_000)


def test_folders_are_exchanged(tmp_path):
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange_directory(tmp_path / "new", tmp_path / "target", old=tmp_path / "old")
    assert names(tmp_path) == ["old", "target"]
    assert names(tmp_path / "target") == ["new"]
    assert names(tmp_path / "old") == ["target"]


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_place import open_bundle, write, reserved, take_place
out = Path(sys.argv[1])
bundle = open_bundle(out)
print("ready", flush=True)
for number in range(10_000):
    with reserved(out, is_replacing=True) as place:
        write(place.folder, bundle if number == 0 else open_bundle(out), f"new {number}")
        take_place(place, keeps_old=number % 2 == 0)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
@pytest.mark.parametrize("delay_ms", [5, 20, 45, 90])
def test_a_kill_anywhere_leaves_a_whole_bundle(tiny_bundle, delay_ms):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tiny_bundle.path), str(HERE)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay_ms / 1000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert open_bundle(tiny_bundle.path).manifest.name.startswith(("tiny", "new"))
    for kept in tiny_bundle.path.parent.glob("*.old-*"):
        open_bundle(kept)
