"""What every kind of input promises, over the table: from the file to the verdict of an engine."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.manifest import DetectorRecord, Figures, Manifest, Tolerance, TrainingRecord
from lineproof.bundle.parse import parse_manifest
from lineproof.bundle.store import GOLDEN, MODEL, now, open_bundle, write_bundle
from lineproof.core.errors import BadInputError, BundleError, UsageError
from lineproof.core.inputs import DepthPreprocessing, VoxelPreprocessing, parse_preprocessing
from lineproof.core.spec import Preprocessing, TensorSpec
from lineproof.core.threshold import calibrate
from lineproof.data.inputs.scan import UNMEASURED_RGB
from lineproof.data.inputs.table import INPUTS, input_of
from lineproof.data.records import Sample
from lineproof.runtime.engine import availability

HEIGHT, WIDTH = 20, 26
SIZE = {"frame_height_px": HEIGHT, "frame_width_px": WIDTH}
DEPTH = {**SIZE, "resize_height_px": 11, "resize_width_px": 13, "near_m": 0.4, "far_m": 0.7}
BOX = {"box_low_m": (-0.05, -0.04, 0.42), "box_high_m": (0.05, 0.04, 0.6), "num_cells": 8}
#: Two of each kind, with colours and without; of voxels one with fewer cells than pixels, and one with more.
SPECS = {
    "rgb": Preprocessing.of((HEIGHT, WIDTH, 3), (13, 17), (12, 14)),
    "mono": Preprocessing.of((HEIGHT, WIDTH, 1), (10, 13), (10, 13)),
    "range": DepthPreprocessing(**DEPTH, quantity="range"),
    "z and rgb": DepthPreprocessing(**DEPTH, quantity="z", has_rgb=True, holes="near"),
    "voxel": VoxelPreprocessing(**SIZE, **BOX),
    "voxel and rgb": VoxelPreprocessing(**SIZE, **{**BOX, "num_cells": 9}, has_rgb=True),
}
#: Row and column of pixels without a measurement: zeros, and not a number.
HOLES = ((3, 4), (0, 25), (9, 9))


class Scan(NamedTuple):
    """What was written to the files of one sample."""

    path: Path
    image: np.ndarray
    points: np.ndarray


def make_scan(folder, seed=0, height=HEIGHT, width=WIDTH):
    """One sample as MVTec 3D-AD keeps it: a noisy slope with holes, no point on a cell's edge; and its image."""
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    z = 0.45 + 0.005 * rows + 0.002 * columns + rng.normal(0, 0.002, (height, width))
    points = np.stack([(columns - width / 2 + 0.3) * 0.004, (rows - height / 2 + 0.3) * 0.004, z], axis=2).astype(
        np.float32
    )
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    (folder / "rgb").mkdir(parents=True, exist_ok=True)
    (folder / "xyz").mkdir(exist_ok=True)
    path = folder / "rgb" / f"{seed:03d}.png"
    Image.fromarray(image).save(path)
    written = points.copy()
    for place, (row, column) in enumerate(HOLES):
        points[row, column] = 0.0
        written[row, column] = (0.0, (np.nan, 0.1, 0.5), (0.1, 0.2, np.inf))[place]
    tifffile.imwrite(folder / "xyz" / f"{seed:03d}.tiff", written, photometric="rgb", planarconfig="contig")
    return Scan(path, image, points)


def expected_frame(spec, scan):
    """What a frame holds, from what was written."""
    if spec.kind == "image":
        with Image.open(scan.path) as image:
            return np.asarray(image.convert("L"))[:, :, None] if spec.frame_channels == 1 else scan.image
    parts = [scan.points]
    if spec.kind == "depth":
        distance = np.linalg.norm(scan.points.astype(np.float64), axis=2, keepdims=True)
        parts = [distance if spec.quantity == "range" else scan.points[:, :, 2:]]
    return np.concatenate([*parts, scan.image], axis=2) if spec.has_rgb else parts[0]


def resized(images, axes):
    """Antialiased resize and centre crop of (N, H, W, C), pixel by pixel, from their definition."""
    for number, axis in enumerate(axes, start=1):
        scale = axis.frame_px / axis.resized_px
        first = round((axis.resized_px - axis.crop_px) / 2)
        centres = (np.arange(first, first + axis.crop_px) + 0.5) * scale
        weights = np.maximum(0, 1 - abs(np.arange(axis.frame_px) + 0.5 - centres[:, None]) / max(scale, 1))
        weights /= weights.sum(1, keepdims=True)
        images = np.moveaxis(np.tensordot(weights, images, (1, number)), 0, number)
    return images


def image_reference(spec, frames):
    """Normalised images (N, 3, h, w)."""
    images = resized(frames / 255.0, spec.axes)
    return (np.moveaxis((images - np.array(spec.mean)) / np.array(spec.std), 3, 1),)


def depth_reference(spec, frames):
    """Scaled depth and colours (N, C, h, w), and what was measured."""
    rows = [int((i + 0.5) * HEIGHT / spec.resize_height_px) for i in range(spec.resize_height_px)]
    columns = [int((i + 0.5) * WIDTH / spec.resize_width_px) for i in range(spec.resize_width_px)]
    depth = frames[:, rows][:, :, columns][:, None, :, :, 0].astype(np.float64)
    middle, half = (spec.near_m + spec.far_m) / 2, (spec.far_m - spec.near_m) / 2
    scaled = (depth - middle) / half
    if spec.holes == "near":
        scaled[depth == 0] = -1.0
    colours = np.moveaxis(resized(frames[..., 1:] / 255.0, spec.axes), 3, 1)
    return np.concatenate([scaled, colours], axis=1), (depth != 0).astype(np.float64)


def voxel_reference(spec, frames):
    """The grid (N, C, z, y, x), point by point; and each pixel's cell."""
    side = spec.num_cells
    low, high = np.array(spec.box_low_m), np.array(spec.box_high_m)
    edge = (high - low).max()
    origin = (low + high) / 2 - edge / 2
    colours_in = np.empty((len(frames), side, side, side), object)
    cells = np.full((len(frames), HEIGHT * WIDTH), side**3)
    for n, frame in enumerate(frames.reshape(len(frames), -1, frames.shape[3]).astype(np.float64)):
        for place, pixel in enumerate(frame):
            if not pixel[:3].any():
                continue
            x, y, z = (min(max(int(np.floor(value)), 0), side - 1) for value in (pixel[:3] - origin) * side / edge)
            cells[n, place] = (z * side + y) * side + x
            colours_in[n, z, y, x] = [*(colours_in[n, z, y, x] or []), pixel[3:] / 255.0]
    grid = np.full((len(frames), 3 if spec.has_rgb else 1, side, side, side), -1.0)
    for n, z, y, x in np.argwhere(colours_in.astype(bool)):
        grid[n, :, z, y, x] = np.mean(colours_in[n, z, y, x], axis=0) if spec.has_rgb else 1.0
    return grid, cells


REFERENCES = {"image": image_reference, "depth": depth_reference, "voxel": voxel_reference}


def build_detector():
    """A detector without training: the map is each pixel's mean absolute value, or that of its cell."""
    from torch import nn

    class Detector(nn.Module):
        def forward(self, parts):
            values = parts[0] if isinstance(parts, tuple) else parts
            anomaly_map = values.abs().mean(1)
            if anomaly_map.ndim == 4:
                cells = nn.functional.pad(anomaly_map.flatten(1), (0, 1))
                anomaly_map = cells.gather(1, parts[1]).unflatten(1, (HEIGHT, WIDTH))
            return anomaly_map.amax((1, 2)), anomaly_map

        def lower(self):
            return self

    return Detector()


@cache
def exported(spec):
    """The bytes of a specification's ONNX graph around that detector."""
    pytest.importorskip("onnxscript")
    import onnx_ir

    from lineproof.export.to_onnx import export_onnx

    return onnx_ir.to_proto(export_onnx(build_detector(), spec, max_batch=4)).SerializeToString()


def build_manifest(spec, score):
    """A manifest around a specification."""
    rows, columns = spec.axes
    return Manifest(
        name="scans",
        created=now(),
        detector=DetectorRecord("toy", {}),
        precision="fp32",
        inputs=(spec.frames,),
        outputs=(
            TensorSpec("score", "float32", ("N",)),
            TensorSpec("anomaly_map", "float32", ("N", rows.crop_px, columns.crop_px)),
        ),
        preprocessing=spec,
        max_batch=4,
        threshold=calibrate(score.tolist(), max_false_reject=0.5, engine="torch", source="test"),
        engine_thresholds={},
        tolerances={"fp32": Tolerance(score_spread=1e-3, score_margin=1e-4, anomaly_map=1e-4)},
        score_spread=float(score.std()) or 1.0,
        map_range=1.0,
        training=TrainingRecord(dataset="test", category="", fingerprint="0" * 64, num_images=4, num_holdout=4, seed=0),
        figures=Figures(
            backbone="",
            backbone_parameters=0,
            extra_parameters=0,
            constants_bytes=0,
            flops={"preprocess": 1, "backbone": 0, "head": 1, "post": 1},
            nodes_per_dtype={"float32": 1},
        ),
        tools={},
        files={},
    )


@pytest.fixture(params=sorted(SPECS))
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def scan(tmp_path):
    return make_scan(tmp_path / "good")


def test_the_cases_are_the_table():
    pytest.importorskip("torch")
    from lineproof.detectors.nn.graph import GRAPH_PARTS

    assert {spec.kind for spec in SPECS.values()} == set(INPUTS) == set(GRAPH_PARTS) == set(REFERENCES)


def test_a_file_becomes_a_frame(spec, scan):
    handler = input_of(spec)
    frame = handler.read(scan.path)
    expected = expected_frame(spec, scan)
    assert frame.shape == spec.frame_shape == expected.shape
    assert frame.dtype == handler.dtype
    assert frame.flags.c_contiguous
    assert frame.flags.writeable
    np.testing.assert_allclose(frame, expected, rtol=1e-7)
    handler.check(frame[None])
    if spec.kind != "image":
        for row, column in HOLES:
            assert not frame[row, column, : 3 if spec.kind == "voxel" else 1].any()
        # A scan may be named by its cloud as well.
        np.testing.assert_array_equal(handler.read(scan.path.parents[1] / "xyz" / "000.tiff"), frame)


def test_what_is_no_such_frame_is_refused(spec, scan):
    handler = input_of(spec)
    frames = handler.read(scan.path)[None]
    with pytest.raises(BadInputError, match=rf"frames is float64 .* takes {handler.dtype}"):
        handler.check(frames.astype(np.float64))
    for other in (frames[:, 1:], frames[..., :-1], frames[0]):
        with pytest.raises(BadInputError, match=r"frames is .*, but this bundle takes"):
            handler.check(other)
    if handler.dtype == "float32":
        for value in (np.nan, np.inf):
            broken = np.concatenate([frames, frames])
            broken[1, 2, 3, 0] = value
            with pytest.raises(BadInputError, match=r"NaN or infinity, first in frame 1; .* Write 0 where nothing was"):
                handler.check(broken)


def test_files_that_do_not_fit_are_refused_by_name(spec, tmp_path):
    path = make_scan(tmp_path, height=HEIGHT + 1).path
    with pytest.raises(BadInputError, match=r"000\.png: the image is 21x26 .*; frames are 20x26 here"):
        input_of(spec).read(path)
    if spec.kind != "image":
        with pytest.raises(BadInputError, match=r"xyz.009\.tiff: cannot be read"):
            input_of(spec).read(path.with_name("009.png"))
    if getattr(spec, "has_rgb", False):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
        with pytest.raises(
            BadInputError, match=r"the image is 20x26 .*, its cloud 000\.tiff 21x26; they must be equal"
        ):
            input_of(spec).read(path)


@pytest.mark.parametrize(
    ("fit", "size"), [("none", (20, 26)), ("pad", (13, 20)), ("crop", (31, 29)), ("stretch", (40, 39))]
)
def test_a_mask_follows_its_frame(spec, fit, size, tmp_path):
    """A block is marked in every channel; where it stands in the frame, the mask marks it."""
    handler = input_of(dataclasses.replace(spec, fit=fit))
    image = np.full((*size, spec.frame_shape[2]), 10, handler.dtype)
    mask = np.zeros(size, bool)
    mask[size[0] // 2 : size[0] // 2 + 5, size[1] // 3 : size[1] // 3 + 7] = True
    image[mask] = 200
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "image.png")
    sample = Sample(
        path=tmp_path / "image.png", label=1, defect="dent", mask_paths=(tmp_path / "mask.png",), split="test"
    )
    frame, marked = handler.fit(image), handler.fit_mask(mask)
    assert frame.shape == spec.frame_shape
    np.testing.assert_array_equal(handler.read_mask(sample), marked)
    assert frame.dtype == handler.dtype
    if fit != "stretch" or spec.kind != "image":
        np.testing.assert_array_equal(frame == 200, np.repeat(marked[:, :, None], frame.shape[2], axis=2))
    # Stretched images are interpolated: then the block's middle must be the mask's.
    weight = frame[:, :, 0].astype(float) - 10
    weight[weight < 1] = 0
    for axis in (0, 1):
        places = np.arange(marked.shape[axis]) + 0.5
        middle = places @ weight.sum(1 - axis) / weight.sum()
        np.testing.assert_allclose(middle, places @ marked.sum(1 - axis) / marked.sum(), atol=0.5)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_no_depth_is_made_up(spec, fit):
    """What pad adds was not measured, and stretch only repeats what was there."""
    if spec.kind == "image":
        pytest.skip("of an image the border is repeated, see test_image.py")
    handler = input_of(dataclasses.replace(spec, fit=fit))
    image = np.random.default_rng(0).random((15, 21, spec.frame_shape[2]), np.float32) + 1
    frame = handler.fit(image)
    assert set(np.unique(frame)) - set(np.unique(image)) == ({0.0} if fit == "pad" else set())


def test_people_see_a_frame(spec, scan):
    handler = input_of(spec)
    frame = handler.read(scan.path)
    shown = handler.as_rgb(frame, None if spec.kind == "image" else "depth")
    assert shown.dtype == np.uint8
    assert shown.shape == (HEIGHT, WIDTH, 3)
    if spec.kind == "image":
        np.testing.assert_array_equal(shown, np.broadcast_to(frame, shown.shape))
        return
    depth = frame[:, :, 2 if spec.kind == "voxel" else 0]
    is_grey = (shown == shown[..., :1]).all(axis=2)
    np.testing.assert_array_equal(is_grey, depth != 0)
    assert (shown[~is_grey] == UNMEASURED_RGB).all()
    order = np.argsort(depth[depth != 0])
    assert (np.diff(shown[depth != 0][order].astype(int), axis=0) <= 0).all()
    assert len(np.unique(shown)) > 10


def test_colours_are_shown_where_there_are_some(spec, scan):
    handler = input_of(spec)
    has_rgb = getattr(spec, "has_rgb", False)
    assert handler.views == (("image",) if spec.kind == "image" else ("rgb", "depth") if has_rgb else ("depth",))
    assert handler.check_view(None) == handler.views[0]
    if has_rgb:
        np.testing.assert_array_equal(handler.as_rgb(handler.read(scan.path)), scan.image)
    with pytest.raises(UsageError, match=rf"view \(--view\) is 'heat'; .* can be shown as {handler.views[0]}"):
        handler.as_rgb(handler.read(scan.path), "heat")


def test_a_caption_tells_what_grey_stands_for():
    depth, voxel = (input_of(SPECS[name]) for name in ("range", "voxel"))
    near, far = DEPTH["near_m"] * 1000, DEPTH["far_m"] * 1000
    assert f"depth from {near:.1f} mm (light) to {far:.1f} mm (dark), blue" in depth.view_words("depth")
    assert f"from {BOX['box_low_m'][2] * 1000:.1f} mm" in voxel.view_words("depth")


def test_colours_are_turned_round_and_nothing_else(spec, scan):
    handler = input_of(spec)
    frames = handler.read(scan.path)[None]
    assert handler.check_order(None) == handler.orders[0]
    assert handler.in_own_order(frames, order=handler.orders[0]) is frames
    with pytest.raises(
        UsageError,
        match=rf"order \(--order\) is 'gbr'; this bundle takes .* expected {handler.orders[0]}".replace("+", r"\+"),
    ):
        handler.check_order("gbr")
    for other in handler.orders[1:]:
        turned = handler.in_own_order(frames, order=handler.check_order(other))
        np.testing.assert_array_equal(turned[..., :-3], frames[..., :-3])
        np.testing.assert_array_equal(turned[..., -3:], frames[..., [-1, -2, -3]])
    assert len(handler.orders) == 1 + (spec.frame_shape[2] in (3, 4, 6) and spec != SPECS["voxel"])


def test_the_graphs_part_is_the_reference(spec, tmp_path):
    torch = pytest.importorskip("torch")
    from lineproof.detectors.nn.graph import graph_part

    handler = input_of(spec)
    frames = np.stack([handler.read(make_scan(tmp_path, seed).path) for seed in range(2)])
    prepared = handler.prepare(frames)
    spec.frames.check(prepared, advice=spec.advice)
    with torch.no_grad():
        answer = graph_part(spec).eval()(torch.from_numpy(prepared))
    answers = answer if isinstance(answer, tuple) else (answer,)
    for seen, expected in zip(answers, REFERENCES[spec.kind](spec, frames), strict=True):
        assert seen.shape == expected.shape
        np.testing.assert_allclose(seen.numpy(), expected, rtol=0, atol=2e-5 if spec.kind == "image" else 2e-6)


def test_a_specification_is_read_as_it_was_written(spec):
    assert parse_preprocessing(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    manifest = build_manifest(spec, np.array([0.1, 0.2, 0.4]))
    read = parse_manifest(manifest.to_json(), where="here")
    assert read.preprocessing == spec
    assert (read.decision, read.inputs) == (manifest.decision, (spec.frames,))
    # An image's specification is what it always was on disk.
    assert ("kind" in json.loads(manifest.to_json())["preprocessing"]) == (spec.kind != "image")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "radar"}, "preprocessing.kind is 'radar'; expected 'depth', 'voxel', or none"),
        ({"kind": "image"}, "preprocessing.kind is 'image'; expected 'depth', 'voxel', or none"),
        ({"near_m": 0.9}, r"near_m is 0\.9 and far_m 0\.7; expected finite metres"),
        ({"quantity": "disparity"}, "quantity is 'disparity', expected one of 'range', 'z'"),
        ({"holes": "far"}, "holes is 'far', expected one of 'zero', 'near'"),
        ({"fit": "shrink"}, "preprocessing.fit is 'shrink', expected one of"),
        ({"resize_width_px": 0}, "expected at least 1 each"),
        ({"near_m": "0.1"}, "near_m is '0.1', expected float"),
        ({"has_rgb": 1}, "has_rgb is 1"),
        ({"crop_px": 3}, "crop_px is no field of this file"),
    ],
)
def test_a_manifest_with_another_specification_is_refused(change, message):
    raw = json.loads(build_manifest(SPECS["range"], np.array([0.1, 0.2])).to_json())
    raw["preprocessing"] |= change
    with pytest.raises(BundleError, match=message):
        parse_manifest(json.dumps(raw), where="here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_cells": 0}, "num_cells is 0; expected 1 to 256"),
        ({"num_cells": 257}, "num_cells is 257; expected 1 to 256"),
        ({"box_low_m": (0.2, 0.0, 0.0)}, "each end at least its beginning"),
        ({"box_high_m": (0.05, 0.04, float("nan"))}, "expected finite metres"),
        ({"box_low_m": (0.0,) * 3, "box_high_m": (0.0,) * 3}, "one side longer than 0"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SPECS["voxel"], **change)


def test_points_outside_the_box_count_in_the_nearest_cell():
    handler = input_of(VoxelPreprocessing(**SIZE, box_low_m=(0.0, 0.0, 1.0), box_high_m=(0.1, 0.2, 1.4), num_cells=4))
    # The cube reaches from (-0.15, -0.1, 1) to (0.25, 0.3, 1.4), its cells are 0.1 m wide.
    points = np.array([[-9, -9, 0.5], [9, 9, 9], [0.0, 0.15, 1.25], [0, 0, 0]], np.float32)
    assert handler.cells(points).tolist() == [0, 63, (2 * 4 + 2) * 4 + 1, -1]


@pytest.mark.parametrize("engine", ["ort-cpu", "openvino"])
def test_a_bundle_of_every_kind_is_golden_proved_and_judges(spec, engine, tmp_path):
    """Files → golden frames → graph → bundle → engine, which gives the reference's answers; and a line."""
    torch = pytest.importorskip("torch")
    if not availability(engine).is_available:
        pytest.skip(f"{engine} is not installed")
    from lineproof.detectors.nn.graph import FrameGraph
    from lineproof.eval.parity.verify import verify
    from lineproof.export.golden import NUM_MARKED, golden_frames
    from lineproof.line.inspector import open_line

    paths = [make_scan(tmp_path / "good", seed).path for seed in range(4)]
    handler, detector = input_of(spec), build_detector()
    frames, names = golden_frames(paths, spec)
    assert len(frames) == len(names) == 4 + NUM_MARKED
    assert not (frames[4] == frames[0]).all()
    with torch.no_grad():
        score, anomaly_map = (part.numpy() for part in FrameGraph(spec, detector).eval()(torch.from_numpy(frames)))

    def fill(folder):
        (folder / MODEL).write_bytes(exported(spec))
        np.savez_compressed(folder / GOLDEN, frames=frames, names=names, score=score, anomaly_map=anomaly_map)

    write_bundle(tmp_path / "a.bundle", build_manifest(spec, score), fill)
    bundle = open_bundle(tmp_path / "a.bundle")
    golden = bundle.golden()
    np.testing.assert_array_equal(golden.frames, frames)
    assert golden.frames.dtype == spec.frames.dtype
    report = verify(bundle, engine=engine, batch=3)
    assert report.state != "failed", report.summary_lines()
    with open_line(bundle.path, engine=engine) as line:
        camera = np.stack([handler.read(path) for path in paths])
        np.testing.assert_allclose([verdict.score for verdict in line.inspect_batch(camera)], score[:4], rtol=1e-5)
        with pytest.raises(BadInputError, match="frames is float64"):
            line.inspect(camera[0].astype(np.float64))


def test_tensorrt_rtx_takes_the_graph(spec):
    """Parsed only, which needs no GPU: it refuses scatters that add, and more indices than there is room."""
    pytest.importorskip("torch")
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network()
    parser = trt.OnnxParser(network, logger)
    is_parsed = parser.parse(exported(spec))
    assert is_parsed, [parser.get_error(place).desc() for place in range(parser.num_errors)]
    assert network.get_input(0).name == spec.frames.name


SCANS = [name for name, spec in SPECS.items() if spec.kind != "image"]


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_in_memory_is_the_frame_of_its_files(name, tmp_path):
    spec = SPECS[name]
    scan = make_scan(tmp_path)
    reader = input_of(spec)
    points = scan.points.astype(np.float64)
    for row, column in HOLES:
        points[row, column] = (np.nan, 0.1, np.inf)
    frame = reader.frame_of(points, scan.image if spec.has_rgb else None)
    np.testing.assert_array_equal(frame, reader.read(scan.path))
    assert frame.dtype == np.float32


@pytest.mark.parametrize("name", SCANS)
def test_wrong_scans_in_memory_are_refused(name, tmp_path):
    spec = SPECS[name]
    scan = make_scan(tmp_path)
    reader = input_of(spec)
    image = scan.image if spec.has_rgb else None
    for wrong in (scan.points[..., :2], scan.points[..., 0], scan.image):
        with pytest.raises(BadInputError, match="x, y, z in metres of a pixel"):
            reader.frame_of(wrong, image)
    if not spec.has_rgb:
        with pytest.raises(BadInputError, match="takes points alone"):
            reader.frame_of(scan.points, scan.image)
        return
    with pytest.raises(BadInputError, match="takes colours beside the points"):
        reader.frame_of(scan.points, None)
    for wrong in (scan.image[:-1], scan.image[..., :1], scan.image / 255.0):
        with pytest.raises(BadInputError, match="a colour for every point"):
            reader.frame_of(scan.points, wrong)
