"""Evaluating, comparing and showing bad cases: from bundles, from saved outputs, with and without corrections."""

import dataclasses
import json
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.inputs import DepthPreprocessing
from lineproof.data.dataset import open_category, open_dataset
from lineproof.eval.accuracy.compare import ComparisonRequest, compare
from lineproof.eval.accuracy.evaluate import evaluate
from lineproof.eval.accuracy.outputs import collect_outputs
from lineproof.eval.accuracy.outputs_file import open_outputs, save_outputs
from lineproof.eval.accuracy.request import EvaluationRequest
from lineproof.metrics.statistics import Resampling
from lineproof.report.accuracy_table import check_table_file, tabulate
from lineproof.report.compare_page import write_compare_page
from lineproof.report.gallery import show_bad_cases
from lineproof.report.published import paper_table, published
from lineproof.runtime.engine import EngineOptions, availability


@pytest.fixture
def parts(tmp_path):
    """A data set in MVTec AD's layout of images that fit the tiny bundle: category ``carpet``."""
    rng = np.random.default_rng(1)
    root = tmp_path / "mvtec" / "carpet"
    for split, num in (("train/good", 3), ("test/good", 4), ("test/hole", 3)):
        (root / split).mkdir(parents=True)
        for index in range(num):
            frame = rng.integers(0, 60, (12, 16, 3)).astype(np.uint8)
            if split == "test/hole":
                frame[3:6, 4:9] += 120
                frame[3:6, 4:9] += np.uint8(10 * index)
                mask = np.zeros((12, 16), np.uint8)
                mask[3:6, 4:9] = 255
                (root / "ground_truth/hole").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / f"ground_truth/hole/{index:03d}_mask.png")
            Image.fromarray(frame).save(root / split / f"{index:03d}.png")
    return root.parent


@pytest.fixture
def cpu(tiny_bundle):
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"ort-cpu cannot run here: {state.found}")
    manifest = tiny_bundle.manifest
    training = dataclasses.replace(manifest.training, category="carpet")
    record = dataclasses.replace(manifest.detector, name="padim")
    return tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, training=training, detector=record))


@pytest.fixture
def asked(parts):
    return EvaluationRequest(data=parts, engine="ort-cpu")


@pytest.fixture
def saved(cpu, parts, tmp_path):
    path = tmp_path / "saved.npz"
    save_outputs(collect_outputs(cpu, open_dataset(parts, category="carpet"), engine="ort-cpu"), path)
    return path


def test_a_bundle_and_its_saved_outputs_give_the_same_figures(cpu, asked, saved, tmp_path):
    evaluation = evaluate([cpu.path], asked, save=tmp_path / "again.npz")
    later = evaluate([saved], EvaluationRequest())
    assert evaluation.to_dict() == later.to_dict() == evaluate([tmp_path / "again.npz"], EvaluationRequest()).to_dict()
    (item,) = evaluation.items
    assert item.accuracy.value("image_auroc") == 1.0
    text = "\n".join(evaluation.summary_lines())
    assert "image AUROC" in text
    assert "0 of 4 good images rejected" in text
    assert "Data: carpet: " in text
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_what_is_wrong_comes_first(cpu, asked, parts):
    """A threshold above nearly every defect, and an image that does not fit."""
    Image.new("RGB", (20, 12)).save(parts / "carpet/test/good/large.png")
    evaluation = evaluate([cpu.path], dataclasses.replace(asked, threshold=0.8))
    first, second, header = "\n".join(evaluation.summary_lines()).splitlines()[:3]
    assert first == "tiny (fp32) on ort-cpu: Misses 3 of 3 defects at this threshold (0.8)."
    words = "tiny (fp32) on ort-cpu: Only 7 of 8 images could be used (87.5%). Not used: test/good/large.png: the "
    assert second.startswith(words)
    assert header.split()[:2] == ["bundle", "engine"]
    with pytest.raises(BadInputError, match=r"Only 7 of 8 images .*expected at least 90%.*--min-used"):
        evaluation.check()
    dataclasses.replace(evaluation, request=dataclasses.replace(asked, min_used=0.8)).check()
    (item,) = evaluation.to_dict()["evaluated"]
    assert item["used"]["num_used"] == 7
    assert item["operating"]["calibrated"]["passed_defective"]["num"] == 3


def test_the_operating_table_is_part_of_the_result(cpu, asked):
    evaluation = evaluate([cpu.path], asked)
    lines = "\n".join(evaluation.summary_lines()).splitlines()
    place = lines.index("Operating table on 4 good and 3 defective test images:")
    assert lines[place + 1].startswith("rejected good parts")
    assert lines[place + 2].split()[:3] == ["at", "most", "0%"]
    assert "0 of 3 (0.0%–70.8%)" in lines[place + 2]
    assert not any("Misses" in line for line in lines)


def test_without_good_images_it_is_said_first(cpu, asked, parts):
    for path in (parts / "carpet/test/good").iterdir():
        path.unlink()
    evaluation = evaluate([cpu.path], asked)
    assert evaluation.summary_lines()[0].endswith('No good test image: figures that need one are "-".')
    assert evaluation.items[0].rows()[0][3] == "-"


@pytest.mark.parametrize("resolution", ["image", "map"])
def test_the_resolution_is_said_everywhere(cpu, asked, resolution):
    tabulated = tabulate([cpu.path], dataclasses.replace(asked, resolution=resolution), table="2")
    assert tabulated.to_dict()["pixel_resolution"] == resolution
    assert tabulated.to_dict()["evaluated"][0]["accuracy"]["pixel_resolution"] == resolution
    assert resolution in tabulated.evaluation.items[0].rows()[0]
    assert f"Pixel figures at the {resolution}'s resolution" in "\n".join(tabulated.summary_lines())
    assert f"Measured rows: pixels at the {resolution}'s resolution" in tabulated.table.title


def test_several_are_saved_into_a_folder(cpu, asked, tmp_path):
    evaluate([cpu.path, cpu.path], asked, save=tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["tiny-fp32-ort-cpu.npz"]
    with pytest.raises(UsageError, match=r"one file for 2 bundles\. Give a folder"):
        evaluate([cpu.path, cpu.path], asked, save=tmp_path / "one.npz")


def test_the_papers_table_with_ours_beside_it(cpu, asked, tmp_path):
    tabulated = tabulate([cpu.path], asked, table="2")
    rows = {row[0]: row for row in tabulated.table.rows}
    place = tabulated.table.header.index("carpet")
    ours = rows["padim fp32 on ort-cpu, measured"]
    assert ours[place] == "100.0"
    assert set(ours[1:]) - {"100.0"} == {"-"}
    names = [row[0] for row in tabulated.table.rows]
    assert names.index("padim fp32 on ort-cpu, measured") == names.index("PaDiM, published") + 1
    theirs = published()["tables"]["2"]["paper"]["padim"]
    assert float(rows["PaDiM, published"][place]) == theirs["categories"]["carpet"] == 99.1
    assert max(len(line) for text in tabulated.summary_lines() for line in text.splitlines()) <= 110
    assert tabulated.keep(table_file=tmp_path / "t.md") == tabulated.keep(table_file=tmp_path / "t.csv") == ()
    assert (tmp_path / "t.md").read_text().count("| padim fp32 on ort-cpu, measured |") == 1
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == len(tabulated.table.rows) + 1
    assert all(line.count(",") >= len(tabulated.table.header) - 1 for line in lines)
    assert tabulated.to_dict()["table"]["rows"][0]["method"]


@pytest.mark.parametrize(("number", "groups"), [("1", 3), ("2", 3), ("5", 1), ("6", 1)])
def test_averages_appear_where_all_categories_do(number, groups):
    table = paper_table(number, {})
    names = table.header[1:-groups]
    full = paper_table(number, {"fastflow": dict.fromkeys(names, 0.5)})
    (row,) = [dict(zip(full.header, row, strict=True)) for row in full.rows if row[0] == "fastflow, measured"]
    expected = "50.0" if number in "12" else "0.500"
    assert [row[name] for name in full.header[-groups:]] == [expected] * groups
    part = paper_table(number, {"fastflow": dict.fromkeys(names[1:], 0.5)})
    assert part.rows[[row[0] for row in part.rows].index("fastflow, measured")][-1] == "-"


def test_tables_and_files_that_do_not_exist(cpu, asked, tmp_path):
    with pytest.raises(UsageError, match=r"table \(--table\) is '3'; expected 1, 2, 5, 6 .*Table 3: lineproof profile"):
        tabulate([cpu.path], asked, table="3")
    for path, number in ((tmp_path / "t.xls", "1"), (tmp_path / "t.md", None)):
        with pytest.raises(UsageError, match=r"ends in \.md or \.csv"):
            check_table_file(path, number)
    with pytest.raises(UsageError, match=r"is a bundle, and no images were given"):
        evaluate([cpu.path], EvaluationRequest())


def _corrections(folder):
    path = folder / "corrections.json"
    path.write_text(json.dumps({"corrections_version": 1, "corrections": {"test/hole/000.png": {"label": "good"}}}))
    return path


def test_corrections_and_a_threshold_are_a_number(saved, tmp_path):
    evaluation = evaluate([saved], EvaluationRequest(threshold=0.6, corrections=_corrections(tmp_path)))
    (item,) = evaluation.items
    assert item.accuracy.verdicts.num_defective == 3
    assert item.corrected.verdicts.num_defective == 2
    assert any(row[0] == "  with corrections" for row in item.rows())


def test_two_engines_on_the_same_images(cpu, asked, tmp_path):
    if not availability("openvino").is_available:
        pytest.skip("openvino is not installed")
    page = tmp_path / "page.html"
    request = ComparisonRequest(
        left=cpu.path, right=cpu.path, shared=asked, right_engine="openvino", resampling=Resampling(100)
    )
    comparison = compare(request, show=partial(write_compare_page, path=page))
    assert comparison.num_frames == 7
    assert comparison.flips == ()
    assert comparison.map_max_abs_error < 1e-6
    assert comparison.image_auroc.value == comparison.pixel_auroc.value == comparison.aupro.value == 0.0
    assert len(comparison.worst) == 7
    assert page.read_text().count("<figure>") == 4 * 7
    json.dumps(comparison.to_dict(), allow_nan=False)
    assert "tiny (fp32) on ort-cpu" in comparison.summary_lines()[0]


def test_a_side_that_is_worse_shows(saved, tmp_path):
    outputs = open_outputs(saved)
    score = outputs.score.copy()
    score[list(outputs.files).index("test/hole/001.png")] = 0.0
    masks = np.stack([outputs.mask_of(index) for index in range(len(outputs))])
    maps = np.where(masks, 0.0, outputs.anomaly_map).astype(np.float32)
    worse = dataclasses.replace(outputs, score=score, anomaly_map=maps)
    save_outputs(worse.take(np.arange(len(worse))[::-1]), tmp_path / "worse.npz")
    comparison = compare(ComparisonRequest(left=saved, right=tmp_path / "worse.npz", resampling=Resampling(200)))
    (flip,) = comparison.flips
    assert str(flip).startswith("test/hole/001.png (hole): NG by ")
    assert "became OK by" in str(flip)
    assert (comparison.mcnemar.only_left_right, comparison.mcnemar.only_right_right) == (1, 0)
    np.testing.assert_allclose(comparison.image_auroc.value, -1 / 3)
    assert comparison.image_auroc.high <= 0
    assert comparison.pixel_auroc.value < -0.9
    assert comparison.aupro.value < -0.9
    assert comparison.worst[0][0].startswith("test/hole/")


def test_sides_that_cannot_be_compared(saved, tmp_path):
    outputs = open_outputs(saved)
    save_outputs(dataclasses.replace(outputs, files=tuple(f"x/{f}" for f in outputs.files)), tmp_path / "a.npz")
    with pytest.raises(BadInputError, match="Only 0 images are on both sides"):
        compare(ComparisonRequest(left=saved, right=tmp_path / "a.npz"))
    save_outputs(dataclasses.replace(outputs, label=~outputs.label), tmp_path / "b.npz")
    with pytest.raises(BadInputError, match="7 images are labelled differently"):
        compare(ComparisonRequest(left=saved, right=tmp_path / "b.npz"))


def test_a_threshold_that_was_given_is_not_called_calibrated(saved):
    for threshold, origin, label in ((None, "calibrated", "in use"), (0.5, "given", "given")):
        evaluation = evaluate([saved], EvaluationRequest(threshold=threshold))
        rows = [line for line in evaluation.summary_lines() if line.startswith(label)]
        assert len(rows) == 1
        assert f"Thresholds but the one {label} are read off" in "\n".join(evaluation.summary_lines())
        assert evaluation.to_dict()["evaluated"][0]["operating"]["threshold_origin"] == origin


def test_images_of_two_categories_are_never_compared(saved, tmp_path):
    """Every category has a test/good/000.png; without masks nothing else would tell them apart."""
    outputs = open_outputs(saved)
    other = dataclasses.replace(outputs.source, category="grid", root="elsewhere/grid")
    save_outputs(dataclasses.replace(outputs, source=other), tmp_path / "grid.npz")
    with pytest.raises(BadInputError, match=r"Left judged images of carpet .* right of grid .elsewhere/grid."):
        compare(ComparisonRequest(left=saved, right=tmp_path / "grid.npz"))


def test_two_bundles_of_one_method_have_two_rows(saved, tmp_path):
    """The later one replaced the earlier one in the paper's table."""
    outputs = open_outputs(saved)
    worse = dataclasses.replace(outputs, score=-outputs.score)
    save_outputs(worse, tmp_path / "b.npz")
    table = tabulate([saved, tmp_path / "b.npz", tmp_path / "b.npz"], EvaluationRequest(), table="1").table
    measured = {row[0]: value["carpet"] for row, value in zip(table.rows, table.values, strict=True) if "ort" in row[0]}
    name = next(iter(measured))
    plain = name.removesuffix(", measured")
    assert list(measured) == [name, f"{plain} (tiny), measured", f"{plain} (tiny, 2), measured"]
    first, *others = measured.values()
    assert first > 0.0
    assert others == [0.0, 0.0]


@pytest.mark.parametrize(("has_rgb", "method"), [(False, "depth_vm"), (True, "depth_vm_rgb")])
def test_a_detector_of_scans_has_a_row_without_and_one_with_colours(has_rgb, method, saved, tmp_path):
    spec = DepthPreprocessing(
        frame_height_px=12,
        frame_width_px=16,
        resize_height_px=12,
        resize_width_px=16,
        quantity="range",
        near_m=0.3,
        far_m=0.5,
        has_rgb=has_rgb,
    )
    outputs = open_outputs(saved)
    source = dataclasses.replace(outputs.source, detector="depth_vm", category="tire", preprocessing=spec)
    save_outputs(dataclasses.replace(outputs, source=source), tmp_path / "scans.npz")
    rows = [row[0] for row in tabulate([tmp_path / "scans.npz"], EvaluationRequest(), table="5").table.rows]
    at = next(number for number, row in enumerate(rows) if row.endswith(", measured"))
    assert rows[at].startswith(f"{method} ")
    assert rows[at - 1] == f"{published()['tables']['5']['paper'][method]['name']}, published"


def test_images_on_one_side_only_are_named(saved, tmp_path):
    outputs = open_outputs(saved)
    save_outputs(outputs.take(np.arange(1, len(outputs))), tmp_path / "fewer.npz")
    comparison = compare(
        ComparisonRequest(left=saved, right=tmp_path / "fewer.npz", shared=EvaluationRequest(min_used=0.5))
    )
    assert comparison.summary_lines()[0] == (
        f"Only 6 of 7 images could be used (85.7%). Not used: {outputs.files[0]}: not on the right side."
    )
    comparison.check()
    with pytest.raises(BadInputError, match="Only 6 of 7"):
        dataclasses.replace(comparison, request=EvaluationRequest()).check()


def test_sides_with_other_masks_cannot_be_compared(saved, tmp_path):
    outputs = open_outputs(saved)
    masks = outputs.packed_mask.copy()
    masks[list(outputs.files).index("test/hole/001.png"), 0, 0] = 255
    save_outputs(dataclasses.replace(outputs, packed_mask=masks), tmp_path / "other.npz")
    with pytest.raises(BadInputError, match=r"1 image has another mask on the two sides, first test/hole/001\.png"):
        compare(ComparisonRequest(left=saved, right=tmp_path / "other.npz"))


def test_masks_that_mark_nothing_on_the_frame_are_counted(saved, tmp_path):
    """Cropped away, or lost between the pixels of a smaller frame: the image counts as free of defects there."""
    outputs = open_outputs(saved)
    masks = outputs.packed_mask.copy()
    masks[list(outputs.files).index("test/hole/001.png")] = 0
    save_outputs(dataclasses.replace(outputs, packed_mask=masks), tmp_path / "cut.npz")
    for path, num in ((saved, 0), (tmp_path / "cut.npz", 1)):
        evaluation = evaluate([path], EvaluationRequest())
        (item,) = evaluation.items
        assert item.accuracy.num_unseen == evaluation.to_dict()["evaluated"][0]["accuracy"]["num_unseen"] == num
        assert item.accuracy.pixel.num_components == 3 - num
        said = "Of 1 defective image the mask marks none of these pixels"
        assert (said in "\n".join(evaluation.summary_lines())) == bool(num)


@pytest.mark.parametrize("change", [{"fit": "stretch"}, {"resize_height_px": 24, "crop_height_px": 12}])
def test_maps_of_other_places_are_not_subtracted(saved, tmp_path, change):
    """Equal shapes are not equal places: one side stretches or crops what the other takes whole."""
    outputs = open_outputs(saved)
    assert compare(ComparisonRequest(left=saved, right=saved)).map_max_abs_error == 0.0
    spec = dataclasses.replace(outputs.source.preprocessing, **change)
    other = dataclasses.replace(outputs, source=dataclasses.replace(outputs.source, preprocessing=spec))
    save_outputs(other, tmp_path / "other.npz")
    comparison = compare(ComparisonRequest(left=saved, right=tmp_path / "other.npz"))
    assert comparison.map_max_abs_error is None
    assert comparison.worst == ()


def test_maps_of_another_size_are_left_out(saved, tmp_path):
    outputs = open_outputs(saved)
    save_outputs(
        dataclasses.replace(outputs, anomaly_map=outputs.anomaly_map[:, ::2]),
        tmp_path / "half.npz",
    )
    small = EvaluationRequest(resolution="map")
    comparison = compare(ComparisonRequest(left=saved, right=tmp_path / "half.npz", shared=small))
    assert (comparison.map_max_abs_error, comparison.pixel_auroc, comparison.aupro, comparison.worst) == (
        None,
        None,
        None,
        (),
    )
    enlarged = compare(ComparisonRequest(left=saved, right=tmp_path / "half.npz"))
    assert (enlarged.map_max_abs_error, enlarged.worst) == (None, ())
    assert enlarged.aupro.value < 0
    assert comparison.image_auroc.value == 0.0
    assert any("their sizes differ" in line for line in comparison.summary_lines())


def test_a_gallery_of_bad_cases(cpu, asked, tmp_path):
    page = tmp_path / "gallery.html"
    gallery = show_bad_cases(cpu.path, dataclasses.replace(asked, threshold=0.65), out=page)
    kinds = {(case.kind, case.file) for case in gallery.cases}
    assert ("false accept", "test/hole/000.png") in kinds
    text = page.read_text()
    assert "False accepts" in text
    assert text.count("<figure>") == 4 * len(gallery.cases)
    assert "None." in text
    json.dumps(gallery.to_dict(), allow_nan=False)
    assert gallery.after is None


def test_a_gallery_with_corrections_and_without_images(saved, parts, tmp_path):
    (parts / "carpet/test/good/000.png").rename(tmp_path / "elsewhere.png")
    asked = EvaluationRequest(threshold=0.05, corrections=_corrections(tmp_path))
    gallery = show_bad_cases(saved, asked, top=2, out=tmp_path / "g.html")
    assert [case.kind for case in gallery.cases].count("false reject") == 2
    assert any(line.startswith("Corrected ground truth: image AUROC 1.0000 -> ") for line in gallery.summary_lines())
    with pytest.raises(UsageError, match=r"top \(--top\) is 0"):
        show_bad_cases(saved, asked, top=0, out=tmp_path / "g.html")


def test_the_category_is_the_bundles_own_unless_another_is_named(parts):
    (parts / "carpet").rename(parts / "rug")
    assert open_category(parts, None, bundle_category="").category == "rug"
    assert open_category(parts, None, bundle_category="rug").category == "rug"
    # One category alone is taken, and its name is checked where the bundle's is known.
    assert open_category(parts, None, bundle_category="carpet").category == "rug"
    shutil.copytree(parts / "rug", parts / "wood")
    assert open_category(parts, None, bundle_category="wood").category == "wood"
    assert open_category(parts, "rug", bundle_category="wood").category == "rug"
    with pytest.raises(UsageError, match="holds 2 categories and 'carpet' is not among them"):
        open_category(parts, None, bundle_category="carpet")


def test_each_side_gets_the_options_that_its_engine_can_honour(cpu, parts, add_engine):
    on_gpu = add_engine("gpu", uses_gpu=True, takes_threads=False)
    on_cpu = add_engine("cpu")
    asked = EngineOptions(device=1, num_threads=2)
    shared = EvaluationRequest(data=parts, engine="gpu", options=asked)
    assert not compare(ComparisonRequest(left=cpu.path, right=cpu.path, shared=shared, right_engine="cpu")).flips
    assert on_gpu.opened == [EngineOptions(device=1)]
    assert on_cpu.opened == [EngineOptions(num_threads=2)]


def test_an_option_that_no_engine_can_honour_is_refused_by_name(cpu, asked):
    asked = dataclasses.replace(asked, options=EngineOptions(device=1))
    message = r"Engine ort-cpu runs on the CPU and has no device 1\. Leave --device away"
    with pytest.raises(UsageError, match=message):
        compare(ComparisonRequest(left=cpu.path, right=cpu.path, shared=asked))
    with pytest.raises(UsageError, match=message):
        evaluate([cpu.path], asked)
