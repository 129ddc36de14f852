"""The detectors and their parameters, listed."""

from __future__ import annotations

import json

import pytest

from lineproof.core.errors import UsageError
from lineproof.detectors.listing import describe_detectors
from lineproof.detectors.table import DETECTORS


def test_every_detector_has_its_line():
    listing = describe_detectors(None)
    assert list(listing.entries) == sorted(DETECTORS)
    assert all(len(text) > 20 for text in listing.entries.values())
    assert len(listing.summary_lines()) == len(DETECTORS)


def test_parameters_of_one():
    pytest.importorskip("torch")
    entries = describe_detectors("patchcore").entries
    assert entries["num_neighbours"] == 9
    assert entries["backbone"] == "wide_resnet50_2"
    sentences = describe_detectors("patchcore").summary_lines()
    assert any(line.startswith("coreset_ratio ") for line in sentences)
    assert [line.split() for line in sentences if "_px" in line] == [["resize_px", "256x256"], ["crop_px", "224x224"]]
    assert json.loads(json.dumps(describe_detectors("patchcore").to_dict()))["crop_px"] == [224, 224]
    with pytest.raises(UsageError, match=r"no detector 'patchcor'\. .*Did you mean 'patchcore'\?"):
        describe_detectors("patchcor")
