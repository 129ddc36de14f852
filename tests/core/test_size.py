import re

import pytest

from lineproof.core.size import parse_size, size_text, value_text


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("256x768", (256, 768)),
        ("768X256", (768, 256)),
        ("256", (256, 256)),
        (256, (256, 256)),
        ([64, 192], (64, 192)),
        ((64, 192), (64, 192)),
        ("1x1", (1, 1)),
    ],
)
def test_height_comes_first_and_one_number_is_a_square(written, size):
    assert parse_size(written) == size
    assert size_text(written) == f"{size[0]}x{size[1]}"


@pytest.mark.parametrize(
    "written",
    ["", "x", "64x", "x64", "64x64x3", "0", "0x64", "-64", "64.0", "64 x 64", "６４", "big",
     0, -5, 64.0, True, None, [], [64, 0], [64, 64, 3], ["64", "64"], {"h": 64}],
)  # fmt: skip
def test_anything_else_is_refused(written):
    words = f"{written!r} is no size; expected HEIGHTxWIDTH, such as 256x768, or one number for a square"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        parse_size(written)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((64, 192), "64x192"),
        ([0.5, 0.25], "[0.5, 0.25]"),
        (None, "none"),
        ("", '""'),
        ("none", "none"),
        (1 / 12, "0.0833333"),
        (2e-5, "2e-05"),
        (1.0, "1.0"),
        (10000.0, "10000.0"),
        (1234567, "1234567"),
        (True, "True"),
    ],
)
def test_parameters_are_written_for_people(value, text):
    assert value_text(value) == text
