"""Which files are meant: each once, whatever links there are, and never what an earlier run wrote."""

import json
import os
from pathlib import Path

import pytest

from lineproof.core.errors import BadInputError
from lineproof.line.images import find_images, holds_results

LINE = json.dumps({"file": "a.png", "verdict": "OK", "score": 0.1, "threshold": 0.5}) + "\n"


def names(result, folder):
    return [Path(file).relative_to(folder).as_posix() for file in result.files]


def results(folder):
    """A folder as a run leaves it."""
    (folder / "overlays").mkdir(parents=True)
    (folder / "verdicts.jsonl").write_text(LINE)
    (folder / "overlays" / "000000-a-OK.png").write_bytes(b"x")
    return folder


def test_folders_are_searched_below_and_in_order(images):
    (images / "b" / "c").mkdir(parents=True)
    (images / "0.png").rename(images / "b" / "c" / "0.png")
    (images / "notes.txt").write_text("x")
    (images / ".hidden.png").write_bytes(b"x")
    result = find_images([images])
    assert names(result, images) == ["1.png", "2.png", "b/c/0.png"]
    assert result.notes == ()


def test_a_image_named_twice_counts_once(images):
    result = find_images([images / "2.png", images])
    assert names(result, images) == ["2.png", "0.png", "1.png"]
    assert result.notes == (
        f"1 more path or link leads to files or folders that were visited before, first {images / '2.png'}: each "
        "image is judged once.",
    )


def test_a_circle_of_links_ends(images):
    (images / "below").mkdir()
    (images / "below" / "up").symlink_to(images)
    (images / "self").symlink_to(images / "self")
    (images / "self.png").symlink_to("self.png")
    (images / "gone.png").symlink_to("nowhere.png")
    result = find_images([images])
    assert names(result, images) == ["0.png", "1.png", "2.png"]
    assert "1 more path" in result.notes[0]
    assert str(images / "below" / "up") in result.notes[0]


def test_through_two_links_once_and_under_its_own_name(images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (images / "0.png").rename(other / "far.png")
    (images / "a-link.png").symlink_to("1.png")
    (images / "x.png").symlink_to(other / "far.png")
    (images / "y.png").symlink_to(other / "far.png")
    (images / "a-folder").symlink_to(images / "real")
    (images / "real").mkdir()
    (images / "2.png").rename(images / "real" / "2.png")
    result = find_images([images])
    assert names(result, images) == ["1.png", "real/2.png", "x.png"]
    assert "3 more paths or links" in result.notes[0]


def test_a_folder_that_only_a_link_leads_to_is_read(images, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "day").symlink_to(images)
    assert names(find_images([tmp_path / "set"]), tmp_path / "set") == ["day/0.png", "day/1.png", "day/2.png"]
    # Two names of one file are two images: only links are the same one.
    os.link(images / "0.png", images / "0b.png")
    assert len(find_images([images]).files) == 4


def test_results_are_never_read(images):
    results(images / "inspected")
    result = find_images([images])
    assert names(result, images) == ["0.png", "1.png", "2.png"]
    assert result.notes == (f"Left out, since results of this command lie there: {images / 'inspected'}.",)
    assert holds_results(images / "inspected")
    (images / "link").symlink_to(images / "inspected" / "overlays")
    assert names(find_images([images]), images) == ["0.png", "1.png", "2.png"]
    (images / "out").mkdir()
    (images / "out" / "old.png").write_bytes(b"x")
    result = find_images([images], out=images / "out")
    assert "out/old.png" not in names(result, images)
    assert str(images / "out") in result.notes[0]


@pytest.mark.parametrize("name", ["", "overlays", "overlays/000000-a-OK.png"])
def test_results_given_as_images_are_refused(tmp_path, monkeypatch, name):
    results(tmp_path / "r")
    with pytest.raises(BadInputError, match=r"is a result of an earlier `lineproof run` \(.*verdicts\.jsonl\)"):
        find_images([tmp_path / "r" / name])
    monkeypatch.chdir(tmp_path / "r" / "overlays")
    with pytest.raises(BadInputError, match="is a result of an earlier"):
        find_images([Path("000000-a-OK.png")])


def test_results_among_the_images_are_refused(images, monkeypatch):
    with pytest.raises(BadInputError, match=r"out \(--out\) is .*, the folder of the images"):
        find_images([images], out=images)
    monkeypatch.chdir(images)
    with pytest.raises(BadInputError, match=r"out \(--out\) is \., the folder of the images"):
        find_images([Path()], out=images)


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", "no json\n", '{"file": 1}\n'])
def test_a_file_of_that_name_by_somebody_else_is_no_result(images, content):
    (images / "verdicts.jsonl").write_text(content)
    assert not holds_results(images)
    assert len(find_images([images]).files) == 3


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"No such file or folder: .*absent, .*gone\.png"):
        find_images([tmp_path, tmp_path / "absent", tmp_path / "gone.png"])
    with pytest.raises(BadInputError, match=r"No image below .*Expected PNG, JPEG, BMP, TIFF or WebP"):
        find_images([tmp_path])
    results(tmp_path / "r")
    with pytest.raises(BadInputError, match=r"No image below .*Left out, since results of this command lie there"):
        find_images([tmp_path])
