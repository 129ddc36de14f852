"""Words of the command line as values."""

from __future__ import annotations

import pytest

from lineproof.commands._parse import (
    parse_batches,
    parse_engine_pair,
    parse_frame,
    parse_min_used,
    parse_settings,
    parse_share,
    parse_tiles,
)
from lineproof.core.errors import UsageError
from lineproof.core.tiles import Tiles


@pytest.mark.parametrize(
    ("text", "value"), [("1024x1280", (1024, 1280, 3)), ("12X16x1", (12, 16, 1)), ("5x6x3", (5, 6, 3))]
)
def test_frame(text, value):
    assert parse_frame(text) == value


@pytest.mark.parametrize(
    "text", ["", "12", "12x", "x12", "12x16x1x2", "-1x2", "0x5", "12.5x3", "12 x 16", "a x b", "²x2"]
)
def test_no_frame(text):
    with pytest.raises(UsageError, match=r"expected HEIGHTxWIDTH or HEIGHTxWIDTHx1 for mono, for example 1024x1280"):
        parse_frame(text)


@pytest.mark.parametrize(("text", "value"), [("1", (1,)), ("1:4:8", (1, 4, 8)), ("1:1:8", (1, 1, 8))])
def test_batches(text, value):
    assert parse_batches(text) == value


@pytest.mark.parametrize("text", ["", "0", "8:4", "1:", ":1", "1,2", "-1", "1:0", "x", "²"])
def test_no_batches(text):
    with pytest.raises(UsageError, match=r"expected rising numbers such as 1, 8 or 1:4:8"):
        parse_batches(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("0%", 0.0), ("0.5%", 0.005), ("99%", 0.99)]
)
def test_share(text, value):
    assert parse_share(text) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("text", ["", "%", "1", "100%", "-1%", "nan", "inf", "1 percent", "1%%", "nan%"])
def test_no_share(text):
    with pytest.raises(UsageError, match=r"expected a share such as 1% or 0\.01"):
        parse_share(text)


@pytest.mark.parametrize(("text", "value"), [("90%", 0.9), ("0.5", 0.5), ("0", 0.0), ("100%", 1.0), ("1", 1.0)])
def test_share_that_must_be_used(text, value):
    assert parse_min_used(text) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", "nan", "1.1", "most"])
def test_no_share_that_must_be_used(text):
    with pytest.raises(UsageError, match=r"--min-used is .*expected a share such as 90% or 0\.9"):
        parse_min_used(text)


def test_settings():
    assert parse_settings(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for wrong in ("a", "=1", ""):
        with pytest.raises(UsageError, match=rf"--set {wrong}: expected KEY=VALUE"):
            parse_settings(["ok=1", wrong])


def test_one_engine_is_both_sides_and_two_are_one_each():
    assert parse_engine_pair(["a"]) == ("a", "a")
    assert parse_engine_pair(["a", "b"]) == ("a", "b")
    with pytest.raises(UsageError, match="--engine was given 3 times; expected once, or twice for left and right"):
        parse_engine_pair(["a", "b", "c"])


def test_tiles():
    assert parse_tiles("512x640", overlap=64) == Tiles(height_px=512, width_px=640, overlap_px=64)
    assert parse_tiles("512", overlap=None) == Tiles(height_px=512, width_px=512, overlap_px=0)
    assert parse_tiles(None, overlap=None) is None


@pytest.mark.parametrize(
    ("text", "overlap", "words"),
    [
        (None, 64, r"--overlap is 64, but there are no tiles\. Give --tiles HEIGHTxWIDTH as well"),
        ("512x", None, r"--tiles: '512x' is no size"),
        ("64x32", 32, r"overlap \(--overlap\) is 32 px for tiles of 64x32; expected 0 or more, and less than"),
        ("native", None, r"tiles \(--tiles\) are 0x0; expected 1 pixel or more"),
    ],
)
def test_no_tiles(text, overlap, words):
    with pytest.raises(UsageError, match=words):
        parse_tiles(text, overlap=overlap)
