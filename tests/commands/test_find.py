"""What a short command means."""

import datetime
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineproof.bundle.place import bundle_folder
from lineproof.bundle.runs import folder as find_module
from lineproof.bundle.runs.folder import is_finished, new_run_folder, newest_run, run_detector
from lineproof.bundle.store import MANIFEST
from lineproof.commands._find import newest_bundle, open_bundles, open_named
from lineproof.core.errors import BadInputError, BundleError, UsageError


def make_run(folder, detector, age_s, content=None):
    folder.mkdir(parents=True)
    path = folder / "checkpoint.json"
    path.write_text(f'{{"detector": {{"name": "{detector}"}}}}' if content is None else content)
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


def test_newest_run_of_a_detector(here):
    make_run(here / "runs" / "z-old", "fastflow", 300)
    make_run(here / "runs" / "a-new", "fastflow", 100)
    make_run(here / "runs" / "newest", "padim", 0)
    (here / "runs" / "unfinished").mkdir()
    make_run(here / "runs" / "broken", "", 1, content="{")
    assert newest_run("fastflow").name == "a-new"
    assert newest_run("padim").name == "newest"
    with pytest.raises(BadInputError) as raised:
        newest_run("patchcore")
    message = str(raised.value)
    assert "There is no trained patchcore under ./runs (4 finished runs of other detectors)" in message
    assert "lineproof train patchcore --data DIR --category NAME" in message
    assert "lineproof export patchcore --sample" in message


def test_a_folder_without_runs_names_the_same_commands(here):
    with pytest.raises(BadInputError, match=r"lineproof train fastflow .* lineproof export fastflow --sample"):
        newest_run("fastflow")
    assert list(here.iterdir()) == []


def test_what_a_run_holds(here):
    make_run(here / "run", "padim", 0)
    make_run(here / "other", "", 0, content="[1]")
    assert is_finished(here / "run")
    assert not is_finished(here)
    assert [run_detector(here / name) for name in ("run", "other", "absent")] == ["padim", "", ""]


def test_new_run_folder_has_no_empty_part(here):
    assert new_run_folder("padim", "").name.startswith("padim-2")
    run = new_run_folder("padim", "screw")
    assert run.name.startswith("padim-screw-2")
    assert run.parent.name == "runs"
    assert (here / run).is_dir()


@pytest.mark.usefixtures("here")
def test_runs_that_start_in_one_second_get_folders_of_their_own(monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(find_module, "datetime", Clock)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_folder("padim", "screw").name, range(8)))
    first = "padim-screw-20260102-030405"
    assert sorted(made) == sorted([first, *(f"{first}-{number}" for number in range(2, 9))])


def test_an_unfinished_run_is_named_with_its_command(here):
    folder = here / "runs" / "padim-screw-1"
    folder.mkdir(parents=True)
    command = "lineproof train padim --data x --out y"
    (folder / "train.json").write_text(json.dumps({"detector": "padim", "parameters": {}, "command": command}))
    with pytest.raises(BadInputError, match=rf"no finished padim under ./runs.*--data x --out {folder}$"):
        newest_run("padim")


def test_newest_bundle_here(here):
    with pytest.raises(BadInputError, match=r"no \*\.bundle in .*here\. Name one, or make one: .* --sample"):
        newest_bundle()
    for age_s, name in ((300, "old"), (100, "new"), (200, "middle")):
        (here / f"{name}.bundle").mkdir()
        (here / f"{name}.bundle" / MANIFEST).write_text("{}")
        os.utime(here / f"{name}.bundle" / MANIFEST, (1e9 - age_s, 1e9 - age_s))
    (here / "empty.bundle").mkdir()
    assert newest_bundle().name == "new.bundle"
    assert newest_bundle(here.parent / "here").name == "new.bundle"


def test_open_named_checks_the_precision(tiny_bundle, here, monkeypatch):
    assert open_named(tiny_bundle.path).path == tiny_bundle.path
    assert open_named(tiny_bundle.path, precision="fp32").manifest.precision == "fp32"
    with pytest.raises(
        UsageError, match=r"is fp32, not fp16\. The precision is written in the graph: .*--precision fp16"
    ):
        open_named(tiny_bundle.path, precision="fp16")
    monkeypatch.chdir(tiny_bundle.path.parent)
    assert open_named(None).path.name == "tiny.bundle"
    with pytest.raises(BundleError, match="is not a bundle"):
        open_named(here)


def test_open_bundles_opens_the_named_the_newest_or_all(tiny_bundle, monkeypatch):
    folder = tiny_bundle.path.parent
    shutil.copytree(tiny_bundle.path, folder / "older.bundle")
    os.utime(folder / "older.bundle" / MANIFEST, (1e9, 1e9))
    monkeypatch.chdir(folder)

    def names(path, **options):
        return [bundle.path.name for bundle in open_bundles(path, **options)]

    assert names(None, takes_all=True) == ["older.bundle", "tiny.bundle"]
    assert names(None, takes_all=False) == ["tiny.bundle"]
    for takes_all in (False, True):
        assert names(folder / "older.bundle", takes_all=takes_all) == ["older.bundle"]
        with pytest.raises(UsageError, match="is fp32, not fp16"):
            open_bundles(None, precision="fp16", takes_all=takes_all)


def test_bundle_folder():
    assert str(bundle_folder("screw", "padim", "fp32")) == "screw-padim.bundle"
    assert str(bundle_folder("", "padim", "fp16")) == "padim-fp16.bundle"
