"""Images of scans for people: projections, panels, and what the pages say that they show."""

import re

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import UsageError
from lineproof.core.inputs import VoxelPreprocessing
from lineproof.data.dataset import open_dataset
from lineproof.data.files import scan_files
from lineproof.data.inputs.scan import UNMEASURED_RGB
from lineproof.data.inputs.table import input_of
from lineproof.eval.accuracy.evaluate import evaluate
from lineproof.eval.accuracy.request import EvaluationRequest
from lineproof.line.inspector import Verdict
from lineproof.line.request import InspectionRequest, open_inspection
from lineproof.report.examples import Examples
from lineproof.report.gallery import show_bad_cases
from lineproof.report.overlays import draw, heat_map, map_limits
from lineproof.report.painter import painter
from lineproof.report.panel import panel
from lineproof.report.projections import projections
from lineproof.runtime.engine import availability

#: 10 × 10 × 10 cells of a centimetre; the box fills two of them along y, and along z four and two halves.
SPEC = VoxelPreprocessing(
    frame_height_px=2, frame_width_px=3, box_low_m=(0.0, 0.0, 0.4), box_high_m=(0.1, 0.02, 0.45), num_cells=10
)
HOT, COLD = (tuple(heat_map(np.array([[value]]), low=0.0, high=1.0)[0, 0]) for value in (1.0, 0.0))


@pytest.fixture
def scan():
    """Five measured pixels, and one without a measurement: x, y, z in metres."""
    points = [[0.005, 0.005, 0.41], [0.035, 0.015, 0.42], [0.035, 0.005, 0.44], [0.095, 0.015, 0.41], [0, 0, 0]]
    return np.array([*points, [0.065, 0.005, 0.43]], np.float32).reshape(2, 3, 3)


def cells(image, shape):
    """A projection cell by cell; every cell must be one colour."""
    scale = image.shape[0] // shape[0]
    assert image.shape[:2] == (shape[0] * scale, shape[1] * scale)
    assert scale > 1
    small = image[::scale, ::scale]
    np.testing.assert_array_equal(small.repeat(scale, 0).repeat(scale, 1), image)
    return small


def places(image, colour):
    return [tuple(place) for place in np.argwhere((image == colour).all(axis=2)).tolist()]


def test_a_hot_pixel_lies_where_its_point_is_along_each_axis(scan):
    anomaly_map = np.zeros((2, 3), np.float32)
    anomaly_map[0, 1] = 1.0
    # A score without a point is shown nowhere.
    anomaly_map[1, 1] = 9.0
    above, front, side = (image for image, _ in projections(scan, anomaly_map, SPEC, limits=(0.0, 1.0)))
    above, front, side = cells(above, (2, 10)), cells(front, (6, 10)), cells(side, (6, 2))
    assert places(above, HOT) == [(1, 3)]
    assert places(front, HOT) == [(2, 3)]
    assert places(side, HOT) == [(2, 1)]
    assert places(above, COLD) == [(0, 0), (0, 3), (0, 6), (1, 9)]
    assert places(front, COLD) == [(1, 0), (1, 9), (3, 6), (4, 3)]
    assert len(places(above, UNMEASURED_RGB)) == 20 - 5


def test_the_largest_along_an_axis_is_shown(scan):
    anomaly_map = np.zeros((2, 3), np.float32)
    anomaly_map[0, 2] = 1.0
    moved = scan.copy()
    moved[0, 1, 1] = 0.005  # in the line of sight of the hot point, which lies behind it
    above = cells(projections(moved, anomaly_map, SPEC, limits=(0.0, 1.0))[0][0], (2, 10))
    assert places(above, HOT) == [(0, 3)]


def test_depth_and_images_have_no_projections(scan_bundle, tiny_bundle, tiny_scans):
    depth = scan_bundle("depth").manifest.preprocessing
    frame = input_of(depth).read(next((tiny_scans / "test/good/rgb").iterdir()))
    flat = np.zeros((12, 16), np.float32)
    assert projections(frame, flat, depth, limits=(0.0, 1.0)) == []
    assert projections(frame, flat, tiny_bundle.manifest.preprocessing, limits=(0.0, 1.0)) == []


def test_a_panel_keeps_every_pixel_and_has_room_for_its_words():
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    words = "as many words as need more than one line below an image that is so narrow"
    drawn = panel([(160, [(image, words)]), (16, [(image, "a"), (image, "b")])])
    left = drawn[8 : 8 + 120, 8 : 8 + 160]
    np.testing.assert_array_equal(left, image.repeat(10, 0).repeat(10, 1))
    np.testing.assert_array_equal(drawn[8 : 8 + 12, 176 : 176 + 16], image)
    below = drawn[8 + 120 :, 8 : 8 + 160]
    inked = np.flatnonzero((below < 128).any(axis=(1, 2)))
    assert np.count_nonzero(np.diff(inked) > 1) >= 2, "three lines of text at least"
    assert (drawn[:, :8] == 255).all()


def verdict_on(bundle, path):
    spec = bundle.manifest.preprocessing
    frame = input_of(spec).read(path)
    hot = np.zeros(frame.shape[:2], np.float32)
    hot[3:6, 4:9] = 9.0
    return frame, Verdict(score=9.0, verdict="NG", threshold=0.5, anomaly_map=hot, time_ns=1)


@pytest.mark.parametrize("kind", ["depth", "voxel"])
def test_a_map_is_laid_over_colours_or_depth(kind, scan_bundle, tiny_scans):
    path = tiny_scans / "test/hole/rgb/000.png"
    coloured, plain = scan_bundle(kind), scan_bundle(kind, has_rgb=False)
    image = np.asarray(Image.open(path))
    frame, verdict = verdict_on(coloured, path)
    limits = map_limits(coloured)
    default, depth = (draw(frame, verdict, bundle=coloured, limits=limits, view=view) for view in (None, "depth"))
    cold = verdict.anomaly_map == 0
    np.testing.assert_array_equal(default[cold], image[cold])
    assert (default[~cold] != image[~cold]).any(axis=1).all()
    lost = frame[..., 2 if kind == "voxel" else 0] == 0
    assert lost.any()
    assert (depth[cold & lost] == UNMEASURED_RGB).all()
    assert (np.ptp(depth[cold & ~lost].astype(int), axis=1) == 0).all()
    np.testing.assert_array_equal(depth, draw(*verdict_on(plain, path), bundle=plain, limits=limits))
    with pytest.raises(UsageError, match=r"view \(--view\) is 'rgb'; frames of this bundle can be shown as depth"):
        painter(plain, view="rgb")


def test_run_files_a_panel_of_a_scan_and_the_overlay_of_an_image(scan_bundle, tiny_bundle, tiny_scans):
    path = tiny_scans / "test/hole/rgb/000.png"
    frame, verdict = verdict_on(tiny_bundle, path)
    np.testing.assert_array_equal(
        painter(tiny_bundle)(frame, verdict), draw(frame, verdict, bundle=tiny_bundle, limits=map_limits(tiny_bundle))
    )
    sizes = {}
    for kind in ("depth", "voxel"):
        bundle = scan_bundle(kind)
        frame, verdict = verdict_on(bundle, path)
        drawn = painter(bundle, view="depth")(frame, verdict)
        laid = draw(frame, verdict, bundle=bundle, limits=map_limits(bundle), view="depth")
        np.testing.assert_array_equal(drawn[8 : 8 + 288, 8 : 8 + 384], laid.repeat(24, 0).repeat(24, 1))
        sizes[kind] = drawn.shape
    assert sizes["voxel"][1] > sizes["depth"][1] + 192, "projections stand beside"


@pytest.fixture
def engine():
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.inspection}. To fix: {state.fix}")
    return "ort-cpu"


def test_a_view_that_cannot_be_is_refused_before_a_folder_is_made(scan_bundle, tiny_scans, tmp_path, engine):
    from functools import partial

    request = InspectionRequest(
        bundle=scan_bundle(has_rgb=False).path, paths=(tiny_scans,), engine=engine, out=tmp_path / "out"
    )
    with (
        pytest.raises(UsageError, match="can be shown as depth"),
        open_inspection(request, painter=partial(painter, view="rgb")),
    ):
        pass
    assert not (tmp_path / "out").exists()


def captions(page):
    return re.findall(r"<figcaption>(.*?)</figcaption>", page.read_text())


@pytest.mark.parametrize(
    ("kind", "has_rgb", "view", "shown"),
    [
        ("voxel", True, None, ["overlay on rgb", "depth", "largest along z, y and x"]),
        ("voxel", True, "depth", ["overlay on depth", "rgb", "largest along z, y and x"]),
        ("voxel", False, None, ["overlay on depth", "largest along z, y and x"]),
        ("depth", True, None, ["overlay on rgb", "depth"]),
        ("depth", False, "depth", ["overlay on depth"]),
    ],
)
def test_the_gallery_says_what_it_shows(kind, has_rgb, view, shown, scan_bundle, tiny_scans, tmp_path, engine):
    bundle, page = scan_bundle(kind, has_rgb=has_rgb), tmp_path / "page.html"
    request = EvaluationRequest(data=tiny_scans, engine=engine, threshold=1e6)
    gallery = show_bad_cases(bundle.path, request, out=page, view=view)
    assert {case.file for case in gallery.cases} == {"test/hole/rgb/000.png", "test/hole/rgb/001.png"}
    said = captions(page)
    assert len(said) == len(gallery.cases) * (3 + len(shown))
    assert said[3 : 3 + len(shown)] == shown
    text = page.read_text()
    assert f"Maps are laid over {shown[0].removeprefix('overlay on ')}." in text
    assert ("From top to bottom: along z, as the camera looks" in text) == (kind == "voxel")
    assert "mm (light) to 450.0 mm (dark), blue where nothing was measured" in text


def test_a_scan_whose_cloud_is_gone_is_shown_by_its_map_alone(scan_bundle, tiny_scans, tmp_path, engine):
    from lineproof.eval.accuracy.outputs import collect_outputs
    from lineproof.eval.accuracy.outputs_file import save_outputs

    outputs = collect_outputs(scan_bundle("voxel"), open_dataset(tiny_scans), engine=engine)
    save_outputs(outputs, tmp_path / "kept.npz")
    for path in (tiny_scans / "test/hole/rgb").iterdir():
        scan_files(path)[0].unlink()
    page = tmp_path / "page.html"
    show_bad_cases(tmp_path / "kept.npz", EvaluationRequest(threshold=1e6), out=page)
    assert captions(page)[0].endswith("(the image is missing)")
    assert captions(page)[3] == "overlay"


def test_the_page_of_an_evaluation_shows_the_extremes_of_either_class(scan_bundle, tiny_scans, engine):
    bundle, examples = scan_bundle("voxel"), Examples()
    result = evaluate([bundle.path], EvaluationRequest(data=tiny_scans, engine=engine), show=examples.add)
    outputs = result.items[0].outputs
    ((heading, lines, rows),) = examples.sections
    assert heading == "voxel (fp32) on ort-cpu, bolt: highest and lowest scores"
    assert lines[0] == "Maps are laid over rgb."
    first = [tiles[0][1] for tiles in rows]
    for number, (words, label) in enumerate((("defective", True), ("good", False))):
        judged = zip(outputs.files, outputs.score, outputs.label, strict=True)
        scores = {file: score for file, score, truth in judged if truth == label}
        for end, choose, caption in zip(("highest", "lowest"), (max, min), first[2 * number :], strict=False):
            file = choose(scores, key=scores.get)
            assert caption == f"{file}: {end} score of {words} images, {float(scores[file]):.4g}"
    with pytest.raises(UsageError, match="can be shown as rgb or depth"):
        Examples("heat").add(result.items[0])


def test_the_extremes_of_images_are_shown_too(tiny_bundle, tiny_scans, engine):
    examples = Examples()
    evaluate([tiny_bundle.path], EvaluationRequest(data=tiny_scans, engine=engine, other_data=True), show=examples.add)
    ((_, lines, rows),) = examples.sections
    assert lines == ()
    assert [len(tiles) for tiles in rows] == [4] * 4
    assert [caption for _, caption in rows[0][1:]] == ["mask", rows[0][2][1], "overlay"]
