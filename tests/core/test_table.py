"""Tables that fit a terminal."""

import pytest

from lineproof.core.table import aligned, wrapped

HEADER = ("name", "one", "two", "three")
ROWS = [("a", "1.0", "2", "3"), ("a longer name", "-", "22222", "3")]


def test_columns_are_padded_to_one_width():
    assert aligned(HEADER, ROWS) == (
        "name           one    two  three\n"
        "a              1.0      2      3\n"
        "a longer name    -  22222      3"
    )  # fmt: skip


def test_a_table_that_fits_is_left_alone():
    assert aligned(HEADER, ROWS, width=32) == aligned(HEADER, ROWS)


def test_columns_that_do_not_fit_go_into_blocks_below():
    assert aligned(HEADER, ROWS, width=27) == (
        "name           one    two\n"
        "a              1.0      2\n"
        "a longer name    -  22222\n"
        "\n"
        "name           three\n"
        "a                  3\n"
        "a longer name      3"
    )  # fmt: skip


def test_a_name_that_is_too_long_is_wrapped_before_columns_are_moved():
    name = "fastflow resnet18 256 px fp32 on openvino (a.bundle), measured"
    assert aligned(("name", "one", "two"), [(name, "1", "2")], width=50) == (
        "name                                      one  two\n"
        "fastflow resnet18 256 px fp32 on            1    2\n"
        "  openvino (a.bundle), measured"
    )


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("num_columns", [1, 2, 7, 18, 40])
def test_no_line_is_too_long_and_no_cell_is_lost(width, num_columns):
    header = ("method", *(f"column{i}" for i in range(num_columns)))
    rows = [("m" * 90, *(f"{i}.5" for i in range(num_columns))), ("short", *("-" for _ in range(num_columns)))]
    lines = aligned(header, rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [word for line in lines if line.startswith("method") for word in line.split()[1:]] == list(header[1:])
    cells = [word for line in lines if line.startswith("mmm") for word in line.split()[1:]]
    assert cells == [f"{i}.5" for i in range(num_columns)]


def test_sentences_are_wrapped_and_indented():
    assert wrapped("* one two three", width=10) == "* one two\n  three"
    assert wrapped("  an indent that is kept", width=14) == "  an indent\n  that is kept"
    assert wrapped("see a/path-that-is/long.png for it", width=12) == "see\n  a/path-that-is/long.png\n  for it"
