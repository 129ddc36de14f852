"""The image of the floors is drawn from the imports as they are, and can be read."""

import importlib.util
import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("grimp")

DOCS = Path(__file__).resolve().parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
#: A monospaced letter of the names, 15 px high, is narrower than this; so is the others' average letter, 13 px high.
LETTER_PX = {"name": 9.1}
OTHER_LETTER_PX = 7.2


def load_drawer():
    spec = importlib.util.spec_from_file_location("draw_floors", DOCS / "draw_floors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DRAWER = load_drawer()


@pytest.fixture(scope="module")
def drawn():
    return DRAWER.draw()


def test_the_image_shows_the_imports_of_today(drawn):
    assert DRAWER.IMAGE.read_text(encoding="utf-8") == drawn, "run: python docs/draw_floors.py"


def test_every_folder_is_in_it_and_every_arrow_goes_down(drawn):
    root = ElementTree.fromstring(drawn)
    names = [text.text.removesuffix("/").removesuffix(".py") for text in root.iter(f"{SVG}text")
             if text.get("class") == "name"]  # fmt: skip
    folders = {path.parent.name for path in DOCS.parent.glob("*/__init__.py")}
    assert set(names) == folders | {"cli"}
    arrows = [title.text.split(" imports ") for title in root.iter(f"{SVG}title") if " imports " in title.text]
    assert len(arrows) >= len(names) - 1
    assert all(names.index(source) < names.index(target) for source, target in arrows)
    assert ["cli", "commands"] in arrows


def test_no_text_lies_on_another(drawn):
    spans = {}
    for text in ElementTree.fromstring(drawn).iter(f"{SVG}text"):
        kind, x, y = text.get("class", ""), float(text.get("x")), float(text.get("y"))
        width = LETTER_PX.get(kind, OTHER_LETTER_PX) * len(text.text or "")
        spans.setdefault(y, []).append((x - width, x) if kind == "right" else (x, x + width))
    for row in spans.values():
        row.sort()
        assert all(left[1] < right[0] for left, right in itertools.pairwise(row))
        assert row[0][0] >= 0
        assert row[-1][1] <= DRAWER.WIDTH


def test_edges_that_follow_are_left_out():
    edges = {("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("c", "e"), ("a", "e")}
    assert DRAWER.without_those_that_follow(edges) == {("a", "b"), ("b", "c"), ("a", "d"), ("c", "e")}


def test_arrows_in_one_lane_do_not_meet():
    rows = {name: row for row, name in enumerate("abcde")}
    arrows = DRAWER.put_in_lanes({("a", "b"), ("b", "c"), ("a", "e"), ("c", "e")}, rows)
    assert {(item.source, item.target): item.lane for item in arrows} == {
        ("a", "b"): 0, ("b", "c"): 0, ("c", "e"): 0, ("a", "e"): 1,
    }  # fmt: skip
