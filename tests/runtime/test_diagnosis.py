"""What works here, in words."""

from __future__ import annotations

import pytest

from lineproof.runtime.diagnosis import _conflicts, examine
from lineproof.runtime.engine import ENGINES, harness_engine, names_of


def test_doctor_speaks_of_every_engine():
    found = examine()
    assert [state.name for state in found.engines] == list(names_of(lambda engine: not engine.is_harness))
    text = "\n".join(found.summary_lines())
    for state in found.engines:
        assert state.name in text
        assert state.is_available or state.fix
        assert state.is_available or f"to fix: {state.fix}" in text
    plain = found.to_dict()
    assert (
        {item["name"] for item in plain["engines"]}
        == {state.name for state in found.engines}
        == set(ENGINES) - {harness_engine()}
    )
    assert plain["environment"]["cpu"]
    assert isinstance(plain["can_train"], bool)


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({}, []),
        ({"onnxruntime": "1.20.0"}, []),
        ({"onnxruntime-gpu": "1.28.0", "tensorrt": "10.13.0"}, []),
        ({"tensorrt": "11.2.0"}, []),
        ({"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.28.0"}, ["overwrite each other's files"]),
        ({"onnxruntime-gpu": "1.28.0", "tensorrt": "11.2.0"}, ["tensorrt 11.2.0 does not serve"]),
    ],
)
def test_packages_that_harm_each_other(packages, words):
    found = _conflicts(packages)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))
