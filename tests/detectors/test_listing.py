"""The detectors and their parameters, listed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lineproof.core.errors import UsageError
from lineproof.core.registry import resolve
from lineproof.detectors.listing import describe_detectors, describe_parameters
from lineproof.detectors.table import DETECTORS


def test_every_detector_has_its_line():
    listing = describe_detectors(None)
    assert list(listing.entries) == sorted(DETECTORS)
    assert all(len(text) > 20 for text in listing.entries.values())
    assert len(listing.summary_lines()) == len(DETECTORS)


def test_parameters_of_one():
    pytest.importorskip("torch")
    entries = describe_detectors("patchcore").parameters
    assert entries["num_neighbours"] == 9
    assert entries["backbone"] == "wide_resnet50_2.tv_in1k"
    sentences = describe_detectors("patchcore").summary_lines()
    assert any(line.startswith("coreset_ratio ") for line in sentences)
    assert [line.split() for line in sentences if line.startswith(("resize_px", "crop_px"))] == [
        ["resize_px", "256x256"],
        ["crop_px", "224x224"],
    ]
    assert json.loads(json.dumps(describe_detectors("patchcore").to_dict()))["parameters"]["crop_px"] == [224, 224]
    with pytest.raises(UsageError, match=r"no detector 'patchcor'\. .*Did you mean 'patchcore'\?"):
        describe_detectors("patchcor")


def test_what_a_parameter_may_be_stands_beside_its_default():
    pytest.importorskip("torch")
    listing = describe_detectors("cutpaste")
    assert listing.allowed["density"] == "one or position"
    assert "backbone" not in listing.allowed
    lines = {line.split()[0]: line for line in listing.summary_lines() if line}
    assert lines["jitter"].split(maxsplit=1)[1] == "0.1 (from 0 to 0.5)"
    assert lines["regularisation"].split(maxsplit=1)[1] == "0.0 (0 or more; a guess)"
    assert lines["weights"].split(maxsplit=1)[1] == "random"


def test_presets_of_one():
    pytest.importorskip("torch")
    listing = describe_detectors("patchcore")
    assert list(listing.presets) == ["paper", "repo", "table4", "quick"]
    lines = listing.summary_lines()
    repo = lines.index("--preset repo: The authors' code, which does not re-weight the image score.")
    assert lines[repo + 1].strip() == "num_neighbours=1"
    assert lines[-1].endswith("resize_px=256, crop_px=256, coreset_size=2000")
    assert listing.to_dict()["presets"]["repo"]["settings"] == {"num_neighbours": 1}


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_docstrings_describe_every_parameter_and_no_other(name):
    pytest.importorskip("torch")
    config_class = resolve(DETECTORS, name, kind="detector").config_class
    described = describe_parameters(config_class)
    assert set(described) == {field.name for field in dataclasses.fields(config_class)}
    assert all(described.values())


def test_guesses_are_what_the_docstrings_call_so():
    pytest.importorskip("torch")
    listings = {name: describe_detectors(name) for name in sorted(DETECTORS)}
    assert {name for name, listing in listings.items() if listing.guesses} >= {"cutpaste", "fyd", "glance", "panda"}
    panda = listings["panda"]
    assert list(panda.guesses) == ["backbone", "num_retrieved", "fisher"]
    assert panda.guesses["num_retrieved"].endswith("The whole map is a guess, SPADE's.")
    lines = panda.summary_lines()
    assert "num_retrieved          50 (1 or more; a guess)" in lines
    assert "batch_size             32 (1 or more)" in lines
    assert 'fisher                 "" (a guess)' in lines
    assert "label_steepness        0.166667 (above 0)" in listings["nsa"].summary_lines()
    assert {"num_features", "regularisation"} <= set(listings["fyd"].guesses)
    assert "svdd_weight" in listings["patch_svdd"].guesses
    # Of Glance nothing but the size of images, the kind of weights and the rule of epochs is settled by a source.
    settled = {"weights", "resize_px", "crop_px", "keep", "patience", "distillation_source"}
    assert set(listings["glance"].parameters) - set(listings["glance"].guesses) == settled
    # One network, guessed for three methods, is a guess of each.
    assert {name for name, listing in listings.items() if "backbone" in listing.guesses} == {
        "cutpaste", "dfm", "fyd", "glance", "panda",
    }  # fmt: skip
    assert panda.to_dict()["guesses"] == panda.guesses
    # SPADE's K is the paper's: another class describes it.
    assert "num_retrieved" not in listings["spade"].guesses
