"""Imported models look at frames in tiles: cut, resized, judged and joined as NumPy does it outside of the graph."""

import json
import sys
from itertools import product

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402

from lineproof import cli  # noqa: E402
from lineproof.bundle.store import open_bundle  # noqa: E402
from lineproof.core.errors import BadInputError, ExportError, UsageError  # noqa: E402
from lineproof.core.tiles import TileAxis, Tiles  # noqa: E402
from lineproof.eval.parity.request import ParityRequest, verify_as_asked  # noqa: E402
from lineproof.eval.parity.verify import verify  # noqa: E402
from lineproof.importers import from_module  # noqa: E402
from lineproof.importers.onnx_file.bundle import import_onnx  # noqa: E402
from lineproof.importers.onnx_file.options import ImportOptions  # noqa: E402
from lineproof.runtime.engine import availability, open_engine, predict  # noqa: E402

#: Frames of the fixture have 20 x 24 pixels: three rows of tiles, two columns.
TILES = {"height_px": 9, "width_px": 14, "overlap_px": 3}
TOPS, LEFTS = (0, 6, 11), (0, 10)
#: What every tile is resized to.
INPUT = (8, 12)
#: From three channels of a pixel to one value for each of 2 x 2 pixels, or of 2 x 2 pixels to one value.
KERNEL = np.random.default_rng(5).normal(size=(3, 2, 2)).astype(np.float32)


def detector_file(path, *, batch="batch", is_larger=False, is_relative=False):
    """Write it: a convolution with a stride of 2, or a transposed one; its absolute value, and the highest of that."""
    kind = "ConvTranspose" if is_larger else "Conv"
    weights = KERNEL[:, None] if is_larger else KERNEL[None]
    size = [side * 2 if is_larger else side // 2 for side in INPUT]
    nodes = [
        helper.make_node(kind, ["input", "kernel"], ["features"], name="/net/conv", strides=[2, 2]),
        helper.make_node("Abs", ["features"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "within"], ["highest"], keepdims=0),
        helper.make_node("ReduceMax", ["anomaly_map"], ["of_all"], keepdims=0),
        helper.make_node("Sub" if is_relative else "Max", ["highest", "of_all"][: 1 + is_relative], ["pred_score"]),
    ]
    real = onnx.TensorProto.FLOAT
    outputs = [
        helper.make_tensor_value_info("pred_score", real, [batch]),
        helper.make_tensor_value_info("anomaly_map", real, [batch, 1, *size]),
    ]
    taken = helper.make_tensor_value_info("input", real, [batch, 3, *INPUT])
    constants = [
        numpy_helper.from_array(weights, "kernel"),
        numpy_helper.from_array(np.array([1, 2, 3]), "within"),
    ]
    graph = helper.make_graph(nodes, "tiny", [taken], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def tile_answers(tile, values, *, is_larger):
    """Score and map of one tile by NumPy, resized and enlarged by PyTorch, all in float64."""
    image = torch.from_numpy(tile[None] / 255).permute(0, 3, 1, 2)
    image = torch.nn.functional.interpolate(image, INPUT, mode="bilinear", antialias=True)[0].numpy()
    image = (image - np.reshape(values["mean"], (3, 1, 1))) / np.reshape(values["std"], (3, 1, 1))
    if is_larger:
        seen = np.abs(np.einsum("cyx,cab->yaxb", image, KERNEL.astype(float)).reshape(16, 24))
    else:
        seen = np.abs(np.einsum("cyaxb,cab->yx", image.reshape(3, 4, 2, 6, 2), KERNEL.astype(float)))
    score = seen.max() if values["score"] else np.sort(seen, axis=None)[-values["score_from_map"] :].mean()
    if values["anomaly_map"] is None:
        return score, np.full(INPUT, score)
    if not is_larger:
        enlarged = torch.nn.functional.interpolate(torch.from_numpy(seen[None, None]), INPUT, mode="bilinear")
        seen = enlarged[0, 0].numpy()
    return score, seen


def expected(frames, values, *, is_larger=False):
    """Scores and maps of frames whose tiles are cut one by one; their maps are blended by two products."""
    scores, maps = [], []
    for frame in frames:
        cut = [frame[top : top + 9, left : left + 14] for top, left in product(TOPS, LEFTS)]
        seen = [tile_answers(tile, values, is_larger=is_larger) for tile in cut]
        scores.append(max(score for score, _ in seen))
        height, width = seen[0][1].shape
        rows = TileAxis(20, 9, 3).stitching(height, round(20 * height / 9))
        columns = TileAxis(24, 14, 3).stitching(width, round(24 * width / 14))
        grid = np.block([[seen[2 * row + column][1] for column in range(2)] for row in range(3)])
        maps.append(rows @ grid @ columns.T)
    return np.array(scores), np.array(maps)


@pytest.fixture(scope="session")
def tiled(specification):
    """The same specification for tiles; words change its fields."""

    def make(**changes):
        return specification(**{"tiles": TILES, "resize_px": list(INPUT), "crop_px": None, **changes})

    return make


def import_into(folder, dataset, values, *, written=None, options=None):
    file, path = detector_file(folder / "model.onnx", **(written or {})), folder / "preprocessing.json"
    path.write_text(json.dumps(values))
    return import_onnx(file, preprocessing=path, dataset=dataset, out=folder / "a.bundle", options=options)


#: How the file is written, and what else the specification then says.
FORMS = {
    "both": ({}, {}),
    "a larger map": ({"is_larger": True}, {"score": None, "score_from_map": 4}),
    "no map": ({}, {"anomaly_map": None}),
}
MAP_SIZES = {"both": (18, 21), "a larger map": (36, 41), "no map": (18, 21)}


@pytest.fixture(
    scope="module", params=["both", *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS if form != "both")]
)
def imported(request, tmp_path_factory, dataset, tiled):
    """A form, its import, and NumPy's answers on its golden frames."""
    written, changes = FORMS[request.param]
    values = tiled(**changes)
    result = import_into(tmp_path_factory.mktemp("import"), dataset, values, written=written)
    return request.param, result, expected(result.bundle.golden().frames, values, **written)


@pytest.mark.parametrize("engine", ["ort-cpu", "openvino"])
def test_score_and_map_are_numpys(imported, engine):
    if not availability(engine).is_available:
        pytest.skip(f"{engine} cannot run here. Found: {availability(engine).found}.")
    form, result, (score, anomaly_map) = imported
    bundle, tolerance = result.bundle, {"rtol": 2e-5, "atol": 2e-5}
    assert anomaly_map.shape[1:] == MAP_SIZES[form]
    golden = bundle.golden()
    np.testing.assert_allclose(golden.reference.score, score, **tolerance)
    np.testing.assert_allclose(golden.reference.anomaly_map, anomaly_map, **tolerance)
    for num in (1, 3):
        answer = predict(open_engine(bundle, engine), golden.frames[:num])
        np.testing.assert_allclose(answer.score, score[:num], **tolerance)
        np.testing.assert_allclose(answer.anomaly_map, anomaly_map[:num], **tolerance)
    report = verify(bundle, engine=engine, batch=3)
    assert report.passed, report.failures


def test_what_stands_in_the_bundle_and_is_said(imported):
    form, result, _ = imported
    manifest = open_bundle(result.bundle.path).manifest
    assert manifest.preprocessing.tiles == Tiles(**TILES)
    assert manifest.max_batch == 8
    assert manifest.outputs[1].shape == ("N", *MAP_SIZES[form])
    assert manifest.detector.parameters["tiles"] == TILES
    # All six tiles of a frame are computed, twelve multiplications for each value of the map.
    num = 16 * 24 * 3 if form == "a larger map" else 4 * 6 * 12
    assert manifest.figures.flops["model"] == 6 * 2 * num
    outputs = onnx.load(result.bundle.model_path).graph.output
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in outputs] == ["N", "N"]
    notes = " ".join(result.notes)
    assert "the largest of the frame's 6 tiles of 9x14 px with 3 px of overlap." in notes
    assert ("the bundle's map is the score of its tile at every pixel" in notes) == (form == "no map")


def test_tensorrt_rtx_builds_it(imported):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install tensorrt-rtx")
    from lineproof.export.tensorrt.build import gate

    report = gate(imported[1].bundle.model_path, max_batch=8)
    assert report.passed, report.errors


def test_a_data_set_is_compared_with_the_file_itself(imported, images_folder):
    report = verify_as_asked(imported[1].bundle, ParityRequest(engine="ort-cpu", data=images_folder, batch=4))
    assert (report.reference, report.passed) == ("original", True)
    assert report.score_max_abs_error < 1e-5


def test_one_frame_at_once(tmp_path, dataset, tiled):
    bundle = import_into(tmp_path, dataset, tiled(), options=ImportOptions(max_batch=1)).bundle
    score, anomaly_map = expected(bundle.golden().frames, tiled())
    answer = predict(open_engine(bundle, "ort-cpu"), bundle.golden().frames[:1])
    np.testing.assert_allclose(answer.score, score[:1], rtol=2e-5)
    np.testing.assert_allclose(answer.anomaly_map, anomaly_map[:1], rtol=2e-5, atol=2e-5)


def test_a_tile_is_what_the_model_takes_where_nothing_is_resized(tmp_path, dataset, tiled):
    values = tiled(resize_px=None, tiles={"height_px": 8, "width_px": 12, "overlap_px": 0})
    spec = import_into(tmp_path, dataset, values, options=ImportOptions(max_batch=2)).bundle.manifest.preprocessing
    assert (spec.resize_height_px, spec.resize_width_px) == INPUT


REFUSED = {
    "frozen": (
        {"batch": 1},
        {},
        r"takes one tile at once: its batch is frozen at 1 \(input input \(1, 3, 8, 12\)\); expected a symbolic batch: "
        r"the 6 tiles of a frame are computed at once\. Export it again with a symbolic batch: torch\.onnx\.export",
    ),
    "frozen at 6": ({"batch": 6}, {}, r"is frozen at a batch of 6 \(.*\); expected a symbolic batch\. Export it again"),
    "relative": ({"is_relative": True}, {}, r"the score of a tile depends on the other tiles of its batch \(off by "),
    "a crop": (
        {},
        {"resize_px": [10, 15], "crop_px": list(INPUT)},
        r"tiles and a centre crop \(crop_px\) from 10x15 to 8x12 leave stripes between tiles that nobody sees\. Crop "
        r"nothing: crop_px null, and resize_px \[8, 12\]",
    ),
    "a crop alone": ({}, {"resize_px": None, "crop_px": list(INPUT)}, r"a centre crop \(crop_px\) from 9x14 to 8x12"),
    "too large": ({}, {"tiles": {**TILES, "height_px": 21}}, r"tiles \(--tiles\) are 21x14, frames 20x24 \(height"),
    "an overlap": ({}, {"tiles": {**TILES, "overlap_px": 9}}, r"json: tiles: overlap \(--overlap\) is 9 px for tiles"),
    "no overlap": ({}, {"tiles": {"height_px": 9, "width_px": 9}}, r"tiles\.overlap_px is missing; expected int"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("max_batch", [None, 1])
def test_what_does_not_fit_is_refused_in_words(tmp_path, dataset, tiled, case, max_batch):
    written, changes, words = REFUSED[case]
    options = ImportOptions(max_batch=max_batch)
    with pytest.raises(BadInputError, match=words):
        import_into(tmp_path, dataset, tiled(**changes), written=written, options=options)
    assert not (tmp_path / "a.bundle").exists()


def test_a_batch_has_a_largest_number_of_tiles(tmp_path, dataset, tiled):
    with pytest.raises(UsageError, match=r"--batch\) is 43, and a frame has 6 tiles: 258 .* 256\. Give --batch 42\."):
        import_into(tmp_path, dataset, tiled(), options=ImportOptions(max_batch=43))
    small = tiled(tiles={"height_px": 3, "width_px": 3, "overlap_px": 0})
    # Seven rows and eight columns: four frames are 224 tiles.
    assert import_into(tmp_path, dataset, small).bundle.manifest.max_batch == 4


class Tiny(torch.nn.Module):
    """The same as a module."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 1, 2, stride=2, bias=False)
        self.net.weight.data = torch.from_numpy(KERNEL[None])

    def forward(self, images):
        maps = self.net(images).abs()
        return maps.amax(dim=(1, 2, 3)), maps


class Frozen(Tiny):
    """It looks at one image at once, whatever it is given."""

    def forward(self, images):
        return super().forward(images.reshape(1, 3, *INPUT))


@pytest.fixture
def bring(tmp_path, images_folder, tiled):
    """A function from a module to its bundle."""

    def run(module, **options):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(tiled()))
        out = tmp_path / "mine.bundle"
        options = ImportOptions(**options)
        return from_module(module.eval(), preprocessing=path, data=images_folder, out=out, options=options).bundle

    return run


@pytest.mark.parametrize("max_batch", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_module_in_tiles(bring, tiled, max_batch):
    bundle = bring(Tiny(), max_batch=max_batch)
    golden = bundle.golden()
    score, anomaly_map = expected(golden.frames, tiled())
    np.testing.assert_allclose(golden.reference.score, score, rtol=2e-5)
    np.testing.assert_allclose(golden.reference.anomaly_map, anomaly_map, rtol=2e-5, atol=2e-5)
    assert bundle.manifest.max_batch == max_batch
    report = verify(bundle, engine="ort-cpu", batch=max_batch)
    assert report.passed, report.failures


def test_a_module_that_takes_one_tile_is_refused(bring):
    words = r"Frozen does not trace to ONNX: .* keep the batch symbolic; the tiles of a frame are a batch\."
    with pytest.raises(ExportError, match=words):
        bring(Frozen(), max_batch=1)


def test_the_command(tmp_path, images_folder, tiled, monkeypatch, capsys):
    detector_file(tmp_path / "tiny.onnx")
    (tmp_path / "tiny.json").write_text(json.dumps(tiled()))
    monkeypatch.chdir(tmp_path)

    def command(text):
        monkeypatch.setattr(sys, "argv", ["lineproof", *text.split(), "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        answer = capsys.readouterr()
        return ended.value.code or 0, answer.out, answer.err

    status, out, err = command(f"import onnx tiny.onnx --preprocessing tiny.json --data {images_folder}")
    assert (status, "Parity passed: nut-tiny" in out) == (0, True), f"{out}{err}"
    status, out, err = command("inspect")
    assert (status, "3 x 2 tiles of 9x14 px with 3 px of overlap" in out) == (0, True), f"{out}{err}"
    detector_file(tmp_path / "tiny.onnx", batch=1)
    status, out, err = command(f"import onnx tiny.onnx --preprocessing tiny.json --data {images_folder} --replace")
    assert (status, "takes one tile at once: its batch is frozen at 1" in err) == (1, True), f"{out}{err}"
