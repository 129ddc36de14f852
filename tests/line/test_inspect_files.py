"""Files to verdicts: a bad file is one ERR line, and the rest goes on."""

import dataclasses
import json
import os
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof import __version__
from lineproof.core.errors import BadInputError, StoppedError
from lineproof.core.spec import Preprocessing
from lineproof.data.inputs.table import input_of
from lineproof.line.filing import Filing
from lineproof.line.images import find_images
from lineproof.line.inspect_files import decision_of, inspect_files, not_judged_yet
from lineproof.line.inspector import Verdict, open_line
from lineproof.line.sinks.base import open_sinks
from lineproof.report.overlays import draw, map_limits, show_limits
from lineproof.report.painter import painter
from lineproof.runtime.engine import EngineOptions, availability


@pytest.fixture
def line(tiny_bundle):
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.inspection}. To fix: {state.fix}")
    with open_line(tiny_bundle.path, engine="ort-cpu") as opened:
        yield opened


@pytest.fixture
def spoiled(images):
    """The three images, and between them a truncated, a larger, an empty and a text file."""
    whole = (images / "0.png").read_bytes()
    (images / "0b-cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (40, 30)).save(images / "1b-large.png")
    (images / "1c-empty.png").write_bytes(b"")
    (images / "1d-text.png").write_text("no image")
    return images


def judge(line, *paths, out=None, append=False, **options):
    """Verdicts of the images below ``paths``, and how the run went."""
    verdicts = []
    files = find_images(paths, out=out).files
    if out is None:
        return verdicts, inspect_files(line, files, show=verdicts.append, **options)
    with Filing(out, decision_of(line), append=append) as filing:
        return verdicts, inspect_files(
            line, files, show=verdicts.append, filing=filing, paint=painter(line.bundle), **options
        )


def test_arithmetic_and_order_of_channels_stand_in_every_line(tiny_bundle, images):
    pytest.importorskip("onnxruntime")
    with (
        open_line(tiny_bundle.path, engine="ort-cpu") as line,
        open_line(tiny_bundle.path, engine="ort-cpu", order="bgr") as swapped,
    ):
        said = [judge(item, images)[0][0] for item in (line, swapped)]
    assert [(entry["compute_dtype"], entry["order"]) for entry in said] == [("f32", "rgb"), ("f32", "bgr")]


def test_sinks_take_every_verdict_and_one_that_fails_costs_the_exit_status(line, images, tmp_path):
    place, warned = tmp_path / "verdicts.jsonl", []
    with open_sinks([f"jsonl={place}", "csv=/dev/full"]) as sinks:
        verdicts, inspection = judge(line, images, sinks=sinks, warn=warned.append)
    assert [json.loads(row) for row in place.read_text().splitlines()] == verdicts
    assert len(verdicts) > 2
    (words,) = warned
    assert words.startswith("The sink csv=/dev/full stopped at ")
    with pytest.raises(BadInputError, match=r"Not every verdict was taken: The sink csv=/dev/full stopped .*All are"):
        inspection.check()


def test_verdicts_are_those_of_the_frames(line, images):
    before = datetime.now(UTC)
    verdicts, inspection = judge(line, images)
    inspection.check()
    assert [entry["verdict"] for entry in verdicts] == ["OK", "OK", "NG"]
    for entry in verdicts:
        frame = np.asarray(Image.open(entry["file"]))
        np.testing.assert_allclose(entry["score"], frame.mean(2).max() / 255, rtol=1e-6)
        assert entry["threshold"] == line.threshold
        assert entry["time_ms"] > 0
        assert abs((datetime.fromisoformat(entry["time"]) - before).total_seconds()) < 60
        assert datetime.fromisoformat(entry["time"]).utcoffset().total_seconds() == 0
        assert not {"error", "kind", "overlay"} & set(entry)


def test_whoever_reads_a_verdict_finds_what_is_behind_it(line, images, tiny_bundle, monkeypatch):
    monkeypatch.chdir(images)
    (entry,), _ = judge(line, Path("2.png"))
    expected = {
        "file": "2.png", "path": str(images / "2.png"), "engine": "ort-cpu", "bundle": "tiny",
        "model_sha256": tiny_bundle.model_sha256, "decision": tiny_bundle.manifest.decision, "parity": "unverified",
        "lineproof": __version__,
    }  # fmt: skip
    assert {key: entry[key] for key in expected} == expected


def test_bad_files_are_err_and_the_rest_goes_on(line, spoiled):
    steps = []
    entries, inspection = judge(line, spoiled, progress=lambda *item: steps.append(item))
    verdicts = {entry["file"].rpartition("/")[2]: entry for entry in entries}
    assert {name: entry["verdict"] for name, entry in verdicts.items()} == {
        "0.png": "OK", "0b-cut.png": "ERR", "1.png": "OK", "1b-large.png": "ERR", "1c-empty.png": "ERR",
        "1d-text.png": "ERR", "2.png": "NG",
    }  # fmt: skip
    for entry in entries:
        is_error = entry["verdict"] == "ERR"
        assert (entry["score"] is None) == ("error" in entry) == ("kind" in entry) == is_error
    assert "1b-large.png: the image is 30x40 (height x width); frames are 12x16" in verdicts["1b-large.png"]["error"]
    assert verdicts["1b-large.png"]["kind"] == "BadInputError"
    assert steps[-1] == ("inspecting", 7, 7)
    with pytest.raises(BadInputError, match=r"4 of 7 files gave no verdict; see the ERR lines") as error:
        inspection.check()
    assert error.value.exit_status == 1
    assert inspection.to_dict() == {
        "num_files": 7,
        "num_judged": 7,
        "num_errors": 4,
        "num_skipped": 0,
        "conversions": [],
    }


def test_verdicts_and_overlays_are_written(line, spoiled, tmp_path):
    out = tmp_path / "out" / "deep"
    verdicts, inspection = judge(line, spoiled, out=out)
    written = [json.loads(text) for text in (out / "verdicts.jsonl").read_text().splitlines()]
    assert written == verdicts
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        "000000-0-OK.png", "000002-1-OK.png", "000006-2-NG.png",
    ]  # fmt: skip
    for entry in written:
        assert ("overlay" in entry) == (entry["verdict"] != "ERR")
    drawn = np.asarray(Image.open(out / written[6]["overlay"]))
    assert drawn.shape == (12, 16, 3)
    frame = np.asarray(Image.open(spoiled / "2.png"))
    assert np.abs(drawn.astype(int) - frame).max() > 20
    assert inspection.filed == f"7 verdicts are in {out / 'verdicts.jsonl'}, with 3 overlays"
    assert inspection.unfiled == ""


def test_each_verdict_is_shown_and_on_disk_before_the_next_image_is_read(line, images, tmp_path):
    out, seen = tmp_path / "out", []

    def show(entry):
        path = out / "verdicts.jsonl"
        seen.append((entry["file"], len(path.read_text().splitlines())))

    with Filing(out, decision_of(line)) as filing:
        inspect_files(line, find_images([images]).files, show=show, filing=filing, paint=painter(line.bundle))
    assert [num for _, num in seen] == [0, 1, 2]


def test_a_reader_that_went_away_takes_no_verdict_with_it(line, images, tmp_path):
    def show(_):
        raise BrokenPipeError

    with Filing(tmp_path / "out", decision_of(line)) as filing, pytest.raises(BrokenPipeError):
        inspect_files(line, find_images([images]).files, show=show, filing=filing, paint=painter(line.bundle))
    assert len((tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()) == 1


def test_stopped_between_two_images(line, images, tmp_path):
    out = tmp_path / "out"
    answers = iter([False, False, True])
    verdicts, inspection = judge(line, images, out=out, should_stop=lambda: next(answers))
    assert len(verdicts) == len((out / "verdicts.jsonl").read_text().splitlines()) == 2
    with pytest.raises(StoppedError) as error:
        inspection.check()
    assert str(error.value) == (
        f"Stopped after 2 of 3 files. What was judged is printed, and 2 verdicts are in {out / 'verdicts.jsonl'}, "
        f"with 2 overlays. To go on with the rest: the same command with --out {out} --append --skip-judged."
    )
    assert error.value.exit_status == 130
    answers = iter([False, True])
    _, inspection = judge(line, images, should_stop=lambda: next(answers))
    with pytest.raises(
        StoppedError, match=r"after 1 of 3 files\. What was judged is printed\. The first one not judged is "
    ):
        inspection.check()


def test_going_on_numbers_after_and_leaves_out_what_was_judged(line, images, tmp_path):
    out = tmp_path / "out"
    (images / "2.png").rename(tmp_path / "2.png")
    (images / "cut.png").write_bytes(b"x")
    judge(line, images, out=out)
    (tmp_path / "2.png").rename(images / "2.png")
    files = find_images([images]).files
    left = not_judged_yet(files, out, "image")
    assert [Path(file).name for file in left] == ["2.png", "cut.png"]
    judge(line, *map(Path, left), out=out, append=True)
    written = [json.loads(text) for text in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [Path(entry["file"]).name for entry in written] == ["0.png", "1.png", "cut.png", "2.png", "cut.png"]
    assert [entry.get("overlay", "").removeprefix("overlays/") for entry in written] == [
        "000000-0-OK.png", "000001-1-OK.png", "", "000003-2-NG.png", "",
    ]  # fmt: skip
    content = (images / "0.png").read_bytes()
    (images / "0.png").write_bytes(content)
    assert [Path(file).name for file in not_judged_yet(files, out, "image")] == ["0.png", "cut.png"]


class FakeLine:
    """A line without an engine: every frame is good."""

    threshold = 0.5
    engine_name = "none"
    parity = "unverified"
    decision = "ab"
    options = EngineOptions()
    order = "rgb"

    def __init__(self, bundle):
        self.bundle = bundle
        self.input = input_of(bundle.manifest.preprocessing)

    def inspect(self, frame):
        return Verdict(
            score=0.1, verdict="OK", threshold=0.5, anomaly_map=np.zeros(frame.shape[:2], np.float32), time_ns=1
        )


def test_memory_does_not_grow_with_the_number_of_images(tiny_bundle, images):
    """As in a run over 100,000: the list of names is all that grows with them."""
    num_shown, sizes = 0, {}
    files = (str(images / "0.png"),) * 3000

    def show(_):
        nonlocal num_shown
        num_shown += 1
        if num_shown in (500, 3000):
            sizes[num_shown] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    inspect_files(FakeLine(tiny_bundle), files, show=show)
    tracemalloc.stop()
    assert sizes[3000] - sizes[500] < 50_000


def test_a_file_can_be_named_alone_whatever_its_suffix(line, images):
    (images / "0.png").rename(images / "frame.dat")
    verdicts, _ = judge(line, images / "frame.dat")
    assert [entry["verdict"] for entry in verdicts] == ["OK"]


def test_names_of_any_length_and_the_same_name_in_two_folders(line, images, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        os.link(images / "0.png", tmp_path / "set" / folder / "0.png")
    for name in ("y" * 251, "ä" * 125, "検" * 83, "\udcff" * 200):
        os.link(images / "0.png", tmp_path / "set" / f"{name}.png")
    verdicts, inspection = judge(line, tmp_path / "set", out=tmp_path / "out")
    inspection.check()
    overlays = [entry["overlay"] for entry in verdicts]
    assert len(set(overlays)) == len(verdicts) == 6
    assert all((tmp_path / "out" / name).is_file() for name in overlays)
    assert overlays[0] == "overlays/000000-0-OK.png"
    assert overlays[1] == "overlays/000001-0-OK.png"


def test_maps_are_shown_from_what_good_parts_reach(tiny_bundle):
    low, high = map_limits(tiny_bundle)
    good = tiny_bundle.golden().reference.anomaly_map[:4]
    np.testing.assert_allclose(low, np.median([np.median(item) for item in good]))
    np.testing.assert_allclose(0.5 * (low + high), np.quantile(good.max(axis=(1, 2)), 0.95))


def test_maps_are_shown_where_no_part_is_good():
    maps = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    low, high = show_limits(maps, np.zeros(2, np.bool_))
    assert (low, high) == (np.median([np.median(item) for item in maps]), 1.0)
    assert show_limits(np.zeros_like(maps), np.ones(2, np.bool_)) == (0.0, 1e-9)


def test_an_overlay_lies_where_the_graph_saw_it(tiny_bundle):
    """Frame 900, resized to 256, the middle 225 kept: a spot of the map is drawn over its own spot of the frame."""
    spec = Preprocessing.of((900, 900, 3), (256, 256), (225, 225))
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, preprocessing=spec))
    anomaly_map = np.zeros((225, 225), np.float32)
    anomaly_map[10:13, 100:103] = 1.0
    frame = np.full((900, 900, 3), 128, np.uint8)
    drawn = draw(
        frame,
        Verdict(score=1.0, verdict="NG", threshold=0.5, anomaly_map=anomaly_map, time_ns=1),
        bundle=bundle,
        limits=(0.0, 1.0),
    )
    change = np.abs(drawn.astype(np.float64) - frame).sum(axis=2)
    centre = [(np.arange(900) + 0.5) @ change.sum(axis=1 - axis) / change.sum() for axis in (0, 1)]
    # Row 11.5 of the map is row 16 + 11.5 of the resized image.
    np.testing.assert_allclose(centre, [27.5 * 900 / 256, 117.5 * 900 / 256], atol=0.1)
    assert np.flatnonzero(change.sum(axis=1)).min() >= 56
