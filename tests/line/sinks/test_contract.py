"""Every kind of sink of the table: takes verdicts in their order, adds to what is there, and fails in words."""

import csv
import io
import json
import os

import pytest

from lineproof.core.errors import UsageError
from lineproof.line.sinks.base import AbstractSink, Outlet, open_sinks
from lineproof.line.sinks.csv_file import COLUMNS
from lineproof.line.sinks.table import SINKS

#: Verdicts of a sink's file, as (file, verdict); another kind of sink is read back in its own way.
READERS = {
    "csv": lambda path: pairs(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""))),
    "jsonl": lambda path: pairs(map(json.loads, path.read_text().splitlines())),
}


def pairs(rows):
    return [(row["file"], row["verdict"]) for row in rows]


def entry(number, **changes):
    return {
        "file": f"{number}, \"odd\"\nname.png", "verdict": "NG", "score": 0.25, "threshold": 0.2, "engine": "ort-cpu",
        "compute_dtype": "f32", "order": "rgb", "bundle": "tiny", "model_sha256": "0" * 64, "decision": "1" * 64,
        "parity": "passed", "lineproof": "0", "path": f"{number}.png", "time": "2026-01-01T00:00:00.000+00:00",
        "time_ms": 1.5, **changes,
    }  # fmt: skip


@pytest.fixture(params=SINKS)
def kind(request):
    return request.param


def test_each_kind_is_read_back_here(kind):
    assert kind in READERS


def test_verdicts_arrive_in_their_order_and_a_second_run_adds_to_them(kind, tmp_path):
    place = tmp_path / "verdicts"
    for numbers in ((0, 1), (2,)):
        with open_sinks([f"{kind}={place}"]) as (outlet,):
            for number in numbers:
                outlet.add(entry(number))
                # Nothing waits in the process: who reads meanwhile sees it.
                assert READERS[kind](place)[-1] == (entry(number)["file"], "NG")
    assert READERS[kind](place) == [(entry(number)["file"], "NG") for number in range(3)]


def test_a_verdict_that_is_none_is_taken(kind, tmp_path):
    with open_sinks([f"{kind}={tmp_path / 'v'}"]) as (outlet,):
        outlet.add(entry(0, verdict="ERR", score=None, error="no image", kind="BadInputError"))
    assert READERS[kind](tmp_path / "v") == [(entry(0)["file"], "ERR")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_said_once_and_ends_nothing(kind):
    with open_sinks([f"jsonl={os.devnull}"]) as (taking,):
        taking.add(entry(0))
        assert (taking.num_written, taking.news(), taking.problems()) == (1, (), "")
    with open_sinks([f"{kind}=/dev/full"]) as (outlet,):
        outlet.add(entry(0))
        (words,) = outlet.news()
        assert "stopped at" in words
        assert "no space left" in words.lower()
        outlet.add(entry(1))
        assert outlet.news() == ()
        assert outlet.problems() == words
        assert outlet.num_written == 0


def test_a_place_that_cannot_be_opened_is_an_error_before_any_work(kind, tmp_path):
    with pytest.raises(OSError, match="missing"), open_sinks([f"{kind}={tmp_path}/missing/v"]):
        pass


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("csv", "expected KIND=PLACE"),
        ("csv=", "expected KIND=PLACE"),
        ("cvs=a", r"no sink 'cvs'\. .*Did you mean 'csv'"),
    ],
)
def test_words_that_name_no_sink(word, words):
    with pytest.raises(UsageError, match=words), open_sinks([word]):
        pass


def test_a_csv_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "parts.csv").write_text("part,price\n1,2\n")
    with pytest.raises(UsageError, match=r"begins with b'part,price.*expected the columns file,verdict,score"):
        open_sinks([f"csv={tmp_path / 'parts.csv'}"]).__enter__()
    assert (tmp_path / "parts.csv").read_text() == "part,price\n1,2\n"
    assert COLUMNS[:3] == ("file", "verdict", "score")


def test_a_sink_that_broke_is_closed_all_the_same():
    closed = []

    class Broken(AbstractSink):
        def __init__(self, place):
            self.place = place

        def write(self, entry):  # noqa: ARG002 (it fails whatever it is given)
            raise OSError(28, "No space left on device")

        def close(self):
            closed.append(self.place)

    outlet = Outlet(Broken("x"), name="broken=x")
    outlet.add(entry(0))
    assert "broken=x" in outlet.problems()
