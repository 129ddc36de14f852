import pytest

from lineproof.core.words import clause, counted


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("more good image",), "2 more good images"),
        (1, ("verdict is", "verdicts are"), "1 verdict is"),
        (7, ("verdict is", "verdicts are"), "7 verdicts are"),
    ],
)
def test_one_is_singular(number, words, text):
    assert counted(number, *words) == text


def test_a_clause_has_no_full_stop():
    assert clause(ValueError("cx is missing.")) == clause(ValueError("cx is missing")) == "cx is missing"
