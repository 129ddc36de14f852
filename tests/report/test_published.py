"""The published numbers: the paper's tables cell by cell, other sources beside them, and tables that fit a terminal."""

import csv
import json
from importlib.resources import files
from pathlib import Path
from statistics import fmean

import pytest

from lineproof.core.registry import resolve
from lineproof.data.counts import MVTEC_3D_AD, MVTEC_AD
from lineproof.detectors.table import DETECTORS
from lineproof.report.published import paper_table, published, speed_table

TABLES = published()["tables"]
SCORES = ["1", "2", "5", "6"]
DATA = Path(__file__).parent / "data"
#: The same tables where they were transcribed, kept outside the project.
SHARED = Path(__file__).resolve().parents[3] / "shared" / "paper"
OFFICIAL = {"mvtec-ad": frozenset(MVTEC_AD), "mvtec-3d-ad": frozenset(MVTEC_3D_AD)}
#: Detectors of ours that are none of the methods that the tables compare.
BESIDE = frozenset({"dfm", "efficient_ad", "stfpm"})
TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
GROUPS = {
    "mvtec-ad": {"textures": TEXTURES, "objects": frozenset(MVTEC_AD) - TEXTURES, "all": frozenset(MVTEC_AD)},
    "mvtec-3d-ad": {"all": frozenset(MVTEC_3D_AD)},
}
CEILING = {"percent": 100.0, "fraction": 1.0}
#: Printed averages are rounded once, the cells under them too.
TOLERANCE_POINTS = 0.15
ROWS = [(number, method) for number, table in TABLES.items() for method in table["paper"]]
SCORED = [(number, method) for number, method in ROWS if number in SCORES]
OTHERS = [(number, method) for number in SCORES for method in TABLES[number]["other"]]
AVERAGES = {"average textures": "textures", "average objects": "objects", "Average-all": "all", "average": "all"}


def read_tsv(path):
    """Rows of a transcribed table: (heading, cells), the first the header."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1:]) for row in csv.reader(file, delimiter="\t")]


def as_printed(number):
    """Our table in the form of the transcribed one, numbers as numbers and None where the paper prints a dash."""
    rows = TABLES[number]["paper"].values()
    if number == "3":
        columns = ("fps", "time_ms", "extra_parameters_m")
        return [(row["name"], [row[column] for column in columns]) for row in rows]
    if number == "4":
        return [(row["name"], [row["backbone"], ", ".join(map(str, row["input_sizes_px"]))]) for row in rows]
    cells = [{**row["categories"], **row["averages"]} for row in rows]
    return [(name, [row[name] for row in cells]) for name in cells[0]]


def transcribed(path, number):
    """The transcribed table without its header, its row names as ours."""
    rows = read_tsv(path)[1:]
    if number == "4":
        return rows
    names = (lambda name: name) if number == "3" else (lambda name: AVERAGES.get(name, name.replace(" ", "_")))
    return [(names(name), [None if cell == "-" else float(cell) for cell in cells]) for name, cells in rows]


@pytest.mark.parametrize("number", ["1", "2", "3", "4", "5", "6"])
def test_every_cell_is_the_papers(number):
    path = DATA / f"table{number}.tsv"
    ours, theirs = as_printed(number), transcribed(path, number)
    assert len(ours) == len(theirs)
    assert dict(ours) == dict(theirs)
    if number in SCORES:
        assert [row["name"] for row in TABLES[number]["paper"].values()] == read_tsv(path)[0][1]


@pytest.mark.parametrize("number", ["1", "2", "3", "4", "5", "6"])
def test_the_copies_here_are_the_transcribed_tables(number):
    if not SHARED.is_dir():
        pytest.skip(f"no transcribed tables under {SHARED.parent.name}/{SHARED.name}")
    assert read_tsv(DATA / f"table{number}.tsv") == read_tsv(SHARED / f"table{number}.tsv")


def test_some_cells_by_hand():
    """Against a mistake in both readers: cells looked up by eye."""
    first, second = TABLES["1"]["paper"], TABLES["2"]["paper"]
    assert first["differnet"]["categories"]["screw"] == 99.3
    assert first["cflow"]["categories"]["metal_nut"] == 91.9
    assert first["padim"]["categories"]["carpet"] is None
    assert first["spade"]["averages"] == {"textures": None, "objects": None, "all": 85.5}
    assert second["dfr"]["averages"] == {"textures": 0.0, "objects": 0.0, "all": 95.0}
    assert second["panda"]["categories"]["tile"] == 89.8
    assert TABLES["3"]["paper"]["differnet"]["fps"] == 2.53
    assert TABLES["4"]["paper"]["csflow"] == {
        "name": "CS-Flow", "backbone": "EfficientNet-B5", "input_sizes_px": [768, 384, 192],
    }  # fmt: skip
    assert TABLES["5"]["paper"]["depth_vm_rgb"]["categories"]["foam"] == 0.716
    assert TABLES["6"]["paper"]["cflow"]["categories"]["foam"] == 0.5


def test_the_file_says_whose_tables_they_are_and_what_they_measure():
    raw = json.loads((files("lineproof.report") / "published.json").read_text(encoding="utf-8"))
    assert "arXiv 2205.14852" in raw["citation"]
    assert list(TABLES) == ["1", "2", "3", "4", "5", "6"]
    assert [TABLES[number]["metric"] for number in SCORES] == ["image_auroc", "pixel_auroc", "image_auroc", "aupro"]


def of_kind(*kinds):
    """Detectors of ours that take images, or depth and voxels."""
    pytest.importorskip("torch")
    return {name for name in DETECTORS if resolve(DETECTORS, name, kind="detector").input_kind in kinds}


def test_every_column_of_tables_1_and_2_is_a_detector_of_ours_and_the_other_way_round():
    assert set(TABLES["1"]["paper"]) | set(TABLES["2"]["paper"]) == of_kind("image") - BESIDE
    assert set(TABLES["3"]["paper"]) <= of_kind("image")


@pytest.mark.parametrize("number", ["5", "6"])
def test_every_3d_column_of_tables_5_and_6_is_a_detector_of_ours_without_or_with_colours(number):
    ours = {f"{name}{suffix}" for name in of_kind("depth", "voxel") for suffix in ("", "_rgb")}
    assert set(TABLES[number]["paper"]) - of_kind("image") == ours


def test_presets_of_table_4_are_its_backbones_and_sizes():
    pytest.importorskip("torch")
    from lineproof.detectors.base import find_preset, make_config

    kinds = {name: resolve(DETECTORS, name, kind="detector") for name in of_kind("image")}
    assert {name for name, kind in kinds.items() if "table4" in kind.presets()} == set(TABLES["4"]["paper"])
    for name, row in TABLES["4"]["paper"].items():
        config = make_config(name, dict(find_preset(name, "table4").settings))
        side = row["input_sizes_px"][0]
        assert config.resize_px == config.crop_px == (side, side)
        network = config.backbone.partition(".")[0].removeprefix("tf_").replace("_", "")
        assert network == row["backbone"].lower().replace("-", "").replace("_", "")


@pytest.mark.parametrize("number", ["1", "2"])
def test_every_column_of_the_table_is_printed_with_ours_below(number):
    """The paper's columns are our rows; the file has every one, whether it was measured or not."""
    names = read_tsv(DATA / f"table{number}.tsv")[0][1]
    ours = of_kind("image")
    measured = {f"{method} fp32 on ort-cpu": {"screw": 0.5} for method in ours}
    rows = [row[0] for row in paper_table(number, measured).rows]
    for name, method in zip(names, TABLES[number]["paper"], strict=True):
        beside = rows[rows.index(f"{name}, published") + 1 :][:2]
        assert f"{method} fp32 on ort-cpu, measured" in beside
    assert sum(row.endswith(", measured") for row in rows) == len(ours)


@pytest.mark.parametrize("number", ["5", "6"])
def test_every_column_of_tables_5_and_6_is_printed_with_ours_below_and_the_mean(number):
    header, *cells = read_tsv(DATA / f"table{number}.tsv")
    methods = TABLES[number]["paper"]
    measured = {f"{method} fp32 on ort-cpu": {name: i / 10 for i, name in enumerate(MVTEC_3D_AD)} for method in methods}
    table = paper_table(number, measured)
    assert table.header == ("method", *sorted(MVTEC_3D_AD), "all")
    assert table.hidden == ()
    printed = iter(table.rows)
    for column, (name, method) in enumerate(zip(header[1], methods, strict=True)):
        published_row, ours = next(printed), next(printed)
        assert published_row[0] == f"{name}, published"
        values = [float(row[column]) for _, row in sorted(cells[:10], key=lambda cell: cell[0].replace(" ", "_"))]
        assert [float(cell) for cell in published_row[1:]] == [*values, float(cells[10][1][column])]
        assert ours[0] == f"{method} fp32 on ort-cpu, measured"
        assert ours[-1] == "0.450"  # the mean of 0.0 to 0.9
    assert next(printed, None) is None


def test_all_six_models_of_table_3_are_printed_with_ours_below():
    names = [name for name, _ in read_tsv(DATA / "table3.tsv")[1:]]
    measured = {f"{method} resnet18 (a.bundle)": {"fps": 1.0} for method in TABLES["3"]["paper"]}
    rows = [row[0] for row in speed_table(measured).rows]
    expected = zip(names, measured, strict=True)
    assert rows == [row for name, ours in expected for row in (f"{name}, published", f"{ours}, measured")]
    assert len(names) == 6


@pytest.mark.parametrize(("number", "method"), SCORED)
def test_categories_and_averages_have_official_names(number, method):
    table = TABLES[number]
    row = table["paper"][method]
    assert row["categories"].keys() == OFFICIAL[table["dataset"]]
    assert row["averages"].keys() == GROUPS[table["dataset"]].keys()


@pytest.mark.parametrize(("number", "method"), SCORED)
def test_values_lie_in_the_range_of_their_unit(number, method):
    table = TABLES[number]
    row = table["paper"][method]
    values = [value for value in (*row["categories"].values(), *row["averages"].values()) if value is not None]
    misprints = (number, method) == ("2", "dfr")
    assert all(isinstance(value, float) for value in values)
    assert all((0.0 if misprints else 1e-9) <= value <= CEILING[table["unit"]] for value in values)
    if table["unit"] == "percent" and not misprints:
        assert min(values) > 1.0, "a fraction among percents"


def excused(number, method):
    """Averages of a row that a footnote says do not follow from its cells."""
    notes = (note["applies_to"] for note in TABLES[number]["footnotes"])
    return {average for note in notes if method in note["methods"] for average in note.get("averages", ())}


def gaps(number, method):
    """How far each printed average, in points, lies from the mean of its cells; only where all cells are there."""
    table = TABLES[number]
    row = table["paper"][method]
    cells = {name: value for name, value in row["categories"].items() if value is not None}
    points = 100.0 / CEILING[table["unit"]]
    return {
        name: abs(fmean(cells[category] for category in members) - row["averages"][name]) * points
        for name, members in GROUPS[table["dataset"]].items()
        if row["averages"][name] is not None and members <= cells.keys()
    }


@pytest.mark.parametrize(("number", "method"), SCORED)
def test_averages_follow_from_the_cells_unless_a_footnote_says_otherwise(number, method):
    far = {name for name, gap in gaps(number, method).items() if gap > TOLERANCE_POINTS}
    # PatchCore's average follows from the cell as printed; its footnote is about what the authors' cell would give.
    assert far == excused(number, method) - ({"textures"} if (number, method) == ("1", "patchcore") else set())


def test_the_averages_are_checked_where_they_can_be():
    checked = {number: sum(bool(gaps(number, method)) for method in TABLES[number]["paper"]) for number in SCORES}
    assert checked == {"1": 11, "2": 14, "5": 18, "6": 16}


@pytest.mark.parametrize(("number", "method"), OTHERS)
def test_another_source_stands_beside_the_paper_and_differs_from_it(number, method):
    table = TABLES[number]
    paper = table["paper"][method]["categories"]
    for item in table["other"][method]:
        assert "arXiv" in item["citation"]
        assert item["listed_in"]
        assert item["source"][-4:].isdigit()
        assert list(item["categories"]) == list(paper)
        assert any(abs(item["categories"][name] - paper[name]) > 0.055 for name in paper)


@pytest.mark.parametrize(("method", "misprint"), [("differnet", (91.1, 99.1)), ("cflow", None)])
def test_the_paper_prints_these_rows_under_other_categories(method, misprint):
    """What the footnotes say: the same values, in another order."""
    paper = TABLES["1"]["paper"][method]["categories"]
    (other,) = TABLES["1"]["other"][method]
    own = [round(value + 1e-9, 1) for value in other["categories"].values()]
    if misprint:
        own[own.index(misprint[0])] = misprint[1]
    assert sorted(paper.values()) == sorted(own)
    assert sum(a != b for a, b in zip(paper.values(), own, strict=True)) == 13


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
            row = table["paper"][method]
            assert set(applies_to.get("categories", ())) <= row.get("categories", {}).keys()
            assert set(applies_to.get("averages", ())) <= row.get("averages", {}).keys()


def test_the_papers_row_comes_first_then_the_other_source_then_ours():
    table = paper_table("1", {"cflow": {"screw": 0.5}})
    names = [row[0] for row in table.rows]
    start = names.index("CFlow, published")
    assert names[start : start + 3] == ["CFlow, published", "CFlow, Gudovskiy et al. 2022", "cflow, measured"]
    place = table.header.index("screw")
    assert [row[place] for row in table.rows[start : start + 3]] == ["99.7", "91.9", "50.0"]
    assert table.rows[start + 1][-3:] == ("99.5", "97.7", "98.3")
    (note,) = [line for line in table.footnotes if line.startswith("* Other sources")]
    assert "Gudovskiy et al. 2022: D. Gudovskiy" in note
    assert "means of their cells" in note


def test_a_dash_of_the_paper_is_a_dash_and_a_misprint_is_kept():
    first, second = ({row[0]: row for row in paper_table(number, {}).rows} for number in "12")
    assert set(first["PaDiM, published"][1:-3]) == {"-"}
    assert first["SPADE, published"][-3:] == ("-", "-", "85.5")
    assert second["DFR, published"][-3:] == ("0.0", "0.0", "95.0")
    assert any(
        line.startswith("* DFR (textures, objects): 0.0 is a misprint") for line in paper_table("2", {}).footnotes
    )


def test_halves_are_rounded_up_as_papers_print():
    table = paper_table("2", {})
    (row,) = [row for row in table.rows if row[0] == "CFlow, Gudovskiy et al. 2022"]
    assert row[table.header.index("carpet")] == "99.3"  # 99.25, which a float's own rounding makes 99.2


def test_table_4_is_said_below_the_runs_that_it_is_about():
    (note,) = [line for line in paper_table("6", {}).footnotes if "(Table 4)" in line]
    assert "PaDiM wide_resnet50_2, 224 px" in note
    assert "DifferNet" not in note
    assert any("CS-Flow EfficientNet-B5, 768, 384, 192 px" in line for line in paper_table("5", {}).footnotes)


LONG = "reverse_distillation fp16 on openvino"
LONGER = "a_detector_of_ones_own_with_a_very_long_name fp16 on trt-rtx-of-a-special-kind"


@pytest.mark.parametrize("number", SCORES)
@pytest.mark.parametrize("how_many", [0, 1, 4, 15])
def test_a_table_fits_110_columns_and_shows_every_measured_category(number, how_many):
    names = list(TABLES[number]["paper"]["cflow"]["categories"])[:how_many]
    table = paper_table(number, {LONG: dict.fromkeys(names, 0.5), LONGER: dict.fromkeys(names, 0.25)})
    lines = table.text().splitlines()
    assert max(map(len, lines)) <= 110
    headings = [word for line in lines if line.startswith("method ") for word in line.split()[1:]]
    averages = list(GROUPS[TABLES[number]["dataset"]])
    assert sorted(headings) == sorted([*(names or TABLES[number]["paper"]["cflow"]["categories"]), *averages])
    shown = []
    for line in lines:
        if line.startswith("method "):
            num_columns = len(line.split()) - 1
        if line.startswith("reverse_distillation"):
            shown += line.split()[-num_columns:]
    assert len(shown) == len(headings)
    assert set(shown) <= {"50.0" if number in "12" else "0.500", "-"}
    assert len(shown) - shown.count("-") >= len(names)


def test_what_the_terminal_leaves_out_is_said_and_stands_in_the_files():
    table = paper_table("1", {"fastflow": {"screw": 0.5}})
    assert "Not measured, so not shown: carpet, grid" in table.text()
    assert "toothbrush" not in table.text().splitlines()[2]
    assert table.csv().splitlines()[0].count(",") == 18
    assert "toothbrush" in table.markdown().splitlines()[2]
    assert "toothbrush" in table.to_dict()["rows"][0]
    assert "not shown" not in paper_table("1", {}).text()


@pytest.mark.parametrize(("category", "words"), [("flange", "flange"), ("", "a set without categories")])
def test_a_category_that_the_paper_does_not_know_is_said(category, words):
    table = paper_table("1", {"fastflow": {category: 0.5}})
    assert table.hidden == ()
    assert table.text().count(f"* Measured on {words}, of which this table has no column.") == 1
    table = paper_table("1", {"fastflow": {category: 0.5}, "padim": {"screw": 0.5}})
    assert "screw" not in table.hidden
    assert f"* Measured on {words}, of" in table.text()


def test_the_table_about_speed_fits_too_and_prints_the_papers_digits():
    figures = {"fps": 10.0, "time_ms": 100.0, "extra_parameters_m": 1.2, "constants_mb": 3.0, "gflop": 2.0}
    name = "fastflow wide_resnet50_2 256 px fp16 on openvino (screw-fastflow-wide_resnet50_2-256px-fp16-second.bundle)"
    table = speed_table({name: figures})
    assert max(map(len, table.text().splitlines())) <= 110
    rows = {row[0]: row[1:4] for row in table.rows}
    assert rows["SPADE, published"] == ("0.67", "1481.00", "0.00")
    assert rows["PatchCore, published"] == ("5.88", "159.00", "0.00")
    assert rows[f"{name}, measured"] == ("10.00", "100.00", "1.20")
