"""An inspection from the request on: what is refused before anything is opened, what is said, and in which order."""

import json
from pathlib import Path

import pytest

from lineproof.bundle.store import now
from lineproof.core.errors import BadInputError, BundleError, UsageError
from lineproof.line.request import InspectionRequest, open_inspection
from lineproof.report.painter import painter
from lineproof.runtime.engine import availability


@pytest.fixture
def asked(tiny_bundle, images):
    """A function to the request for the three images; words change it."""
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.inspection}. To fix: {state.fix}")

    def make(**changes):
        words = {"bundle": tiny_bundle.path, "paths": (images,), "engine": "ort-cpu", **changes}
        return InspectionRequest(**words)

    return make


def inspected(request, **options):
    """Verdicts of a request, and how the run went."""
    verdicts = []
    with open_inspection(request, **options) as opened:
        return verdicts, opened.inspect(show=verdicts.append)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"append": True}, r"\(--append\) was given without out"),
        ({"out": Path("out"), "skip_judged": True}, r"\(--skip-judged\) was given without append"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_what_contradicts_itself_is_no_request(changes, said):
    with pytest.raises(UsageError, match=said):
        InspectionRequest(bundle=Path("gone.bundle"), paths=(Path("gone"),), **changes)


def test_verdicts_go_to_every_place_that_was_named(asked, tmp_path):
    out, place = tmp_path / "out", tmp_path / "beside.jsonl"
    verdicts, inspection = inspected(asked(out=out, sinks=(f"jsonl={place}",)), painter=painter)
    inspection.check()
    assert [entry["verdict"] for entry in verdicts] == ["OK", "OK", "NG"]
    for file in (out / "verdicts.jsonl", place):
        assert [json.loads(row) for row in file.read_text().splitlines()] == verdicts
    assert all((out / entry["overlay"]).is_file() for entry in verdicts)


def test_nothing_is_drawn_without_a_painter_nor_without_a_folder(asked, tmp_path):
    def refuse(_):
        raise AssertionError("nobody files what this would draw")

    assert len(inspected(asked(), painter=refuse)[0]) == 3
    verdicts, _ = inspected(asked(out=tmp_path / "out"))
    assert not any("overlay" in entry for entry in verdicts)
    assert not list((tmp_path / "out" / "overlays").iterdir())


def test_what_is_said_before_the_first_verdict_and_of_which_weight(asked, images, tmp_path):
    out, told = tmp_path / "out", []
    listeners = {weight: lambda sentence, weight=weight: told.append((weight, sentence)) for weight in ("note", "warn")}
    inspected(asked(out=out))
    with (out / "verdicts.jsonl").open("a") as stream:
        stream.write('{"cut')
    again = asked(paths=(images, images / "0.png"), out=out, append=True, skip_judged=True)
    verdicts, inspection = inspected(again, **listeners)
    assert verdicts == []
    assert (inspection.num_files, inspection.num_skipped) == (0, 3)
    assert [weight for weight, _ in told] == ["note", "warn", "note", "note"]
    words = [sentence for _, sentence in told]
    assert "each image is judged once" in words[0]
    assert "was never verified on this bundle" in words[1]
    assert words[2].endswith("was cut off in the middle; it was removed.")
    assert words[3] == "3 of 3 files skipped: judged before, and not changed since."


def test_a_proved_engine_gives_no_warning(asked, tiny_bundle):
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))

    def refuse(sentence):
        raise AssertionError(sentence)

    assert len(inspected(asked(require_proof=True), warn=refuse, note=refuse)[0]) == 3


def test_each_refusal_comes_before_what_stands_behind_it(asked, tmp_path):
    """Results of another run, then images, then sinks, then the bundle; nothing is made for a run that is refused."""
    gone, out = tmp_path / "gone", tmp_path / "out"
    inspected(asked(out=out))
    wrong = {"bundle": gone, "sinks": ("nosuch",), "paths": (gone,)}
    with pytest.raises(BadInputError, match="holds results of another run"), open_inspection(asked(**wrong, out=out)):
        pass
    wrong["out"] = tmp_path / "new"
    with pytest.raises(BadInputError, match="No such file or folder"), open_inspection(asked(**wrong)):
        pass
    del wrong["paths"]
    with pytest.raises(UsageError, match=r"\(--sink\) is 'nosuch'"), open_inspection(asked(**wrong)):
        pass
    del wrong["sinks"]
    with pytest.raises(BundleError, match="gone is not a bundle"), open_inspection(asked(**wrong)):
        pass
    assert not wrong["out"].exists()


def test_all_is_closed_at_the_end_also_after_an_error(asked, tmp_path):
    out, engines = tmp_path / "out", []

    def break_off(request):
        with open_inspection(request) as opened:
            engines.append(opened.line.engine)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        break_off(asked(out=out))
    with pytest.raises(UsageError, match="is closed"):
        engines[0].describe()
    # The folder is free again for the next run.
    verdicts, _ = inspected(asked(out=out, append=True))
    assert len(verdicts) == 3
