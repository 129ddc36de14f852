"""Files to verdicts: a bad file is one ERR line, and the rest goes on."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.core.spec import Preprocessing
from lineproof.runtime.engine import availability
from lineproof.workflows.inspection import find_images, inspect_files, map_limits, open_line, seen_part, show_limits


@pytest.fixture
def line(tiny_bundle):
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.found}. To fix: {state.fix}")
    with open_line(tiny_bundle.path, engine="ort-cpu") as opened:
        yield opened


@pytest.fixture
def spoiled(pictures):
    """The three pictures, and between them a truncated, a larger, an empty and a text file."""
    whole = (pictures / "0.png").read_bytes()
    (pictures / "0b-cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (40, 30)).save(pictures / "1b-large.png")
    (pictures / "1c-empty.png").write_bytes(b"")
    (pictures / "1d-text.png").write_text("no picture")
    return pictures


def test_verdicts_are_those_of_the_frames(line, pictures):
    found = inspect_files(line, [pictures])
    found.check()
    assert [entry["verdict"] for entry in found.verdicts] == ["OK", "OK", "NG"]
    for entry in found.verdicts:
        frame = np.asarray(Image.open(entry["file"]))
        np.testing.assert_allclose(entry["score"], frame.mean(2).max() / 255, rtol=1e-6)
        assert entry["threshold"] == line.threshold
        assert entry["time_ms"] > 0
        assert "error" not in entry


def test_bad_files_are_err_and_the_rest_goes_on(line, spoiled):
    told = []
    found = inspect_files(line, [spoiled], progress=lambda *item: told.append(item))
    verdicts = {entry["file"].rpartition("/")[2]: entry for entry in found.verdicts}
    assert {name: entry["verdict"] for name, entry in verdicts.items()} == {
        "0.png": "OK", "0b-cut.png": "ERR", "1.png": "OK", "1b-large.png": "ERR", "1c-empty.png": "ERR",
        "1d-text.png": "ERR", "2.png": "NG",
    }  # fmt: skip
    for entry in found.verdicts:
        assert (entry["score"] is None) == (entry["verdict"] == "ERR") == ("error" in entry)
    assert "uint8 (1, 30, 40, 3)" in verdicts["1b-large.png"]["error"]
    assert found.num_errors == 4
    assert told[-1] == ("inspecting", 7, 7)
    with pytest.raises(BadInputError, match=r"4 of 7 files gave no verdict; see the ERR lines") as error:
        found.check()
    assert error.value.exit_status == 1
    assert [json.loads(text) for text in found.sentences()] == list(found.verdicts)
    assert found.to_dict()["num_errors"] == 4


def test_verdicts_and_overlays_are_written(line, spoiled, tmp_path):
    out = tmp_path / "out" / "deep"
    found = inspect_files(line, [spoiled], out=out)
    written = [json.loads(text) for text in (out / "verdicts.jsonl").read_text().splitlines()]
    assert written == list(found.verdicts)
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        "00000-0-OK.png", "00002-1-OK.png", "00006-2-NG.png",
    ]  # fmt: skip
    for entry in written:
        assert ("overlay" in entry) == (entry["verdict"] != "ERR")
    drawn = np.asarray(Image.open(out / written[6]["overlay"]))
    assert drawn.shape == (12, 16, 3)
    frame = np.asarray(Image.open(spoiled / "2.png"))
    assert np.abs(drawn.astype(int) - frame).max() > 20


def test_a_file_can_be_named_alone_whatever_its_suffix(line, pictures):
    (pictures / "0.png").rename(pictures / "frame.dat")
    assert [entry["verdict"] for entry in inspect_files(line, [pictures / "frame.dat"]).verdicts] == ["OK"]


def test_folders_are_searched_below_and_in_order(pictures):
    (pictures / "b" / "c").mkdir(parents=True)
    (pictures / "0.png").rename(pictures / "b" / "c" / "0.png")
    (pictures / "notes.txt").write_text("x")
    (pictures / ".hidden.png").write_bytes(b"x")
    found = [path.relative_to(pictures).as_posix() for path in find_images([pictures / "2.png", pictures])]
    assert found == ["2.png", "1.png", "2.png", "b/c/0.png"]


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"No such file or folder: .*absent, .*gone\.png"):
        find_images([tmp_path, tmp_path / "absent", tmp_path / "gone.png"])
    with pytest.raises(BadInputError, match=r"No image below .*Expected PNG, JPEG, BMP, TIFF or WebP"):
        find_images([tmp_path])


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


@pytest.mark.parametrize(
    ("sizes", "rows", "columns"),
    [
        ((12, 16, 3, 12, 16, 12, 16), (0, 12), (0, 16)),
        ((512, 512, 3, 256, 256, 224, 224), (32, 480), (32, 480)),
        ((100, 300, 3, 256, 256, 224, 128), (6, 94), (75, 225)),
    ],
)
def test_seen_part_is_what_the_crop_keeps(tiny_bundle, sizes, rows, columns):
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, preprocessing=Preprocessing(*sizes)))
    assert seen_part(bundle) == (slice(*rows), slice(*columns))
