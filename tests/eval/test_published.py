"""The published numbers: official names, possible values, averages that follow from their cells, and a source each."""

import json
from importlib.resources import files
from statistics import fmean

import pytest

from lineproof.data.counts import MVTEC_3D_AD, MVTEC_AD

PUBLISHED = json.loads((files("lineproof.eval") / "published.json").read_text(encoding="utf-8"))
TABLES = PUBLISHED["tables"]
SCORES = [number for number in TABLES if number != "3"]
OFFICIAL = {"mvtec-ad": frozenset(MVTEC_AD), "mvtec-3d-ad": frozenset(MVTEC_3D_AD)}
TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
GROUPS = {
    "mvtec-ad": {"textures": TEXTURES, "objects": frozenset(MVTEC_AD) - TEXTURES, "all": frozenset(MVTEC_AD)},
    "mvtec-3d-ad": {"all": frozenset(MVTEC_3D_AD)},
}
CEILING = {"percent": 100.0, "fraction": 1.0}
#: Printed averages are rounded once, the cells under them too.
TOLERANCE_POINTS = 0.15
ROWS = [(number, method) for number, table in TABLES.items() for method in table["rows"]]
SCORED = [(number, method) for number, method in ROWS if number in SCORES]


def excused(number, method):
    """Averages of a row that a footnote says do not follow from its cells."""
    notes = (note["applies_to"] for note in TABLES[number]["footnotes"])
    return {average for note in notes if method in note["methods"] for average in note.get("averages", ())}


def gaps(number, method):
    """How far each printed average, in points, lies from the mean of its cells; only where all cells are there."""
    table = TABLES[number]
    row = table["rows"][method]
    cells = row.get("categories", {})
    points = 100.0 / CEILING[table["unit"]]
    return {
        name: abs(fmean(cells[category] for category in members) - row["averages"][name]) * points
        for name, members in GROUPS[table["dataset"]].items()
        if name in row["averages"] and members <= cells.keys()
    }


def test_the_file_holds_the_five_tables_and_says_whose_they_are():
    assert "arXiv 2205.14852" in PUBLISHED["citation"]
    assert list(TABLES) == ["1", "2", "3", "5", "6"]
    assert [TABLES[number]["metric"] for number in SCORES] == ["image_auroc", "pixel_auroc", "image_auroc", "aupro"]


@pytest.mark.parametrize(("number", "method"), ROWS)
def test_every_row_has_a_name_and_a_source(number, method):
    row = TABLES[number]["rows"][method]
    assert row["name"].strip()
    assert "Zheng et al. 2022, Table " + number in row["source"]


@pytest.mark.parametrize(("number", "method"), SCORED)
def test_categories_and_averages_have_official_names(number, method):
    table = TABLES[number]
    row = table["rows"][method]
    assert row.get("categories", {}).keys() <= OFFICIAL[table["dataset"]]
    assert row["averages"]
    assert row["averages"].keys() <= GROUPS[table["dataset"]].keys()


@pytest.mark.parametrize(("number", "method"), SCORED)
def test_values_lie_in_the_range_of_their_unit(number, method):
    table = TABLES[number]
    row = table["rows"][method]
    values = [*row.get("categories", {}).values(), *row["averages"].values()]
    assert all(isinstance(value, float) for value in values)
    assert all(0.0 < value <= CEILING[table["unit"]] for value in values)
    if table["unit"] == "percent":
        assert min(values) > 1.0, "a fraction among percents"


@pytest.mark.parametrize("method", TABLES["3"]["rows"])
def test_complexity_has_known_columns_and_possible_values(method):
    row = TABLES["3"]["rows"][method]
    figures = {name: value for name, value in row.items() if name not in {"name", "source"}}
    assert figures
    assert figures.keys() <= {"fps", "time_ms", "extra_parameters_m"}
    assert all(value > 0 or (name == "extra_parameters_m" and value == 0) for name, value in figures.items())


@pytest.mark.parametrize(("number", "method"), SCORED)
def test_averages_follow_from_the_cells_unless_a_footnote_says_otherwise(number, method):
    far = {name for name, gap in gaps(number, method).items() if gap > TOLERANCE_POINTS}
    assert far == excused(number, method)


def test_the_averages_are_checked_where_they_can_be():
    checked = {number: sum(bool(gaps(number, method)) for method in TABLES[number]["rows"]) for number in SCORES}
    assert checked == {"1": 10, "2": 12, "5": 12, "6": 12}


@pytest.mark.parametrize("number", TABLES)
def test_footnotes_apply_to_rows_and_cells_that_exist(number):
    table = TABLES[number]
    assert table["footnotes"]
    for note in table["footnotes"]:
        applies_to = note["applies_to"]
        assert note["text"].endswith(".")
        assert applies_to["methods"]
        assert applies_to.keys() <= {"methods", "categories", "averages"}
        for method in applies_to["methods"]:
            row = table["rows"][method]
            assert set(applies_to.get("categories", ())) <= row.get("categories", {}).keys()
            assert set(applies_to.get("averages", ())) <= row.get("averages", {}).keys()
