"""What works here, in words."""

from __future__ import annotations

import pytest

from lineproof.runtime.diagnosis import _conflicts, examine
from lineproof.runtime.engine import ENGINES, harness_engine, names_of


def test_doctor_speaks_of_every_engine():
    diagnosis = examine()
    assert [state.name for state in diagnosis.engines] == list(names_of(lambda engine: not engine.is_harness))
    text = "\n".join(diagnosis.summary_lines())
    for state in diagnosis.engines:
        assert state.name in text
        assert state.is_available or state.fix
        assert state.is_available or f"to fix: {state.fix}" in text
    plain = diagnosis.to_dict()
    assert (
        {item["name"] for item in plain["engines"]}
        == {state.name for state in diagnosis.engines}
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
    conflicts = _conflicts(packages)
    assert len(conflicts) == len(words)
    assert all(word in sentence for word, sentence in zip(words, conflicts, strict=True))
