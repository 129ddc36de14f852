"""Presets: which parameters a training begins from, what wins over them, and what the run keeps of it."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from lineproof.bundle.runs.folder import read_record  # noqa: E402
from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.distance.padim import Padim  # noqa: E402
from lineproof.detectors.presets import Preset  # noqa: E402
from lineproof.detectors.training.from_folder import train_detector  # noqa: E402

GIVEN = {"backbone": "test_resnet", "weights": "random", "resize_px": "64"}
TABLE = Preset(
    source="A test.",
    by_category={"flange": {"crop_px": "48x64", "num_features": 7}, "weave": {"num_features": 5}},
)


@pytest.mark.parametrize(
    ("category", "given", "size", "count"),
    [
        ("flange", {}, (48, 64), 7),
        ("weave", {"crop_px": 64}, (64, 64), 5),
        ("flange", {"num_features": "9", "crop_px": (48, 64)}, (48, 64), 9),
    ],
)
def test_a_category_has_its_own_values_and_what_is_given_wins(
    monkeypatch, sample_folder, tmp_path, category, given, size, count
):
    monkeypatch.setattr(Padim, "paper", TABLE)
    told = []
    result = train_detector(
        "padim", sample_folder, category=category, settings=GIVEN | given, out=tmp_path / "run",
        progress=lambda stage, *_: told.append(stage),
    )  # fmt: skip
    parameters = result.record.detector.parameters
    assert (parameters["crop_px"], parameters["num_features"]) == (list(size), count)
    kept = read_record(tmp_path / "run").preset
    assert kept == result.record.preset
    assert kept.name == "paper"
    assert kept.given["resize_px"] == [64, 64]
    assert kept.given.get("num_features") == (9 if "num_features" in given else None)
    # A crop that is given as the table has it changes nothing.
    assert ("crop_px" in kept.given) == (category == "weave")
    assert kept.by_category.get("num_features") == (None if "num_features" in given else count)
    sentence = kept.sentence()
    assert sentence.startswith("Preset paper: A test; for this category ")
    assert "given instead backbone=test_resnet" in sentence
    assert sentence in told
    assert told.index(sentence) < told.index("features")
    assert sentence in result.summary_lines()


def test_a_preset_that_there_is_not_is_refused_before_anything_is_read(tmp_path):
    for preset, more in (("papr", r"\."), ("repo", r"\. The authors' code is not known to differ from their paper\.")):
        with pytest.raises(UsageError, match=rf"padim has no preset '{preset}'\. It has: paper, table4, quick{more}$"):
            train_detector("padim", tmp_path / "nowhere", category=None, settings={}, out=None, preset=preset)


def test_a_category_that_the_table_lacks_is_told(monkeypatch, sample_folder, tmp_path):
    others = {"weave": {"num_features": 5}}
    monkeypatch.setattr(Padim, "paper", Preset(source="A test.", by_category=others))
    settings = {**GIVEN, "crop_px": "64"}
    result = train_detector("padim", sample_folder, category="flange", settings=settings, out=tmp_path / "run")
    preset = read_record(tmp_path / "run").preset
    assert preset.lacks == "flange"
    assert preset.sentence() in result.summary_lines()
    assert preset.sentence().endswith("; it has no values for flange, which gets the defaults.")
