"""Verdicts on disk: nothing of another run, nothing half written, and a full disk stops filing, not judging."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lineproof.core.errors import BadInputError, BusyError
from lineproof.line import filing as module
from lineproof.line.filing import Filing, check_out

DECISION = {"engine": "ort-cpu", "compute_dtype": "f32", "order": "rgb", "threshold": 0.5, "decision": "ab"}
IMAGE = np.zeros((8, 8, 3), np.uint8)


def entry(name, verdict="OK"):
    return {"file": f"{name}.png", "verdict": verdict, "score": 0.1, **DECISION}


def file(out, *names, append=False):
    with Filing(out, DECISION, append=append) as filing:
        for name in names:
            said = entry(name)
            overlay = filing.add_overlay(IMAGE, said)
            filing.add({**said, "overlay": overlay} if overlay else said)
    return filing


def filed(out):
    return [json.loads(line)["file"] for line in (out / "verdicts.jsonl").read_text().splitlines()]


def overlays(out):
    return sorted(os.listdir(out / "overlays"))


def test_results_of_another_run_are_refused_and_left_alone(tmp_path):
    file(tmp_path / "o", "a")
    before = (tmp_path / "o" / "verdicts.jsonl").read_bytes()
    with pytest.raises(BadInputError, match=r"holds results of another run; nothing was judged\. Give another --out"):
        check_out(tmp_path / "o", append=False)
    with pytest.raises(BadInputError, match="holds results of another run"):
        Filing(tmp_path / "o", DECISION)
    assert (tmp_path / "o" / "verdicts.jsonl").read_bytes() == before
    (tmp_path / "o" / "verdicts.jsonl").unlink()
    with pytest.raises(BadInputError, match="holds results of another run"):
        check_out(tmp_path / "o", append=False)
    check_out(tmp_path / "o", append=True)
    check_out(tmp_path / "new", append=False)
    assert not (tmp_path / "new").exists()


def test_a_file_of_that_name_by_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "verdicts.jsonl").write_text("mine\n")
    for append in (False, True):
        with pytest.raises(BadInputError, match=r"was not written by `lineproof run`; it is left alone"):
            check_out(tmp_path, append=append)
    assert (tmp_path / "verdicts.jsonl").read_text() == "mine\n"


def test_a_run_that_filed_nothing_leaves_no_results(tmp_path):
    file(tmp_path / "o")
    check_out(tmp_path / "o", append=False)


def test_going_on_numbers_after(tmp_path):
    file(tmp_path / "o", "a", "b")
    filing = file(tmp_path / "o", "c", append=True)
    assert filed(tmp_path / "o") == ["a.png", "b.png", "c.png"]
    assert overlays(tmp_path / "o") == ["000000-a-OK.png", "000001-b-OK.png", "000002-c-OK.png"]
    assert (filing.num_before, filing.num_filed, filing.num_overlays) == (2, 1, 1)


@pytest.mark.parametrize("key", DECISION)
def test_verdicts_of_another_decision_do_not_join(tmp_path, key):
    """So that one folder never holds an OK and an NG of the same image."""
    file(tmp_path / "o", "a")
    with pytest.raises(BadInputError, match=rf"holds verdicts of another decision \({key} .* there, other now\)"):
        Filing(tmp_path / "o", {**DECISION, key: "other"}, append=True)
    assert filed(tmp_path / "o") == ["a.png"]


@pytest.mark.parametrize("tail", ['{"file": "c.p', "\0\0\0\0", '{"file": "c.png", "verdict": "OK", "score"\n'])
def test_what_a_kill_left_is_mended(tmp_path, tail):
    out = tmp_path / "o"
    file(out, "a", "b")
    with (out / "verdicts.jsonl").open("a") as stream:
        stream.write(tail)
    (out / "overlays" / "000002-c-NG.png").write_bytes(b"x")
    (out / "overlays" / ".000003.tmp").write_bytes(b"x")
    (out / "overlays" / "mine.txt").write_bytes(b"x")
    filing = file(out, "c", append=True)
    assert filed(out) == ["a.png", "b.png", "c.png"]
    assert overlays(out) == ["000000-a-OK.png", "000001-b-OK.png", "000002-c-OK.png", "mine.txt"]
    assert filing.notes == [f"The last line of {out / 'verdicts.jsonl'} was cut off in the middle; it was removed."]


def test_two_runs_do_not_write_at_once(tmp_path):
    with Filing(tmp_path / "o", DECISION), pytest.raises(BusyError, match="is in use by another process"):
        Filing(tmp_path / "o", DECISION, append=True)
    file(tmp_path / "o", "a", append=True)


def full_after(monkeypatch, num_bytes):
    """A disk that takes so many bytes of verdicts."""
    real, left = os.write, [num_bytes]

    def write(handle, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        num = real(handle, data[: left[0]])
        left[0] -= num
        return num

    monkeypatch.setattr(module.os, "write", write)


def test_a_full_disk_leaves_whole_lines_and_says_so(tmp_path, monkeypatch):
    out = tmp_path / "o"
    full_after(monkeypatch, 230)
    filing = file(out, "a", "b", "c")
    assert filed(out) == ["a.png"]
    assert (out / "verdicts.jsonl").read_bytes().endswith(b"}\n")
    assert overlays(out) == ["000000-a-OK.png"]
    assert filing.sentence() == f"1 verdict is in {out / 'verdicts.jsonl'}, with 1 overlay"
    (problem,) = filing.news()
    assert problem == filing.problems() == (
        f"Filing stopped at b.png. {out / 'verdicts.jsonl'}: no space left on device. Free some space there, or name "
        "another folder."
    )  # fmt: skip
    assert filing.news() == ()


def test_verdicts_go_on_where_overlays_stop(tmp_path, monkeypatch):
    out, real = tmp_path / "o", Path.write_bytes

    def write_bytes(path, data):
        if path.name.startswith(".000001"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    filing = file(out, "a", "b", "c")
    assert filed(out) == ["a.png", "b.png", "c.png"]
    assert overlays(out) == ["000000-a-OK.png"]
    assert "overlay" not in json.loads((out / "verdicts.jsonl").read_text().splitlines()[1])
    assert filing.news() == (
        f"Overlays stopped at b.png. {out / 'overlays' / '000001-b-OK.png'}: permission denied. Change its "
        "permissions, or name another place.",
    )


def test_it_is_on_the_disk_every_second_and_at_the_end(tmp_path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(module.os, "fsync", synced.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Filing(tmp_path / "o", DECISION) as filing:
        for _ in range(10):
            now[0] += 0.4
            filing.add(entry("a"))
        assert len(synced) == 3
    assert len(synced) == 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"threshold": "0.5"}, "threshold is '0.5', expected float"),
        ({"verdict": "GOOD"}, "verdict is 'GOOD', expected one of 'OK', 'NG', 'ERR'"),
        ({"decision": 7}, "decision is 7, expected str"),
    ],
)
def test_a_filed_verdict_of_another_type_is_refused_by_its_field(tmp_path, fields, words):
    file(tmp_path / "o", "a")
    lines = tmp_path / "o" / "verdicts.jsonl"
    lines.write_text(json.dumps({**json.loads(lines.read_text()), **fields}) + "\n")
    match = rf"verdicts\.jsonl, line 1 was not written by `lineproof run`: {words}\. Give another --out"
    with pytest.raises(BadInputError, match=match):
        Filing(tmp_path / "o", DECISION, append=True)
