"""Reports are filed where they can be; where they cannot, a sentence says so and nothing is lost."""

import errno
import json
import os
from multiprocessing.pool import ThreadPool

import pytest

from lineproof.bundle import atomic, reports
from lineproof.bundle.reports import check_record, file_report
from lineproof.core.errors import BadInputError


@pytest.fixture
def read_only(monkeypatch):
    """Writing below the folder named answers as a read-only file system does, root or not."""

    def refuse(folder):
        real = os.replace

        def replace(source, target):
            if str(target).startswith(str(folder)):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(source))
            real(source, target)

        monkeypatch.setattr(atomic.os, "replace", replace)

    return refuse


def test_into_the_bundle(tiny_bundle):
    assert file_report(tiny_bundle, "profile.json", {"engine": "a"}) == ""
    assert file_report(tiny_bundle, "profile.json", {"engine": "b"}) == ""
    entries = json.loads((tiny_bundle.path / "profile.json").read_text())
    assert [entry["engine"] for entry in entries] == ["a", "b"]
    assert all(entry["time"] for entry in entries)


def test_a_bundle_that_cannot_be_written_is_a_warning(tiny_bundle, read_only):
    read_only(tiny_bundle.path)
    warning = file_report(tiny_bundle, "profile.json", {"engine": "a"})
    path = tiny_bundle.path / "profile.json"
    assert warning == (
        f"The report was not kept. {path}: read-only file system. Name a folder that can be written. "
        "`--record DIR` names a folder that takes it."
    )
    assert not path.exists()
    assert not [item for item in tiny_bundle.path.iterdir() if item.name.endswith(".tmp")]


def test_another_folder_takes_it(tiny_bundle, read_only, tmp_path):
    read_only(tiny_bundle.path)
    before = sorted(item.name for item in tiny_bundle.path.iterdir())
    record = tmp_path / "kept" / "here"
    check_record(record)
    for engine in ("a", "b"):
        assert file_report(tiny_bundle, "proof.json", {"engine": engine}, record=record) == ""
    assert [entry["engine"] for entry in json.loads((record / "proof.json").read_text())] == ["a", "b"]
    assert sorted(item.name for item in tiny_bundle.path.iterdir()) == before


def test_many_writers_of_one_folder_lose_nothing(tiny_bundle, tmp_path):
    with ThreadPool(8) as pool:
        kept = pool.map(lambda n: file_report(tiny_bundle, "proof.json", {"n": n}, record=tmp_path / "kept"), range(64))
    assert kept == [""] * 64
    entries = json.loads((tmp_path / "kept" / "proof.json").read_text())
    assert sorted(entry["n"] for entry in entries) == [*range(64)]


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "\udcff"])
def test_what_is_no_list_is_left_as_it_is(tiny_bundle, tmp_path, content):
    path = tmp_path / "profile.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    warning = file_report(tiny_bundle, "profile.json", {}, record=tmp_path)
    assert warning.startswith(f"The report was not kept. {path} is no JSON list")
    assert path.read_bytes() == content.encode(errors="surrogateescape")


def test_the_folder_is_asked_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        BadInputError, match=r"record \(--record\) is .*file, which cannot take a report\. .*: file exists"
    ):
        check_record(tmp_path / "file")
    with pytest.raises(BadInputError, match=r"not a directory\. A part of the path is a file"):
        check_record(tmp_path / "file" / "below")
    monkeypatch.setattr(reports.os, "access", lambda *_: False)
    with pytest.raises(BadInputError, match="it is not writable"):
        check_record(tmp_path)
    check_record(None)
