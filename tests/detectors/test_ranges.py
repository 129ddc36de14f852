"""Ranges of parameters: their ends, their words, and how a type declares them."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from lineproof.core.errors import UsageError
from lineproof.detectors.ranges import Range, allowed_values, check_values


@pytest.mark.parametrize(
    ("interval", "words", "inside", "outside"),
    [
        (Range(low=1), "1 or more", [1, 5, 1e9], [0, -1, math.nan]),
        (Range(low=0, takes_low=False), "above 0", [1e-9], [0, -1e-9, math.nan]),
        (Range(low=0, high=1), "from 0 to 1", [0, 0.5, 1], [-0.1, 1.1, math.inf]),
        (Range(low=0, high=1, takes_high=False), "from 0 to below 1", [0, 0.99], [1]),
        (Range(low=0, high=1, takes_low=False), "above 0 and at most 1", [0.01, 1], [0]),
        (Range(low=0, high=0.5, takes_low=False, takes_high=False), "above 0 and below 0.5", [0.2], [0, 0.5]),
    ],
)
def test_ends_and_words(interval, words, inside, outside):
    assert str(interval) == words
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)


@dataclass(frozen=True)
class Settings:
    share: Annotated[float, Range(low=0, high=1)] = 0.5
    word: Literal["this", "that"] = "this"
    free: str = "any"


def test_types_declare_what_is_allowed():
    assert allowed_values(Settings) == {"share": Range(low=0, high=1), "word": ("this", "that")}
    check_values(Settings(share=1.0, word="that", free="other"))
    with pytest.raises(UsageError, match=r"^share is 1\.5; expected from 0 to 1\.$"):
        check_values(Settings(share=1.5))
    with pytest.raises(UsageError, match=r"^word is 'those'; expected this or that\.$"):
        check_values(Settings(word="those"))
