"""Which files are meant: each once, whatever links there are, and never what an earlier run wrote."""

import json
import os
from pathlib import Path

import pytest

from lineproof.core.errors import BadInputError
from lineproof.line.images import find_pictures, holds_results

LINE = json.dumps({"file": "a.png", "verdict": "OK", "score": 0.1, "threshold": 0.5}) + "\n"


def names(found, folder):
    return [Path(file).relative_to(folder).as_posix() for file in found.files]


def results(folder):
    """A folder as a run leaves it."""
    (folder / "overlays").mkdir(parents=True)
    (folder / "verdicts.jsonl").write_text(LINE)
    (folder / "overlays" / "000000-a-OK.png").write_bytes(b"x")
    return folder


def test_folders_are_searched_below_and_in_order(pictures):
    (pictures / "b" / "c").mkdir(parents=True)
    (pictures / "0.png").rename(pictures / "b" / "c" / "0.png")
    (pictures / "notes.txt").write_text("x")
    (pictures / ".hidden.png").write_bytes(b"x")
    found = find_pictures([pictures])
    assert names(found, pictures) == ["1.png", "2.png", "b/c/0.png"]
    assert found.notes == ()


def test_a_picture_named_twice_counts_once(pictures):
    found = find_pictures([pictures / "2.png", pictures])
    assert names(found, pictures) == ["2.png", "0.png", "1.png"]
    assert found.notes == (
        f"1 more path or link leads to what was taken already, first {pictures / '2.png'}: each picture is "
        "judged once.",
    )


def test_a_circle_of_links_ends(pictures):
    (pictures / "below").mkdir()
    (pictures / "below" / "up").symlink_to(pictures)
    (pictures / "self").symlink_to(pictures / "self")
    (pictures / "self.png").symlink_to("self.png")
    (pictures / "gone.png").symlink_to("nowhere.png")
    found = find_pictures([pictures])
    assert names(found, pictures) == ["0.png", "1.png", "2.png"]
    assert "1 more path" in found.notes[0]
    assert str(pictures / "below" / "up") in found.notes[0]


def test_through_two_links_once_and_under_its_own_name(pictures, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (pictures / "0.png").rename(other / "far.png")
    (pictures / "a-link.png").symlink_to("1.png")
    (pictures / "x.png").symlink_to(other / "far.png")
    (pictures / "y.png").symlink_to(other / "far.png")
    (pictures / "a-folder").symlink_to(pictures / "real")
    (pictures / "real").mkdir()
    (pictures / "2.png").rename(pictures / "real" / "2.png")
    found = find_pictures([pictures])
    assert names(found, pictures) == ["1.png", "real/2.png", "x.png"]
    assert "3 more paths or links" in found.notes[0]


def test_a_folder_that_only_a_link_leads_to_is_read(pictures, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "day").symlink_to(pictures)
    assert names(find_pictures([tmp_path / "set"]), tmp_path / "set") == ["day/0.png", "day/1.png", "day/2.png"]
    # Two names of one file are two pictures: only links are the same one.
    os.link(pictures / "0.png", pictures / "0b.png")
    assert len(find_pictures([pictures]).files) == 4


def test_results_are_never_read(pictures):
    results(pictures / "inspected")
    found = find_pictures([pictures])
    assert names(found, pictures) == ["0.png", "1.png", "2.png"]
    assert found.notes == (f"Left out, since results of this command lie there: {pictures / 'inspected'}.",)
    assert holds_results(pictures / "inspected")
    (pictures / "link").symlink_to(pictures / "inspected" / "overlays")
    assert names(find_pictures([pictures]), pictures) == ["0.png", "1.png", "2.png"]
    (pictures / "out").mkdir()
    (pictures / "out" / "old.png").write_bytes(b"x")
    found = find_pictures([pictures], out=pictures / "out")
    assert "out/old.png" not in names(found, pictures)
    assert str(pictures / "out") in found.notes[0]


@pytest.mark.parametrize("name", ["", "overlays", "overlays/000000-a-OK.png"])
def test_results_given_as_pictures_are_refused(tmp_path, monkeypatch, name):
    results(tmp_path / "r")
    with pytest.raises(BadInputError, match=r"is a result of an earlier `lineproof run` \(.*verdicts\.jsonl\)"):
        find_pictures([tmp_path / "r" / name])
    monkeypatch.chdir(tmp_path / "r" / "overlays")
    with pytest.raises(BadInputError, match="is a result of an earlier"):
        find_pictures([Path("000000-a-OK.png")])


def test_results_among_the_pictures_are_refused(pictures, monkeypatch):
    with pytest.raises(BadInputError, match=r"--out .* is the folder of the pictures"):
        find_pictures([pictures], out=pictures)
    monkeypatch.chdir(pictures)
    with pytest.raises(BadInputError, match=r"--out \. is the folder of the pictures"):
        find_pictures([Path()], out=pictures)


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", "no json\n", '{"file": 1}\n'])
def test_a_file_of_that_name_by_somebody_else_is_no_result(pictures, content):
    (pictures / "verdicts.jsonl").write_text(content)
    assert not holds_results(pictures)
    assert len(find_pictures([pictures]).files) == 3


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"No such file or folder: .*absent, .*gone\.png"):
        find_pictures([tmp_path, tmp_path / "absent", tmp_path / "gone.png"])
    with pytest.raises(BadInputError, match=r"No image below .*Expected PNG, JPEG, BMP, TIFF or WebP"):
        find_pictures([tmp_path])
    results(tmp_path / "r")
    with pytest.raises(BadInputError, match=r"No image below .*Left out, since results of this command lie there"):
        find_pictures([tmp_path])
