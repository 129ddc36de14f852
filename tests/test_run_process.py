"""``lineproof run`` as a process of its own: lines as they fall, Ctrl-C, kill -9, a full disk, odd terminals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import now
from lineproof.runtime.engine import availability

#: The command line with one change: judging an image takes a while, so that something can happen meanwhile.
SLOW = """
import sys, time
from lineproof.line import inspector
real = inspector.Line.inspect
def inspect(line, frame):
    time.sleep({delay})
    return real(line, frame)
inspector.Line.inspect = inspect
from lineproof.cli import main
main()
"""


@pytest.fixture
def here(tmp_path, tiny_bundle):
    """A folder with forty images of the tiny bundle's size, which is marked as proved: it gives no warning."""
    if not availability("ort-cpu").is_available:
        pytest.skip("onnxruntime is not installed")
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 40, (12, 16, 3)).astype(np.uint8)).save(tmp_path / f"images/{index:02d}.png")
    return tmp_path


def start(here, bundle, *words, delay=0.05, stdout=subprocess.PIPE, env=None):
    command = [sys.executable, "-c", SLOW.format(delay=delay), "run", bundle.path, "images", "--engine", "ort-cpu"]
    return subprocess.Popen(
        [*map(str, command), *map(str, words)], cwd=here, stdout=stdout, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})}, start_new_session=True,
    )  # fmt: skip


def finish(process):
    """What is still to come on stdout and stderr; not ``communicate``, which forgets what ``readline`` had buffered."""
    with process:
        return process.stdout.read() if process.stdout else "", process.stderr.read()


def filed(here):
    return [json.loads(line) for line in (here / "out" / "verdicts.jsonl").read_text().splitlines()]


def test_lines_come_as_they_fall_into_a_pipe_too(here, tiny_bundle):
    process = start(here, tiny_bundle, "--out", "out", delay=0.1)
    times = []
    for number, line in enumerate(process.stdout):
        times.append(time.monotonic())
        if 0 < number < 20:
            # The line before this one is on disk whole.
            assert (here / "out" / "verdicts.jsonl").read_text().splitlines()[number - 1]
        assert Path(json.loads(line)["file"]).name == f"{number:02d}.png"
    finish(process)
    assert process.returncode == 0
    assert len(times) == 40
    assert times[-1] - times[0] > 2.0


def test_ctrl_c_loses_none_and_says_how_to_go_on(here, tiny_bundle):
    process = start(here, tiny_bundle, "--out", "out", "--quiet")
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    printed = [json.loads(line) for line in "".join([*lines, out]).splitlines()]
    assert process.returncode == 130
    assert 5 <= len(printed) < 40
    assert filed(here) == printed
    assert len(os.listdir(here / "out" / "overlays")) == len(printed)
    assert err == (
        f"error: Stopped after {len(printed)} of 40 files. What was judged is printed, and {len(printed)} verdicts are "
        f"in out/verdicts.jsonl, with {len(printed)} overlays. To go on with the rest: the same command with --out out "
        "--append --skip-judged.\n"
    )
    process = start(here, tiny_bundle, "--out", "out", "--append", "--skip-judged", delay=0)
    _, err = finish(process)
    assert process.returncode == 0, err
    assert [Path(entry["file"]).name for entry in filed(here)] == [f"{index:02d}.png" for index in range(40)]
    assert f"{len(printed)} of 40 files skipped: judged before" in err


def test_a_second_ctrl_c_ends_at_once(here, tiny_bundle):
    process = start(here, tiny_bundle, "--out", "out", "--quiet", delay=20)
    while not (here / "out" / "verdicts.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("error: Stopped by Ctrl-C before its end. What was judged is printed, and filed where --out")


def test_ctrl_c_in_json_is_one_object(here, tiny_bundle):
    process = start(here, tiny_bundle, "--json", "--quiet")
    first = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, _ = finish(process)
    shown = json.loads("".join([*first, out]))
    assert (shown["kind"], shown["status"]) == ("StoppedError", 130)
    assert shown["num_judged"] == len(shown["verdicts"]) < shown["num_files"] == 40
    assert "The first one not judged is images/" in shown["error"]


def test_a_kill_loses_at_most_one_line(here, tiny_bundle):
    process = start(here, tiny_bundle, "--out", "out", "--quiet")
    lines = [process.stdout.readline() for _ in range(6)]
    process.kill()
    finish(process)
    entries = filed(here)
    assert len(entries) >= 5
    assert entries[:5] == [json.loads(line) for line in lines[:5]]
    with (here / "out" / "verdicts.jsonl").open("a") as stream:
        stream.write('{"file": "images/0')
    process = start(here, tiny_bundle, "--out", "out", "--append", "--skip-judged", delay=0)
    _, err = finish(process)
    assert process.returncode == 0, err
    assert "was cut off in the middle; it was removed" in err
    entries = filed(here)
    assert [Path(entry["file"]).name for entry in entries] == [f"{index:02d}.png" for index in range(40)]
    assert sorted(os.listdir(here / "out" / "overlays")) == [
        f"{number:06d}-{number:02d}-{entry['verdict']}.png" for number, entry in enumerate(entries)
    ]


def test_a_reader_that_goes_away_ends_it_quietly(here, tiny_bundle):
    process = start(here, tiny_bundle, "--quiet", delay=0.01)
    assert json.loads(process.stdout.readline())["verdict"] == "OK"
    process.stdout.close()
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_full_standard_output_is_one_sentence(here, tiny_bundle):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        process = start(here, tiny_bundle, "--quiet", delay=0, stdout=full)
        _, err = finish(process)
    assert process.returncode == 1
    assert err.startswith("error: standard output: no space left on device.")
    assert err.count("\n") == 1


def run_mounted(here, script):
    """Run a shell script where it may mount, or skip."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("unshare"):
        pytest.skip("mounting needs root on Linux")
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    if probe.returncode:
        pytest.skip("nothing can be mounted here")
    return subprocess.run(
        ["unshare", "-m", "bash", "-euc", script], cwd=here, capture_output=True, text=True, timeout=120
    )


def test_a_full_disk_ends_filing_and_not_judging(here, tiny_bundle):
    (here / "small").mkdir()
    command = (
        f"{sys.executable} -m lineproof.cli run {tiny_bundle.path} images --engine ort-cpu --quiet --out small/out"
    )
    answer = run_mounted(
        here,
        f"mount -t tmpfs -o size=32k tmpfs small; rc=0; {command} >printed || rc=$?; cp -r small/out kept; exit $rc",
    )
    assert answer.returncode == 1, answer.stderr
    printed = [json.loads(line) for line in (here / "printed").read_text().splitlines()]
    kept = [json.loads(line) for line in (here / "kept" / "verdicts.jsonl").read_text().splitlines()]
    assert len(printed) == 40
    assert 0 < len(kept) < 40
    assert printed[: len(kept)] == kept
    with_overlay = [entry["overlay"].removeprefix("overlays/") for entry in kept if "overlay" in entry]
    assert sorted(os.listdir(here / "kept" / "overlays")) == sorted(with_overlay)
    *warnings, last = answer.stderr.splitlines()
    assert all(line.startswith(("warning: Overlays stopped at ", "warning: Filing stopped at ")) for line in warnings)
    assert any(f"Filing stopped at images/{len(kept):02d}.png." in line for line in warnings)
    assert last.startswith("error: Not every verdict was taken: ")
    assert f"{len(kept)} verdicts are in small/out/verdicts.jsonl, with {len(with_overlay)} overlays" in last


def test_a_sink_takes_what_a_reader_that_went_away_did_not(here, tiny_bundle):
    process = start(here, tiny_bundle, "--sink", "csv=verdicts.csv", delay=0.01)
    process.stdout.readline()
    process.stdout.close()
    process.wait()
    rows = (here / "verdicts.csv").read_text().splitlines()
    process.stderr.close()
    assert rows[0].startswith("file,verdict,score,")
    # The verdict that could not be printed was judged: it is there.
    assert len(rows) >= 3
    assert process.returncode == 141


def test_a_read_only_folder_is_refused_before_any_work(here, tiny_bundle):
    (here / "locked").mkdir()
    command = (
        f"{sys.executable} -m lineproof.cli run {tiny_bundle.path} images --engine ort-cpu --quiet --out locked/out"
    )
    answer = run_mounted(here, f"mount -t tmpfs -o ro tmpfs locked; {command}")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: locked/out")
    assert "read-only file system. Name a folder that can be written." in answer.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "cp949", "latin-1", "utf-16"])
def test_any_encoding_of_the_output_works(here, tiny_bundle, encoding):
    answer = subprocess.run(
        [sys.executable, "-m", "lineproof.cli", "inspect", str(tiny_bundle.path)],
        capture_output=True, cwd=here, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    text = answer.stdout.decode(encoding)
    assert "95 % interval 0.0%" in text
    assert "–" in text if encoding == "utf-16" else "0.0%-60.2%" in text


@pytest.mark.parametrize("env", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_in_any_script_in_the_c_locale(here, tiny_bundle, env):
    (here / "images" / "00.png").rename(here / "images" / "検査–Ü.png")
    os.rename(here / "images" / "01.png", os.fsencode(here / "images") + b"/\xff.png")
    process = start(here, tiny_bundle, "--out", "out", delay=0, env=env)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == len(os.listdir(here / "out" / "overlays")) == 40
    answer = subprocess.run(
        [sys.executable, "-m", "lineproof.cli", "inspect", "検査–Ü.bundle"],
        capture_output=True, cwd=here, env={**os.environ, **env},
    )  # fmt: skip
    assert answer.returncode == 1
    assert answer.stderr.startswith(b"error: ")
    assert b"is not a bundle (nothing there)" in answer.stderr
