"""ONNX files of a tiny detector, in the dress of many exporters, become bundles that answer as NumPy does."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402

from lineproof.bundle.store import ORIGINAL, open_bundle  # noqa: E402
from lineproof.core.errors import BadInputError, BundleError, EnvironmentMissingError, UsageError  # noqa: E402
from lineproof.eval.parity.request import ParityRequest, verify_as_asked  # noqa: E402
from lineproof.eval.parity.verify import verify  # noqa: E402
from lineproof.importers.onnx_file.bundle import import_onnx  # noqa: E402
from lineproof.importers.onnx_file.options import ImportOptions  # noqa: E402
from lineproof.importers.onnx_file.specification import read_specification  # noqa: E402
from lineproof.runtime.engine import availability, open_engine, predict  # noqa: E402
from lineproof.runtime.original_engine import open_original  # noqa: E402

#: What the detector of the fixture ``specification`` takes: height and width.
INPUT = (8, 12)
#: Its only convolution: 2 × 2 pixels at a stride of 2, from three channels to two.
KERNEL = np.random.default_rng(3).normal(size=(2, 3, 2, 2)).astype(np.float32)

FLOATS = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16, "float64": onnx.TensorProto.DOUBLE}


def detector_file(
    path, *, batch="batch", layout="NCHW", dtype="float32", opset=17, score=(-1, 1), is_map_plane=False,
    free_size=False, reshape=None, external=False, is_relative=False,
):  # fmt: skip
    """Write it: convolution, absolute value, mean over channels as the map, its maximum and more as the score.

    ``score`` is the shape that the score is brought to; ``reshape`` a batch that is frozen inside the graph.
    """
    kind, size = FLOATS[dtype], INPUT
    sides = ("h", "w") if free_size else size
    shape = [batch, 3, *sides] if layout == "NCHW" else [batch, *sides, 3]
    nodes, name = [], "input"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [name], ["planes"], name="/to_planes", perm=[0, 3, 1, 2]))
        name = "planes"
    if reshape:
        nodes.append(helper.make_node("Reshape", [name, "frozen"], ["fixed"], name="/fix"))
        name = "fixed"
    map_shape = [batch, *([] if is_map_plane else [1]), *(("mh", "mw") if free_size else (size[0] // 2, size[1] // 2))]
    nodes += [
        helper.make_node("Conv", [name, "kernel"], ["features"], name="/net/conv/Conv", strides=[2, 2]),
        helper.make_node("Abs", ["features"], ["distance"]),
        helper.make_node("ReduceMean", ["distance"], ["anomaly_map"], axes=[1], keepdims=int(not is_map_plane)),
        helper.make_node("ReduceMax", ["distance"], ["highest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["distance"], ["of_all"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node(
            "Sub" if is_relative else "Max", ["highest", "of_all"] if is_relative else ["highest"], ["own"]
        ),
        helper.make_node("Reshape", ["own", "score_shape"], ["pred_score"], name="/score"),
        helper.make_node("Greater", ["anomaly_map", "limit"], ["pred_mask"], name="/mask"),
        helper.make_node("Greater", ["pred_score", "limit"], ["pred_label"], name="/label"),
    ]
    constants = [
        numpy_helper.from_array(KERNEL.astype(dtype), "kernel"),
        numpy_helper.from_array(np.asarray(1.0, dtype), "limit"),
        numpy_helper.from_array(np.asarray(score, np.int64), "score_shape"),
    ]
    if reshape:
        constants.append(numpy_helper.from_array(np.asarray([reshape, 3, *size], np.int64), "frozen"))
    if opset >= 18:
        _axes_as_inputs(nodes, constants)
    first = [batch] if score else []
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", kind, shape)],
        [
            helper.make_tensor_value_info("pred_score", kind, [*first, *score[1:]]),
            helper.make_tensor_value_info("pred_label", onnx.TensorProto.BOOL, [*first, *score[1:]]),
            helper.make_tensor_value_info("anomaly_map", kind, map_shape),
            helper.make_tensor_value_info("pred_mask", onnx.TensorProto.BOOL, map_shape),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=64)
    else:
        onnx.save(model, path)
    return path


def _axes_as_inputs(nodes, constants):
    for node in nodes:
        for item in [item for item in node.attribute if item.name == "axes"]:
            name = f"axes_of_{node.output[0]}"
            constants.append(numpy_helper.from_array(np.asarray(item.ints, np.int64), name))
            node.input.append(name)
            node.attribute.remove(item)


def tiny_detector(images):
    """The same on float64 images (N, C, h, w): the score (N,), and the map (N, h / 2, w / 2)."""
    num, _, height, width = images.shape
    blocks = images.reshape(num, images.shape[1], height // 2, 2, width // 2, 2)
    distance = np.abs(np.einsum("ncyaxb,kcab->nkyx", blocks, KERNEL.astype(np.float64)))
    return distance.max(axis=(1, 2, 3)), distance.mean(axis=1)


def normalised(frames, values):
    """Frames as the detector was trained on them, RGB float64 (N, 3, 8, 12), by PyTorch in float64."""
    images = torch.from_numpy(frames.astype(np.float64)).permute(0, 3, 1, 2) / 255
    if values["resize_px"]:
        images = torch.nn.functional.interpolate(
            images, values["resize_px"], mode="bilinear", antialias=True, align_corners=False
        )
    top, left = (round((side - kept) / 2) for side, kept in zip(images.shape[2:], INPUT, strict=True))
    images = images[..., top : top + INPUT[0], left : left + INPUT[1]].expand(-1, 3, -1, -1).numpy()
    mean, std = (np.reshape(item, (1, 3, 1, 1)) for item in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    return (images - mean) / std


def expected(frames, values):
    """Score and map of the bundle, the map enlarged by PyTorch."""
    images = normalised(frames, values)
    score, maps = tiny_detector(images[:, ::-1] if values["channel_order"] == "bgr" else images)
    if values["score"] is None:
        rule = values["score_from_map"]
        score = np.sort(maps.reshape(len(maps), -1))[:, -(1 if rule == "max" else rule) :].mean(axis=1)
    if values["anomaly_map"] is None:
        return score, np.broadcast_to(score[:, None, None], (len(score), *INPUT))
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(maps[:, None]), INPUT, mode="bilinear")
    return score, enlarged[:, 0].numpy()


def scaled(values, factor):
    return [value * factor for value in values]


MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
#: How the file is written, and what else the specification then says.
DRESSES = {
    "as anomalib's": ({"score": (-1, 1)}, {}),
    "bgr": ({}, {"channel_order": "bgr", "mean": MEAN[::-1], "std": STD[::-1]}),
    "grey levels": ({}, {"value_range": "0..255", "mean": scaled(MEAN, 255), "std": scaled(STD, 255)}),
    "nhwc": ({"layout": "NHWC"}, {"layout": "NHWC"}),
    "no score": ({}, {"score": None, "score_from_map": "max"}),
    "no score, highest": ({}, {"score": None, "score_from_map": 5}),
    "no map": ({}, {"anomaly_map": None}),
    "flat": ({"score": (-1,), "is_map_plane": True}, {}),
    "scalar": ({"score": (), "batch": 1}, {}),
    "frozen batch": ({"batch": 1, "score": (1, 1, 1, 1)}, {}),
    "free size": ({"free_size": True}, {}),
    "opset 11": ({"opset": 11}, {}),
    "opset 20": ({"opset": 20}, {}),
    "weights beside it": ({"external": True}, {}),
    "mono frames": ({}, {"frame_channels": 1}),
    "no crop": ({}, {"resize_px": [8, 12], "crop_px": None}),
    "float16": ({"dtype": "float16"}, {}),
}  # fmt: skip


FAST = ("as anomalib's", "bgr", "no map")


@pytest.fixture
def import_file(tmp_path, dataset, specification):
    """A function from how the file is written to its import; other words change the specification."""

    def run(written=None, *, options=None, **changes):
        return import_into(tmp_path, dataset, specification(**changes), written=written, options=options)

    return run


def import_into(folder, dataset, values, *, written=None, options=None):
    file = detector_file(folder / "model.onnx", **(written or {}))
    (folder / "preprocessing.json").write_text(json.dumps(values))
    path, out = folder / "preprocessing.json", folder / "a.bundle"
    return import_onnx(file, preprocessing=path, dataset=dataset, out=out, options=options)


@pytest.fixture(scope="module")
def dressed(tmp_path_factory, dataset, specification):
    """A function from the name of a dress to its import; each is made once and must be left as it is."""
    made = {}

    def get(dress):
        if dress not in made:
            written, changes = DRESSES[dress]
            made[dress] = import_into(
                tmp_path_factory.mktemp("import"), dataset, specification(**changes), written=written
            )
        return made[dress]

    return get


@pytest.mark.parametrize("engine", ["ort-cpu", "openvino"])
@pytest.mark.parametrize(
    "dress", [pytest.param(dress, marks=[pytest.mark.slow] * (dress not in FAST)) for dress in DRESSES]
)
def test_every_dress_gives_numpys_answers(dressed, specification, dress, engine):
    if not availability(engine).is_available:
        pytest.skip(f"{engine} cannot run here. Found: {availability(engine).found}.")
    bundle, values = dressed(dress).bundle, specification(**DRESSES[dress][1])
    golden = bundle.golden()
    score, anomaly_map = expected(golden.frames, values)
    tolerance = {"rtol": 5e-3, "atol": 5e-3} if dress == "float16" else {"rtol": 2e-5, "atol": 2e-5}
    np.testing.assert_allclose(golden.reference.score, score, **tolerance)
    np.testing.assert_allclose(golden.reference.anomaly_map, anomaly_map, **tolerance)
    report = verify(bundle, engine=engine, batch=min(3, bundle.manifest.max_batch))
    assert report.passed, report.failures
    answer = predict(open_engine(bundle, engine), golden.frames[: bundle.manifest.max_batch])
    np.testing.assert_allclose(answer.score, score[: len(answer.score)], **tolerance)
    np.testing.assert_allclose(answer.anomaly_map, anomaly_map[: len(answer.score)], **tolerance)


REFUSED = {
    "another name": ({}, {"input": "images"}, r"has no input 'images', which input names; it has input float"),
    "no such map": ({}, {"anomaly_map": "map"}, r"has no output 'map', which anomaly_map names; it has pred"),
    "a verdict": ({}, {"score": "pred_label"}, r"pred_label is tensor\(bool\); expected float32, float16 or float64"),
    "another size": (
        {},
        {"crop_px": [6, 12]},
        r"is \(batch, 3, 8, 12\), and the pre-processing gives \(N, 3, 6, 12\): RGB 6x12 NCHW in 0\.\.1",
    ),
    "another layout": ({}, {"layout": "NHWC"}, r"the pre-processing gives \(N, 8, 12, 3\): RGB 8x12 NHWC in 0\.\.1"),
    "frozen at 2": ({"batch": 2}, {}, r"is frozen at a batch of 2 \(input input \(2, 3, 8, 12\)\); expected a sym"),
    "frozen inside": ({"reshape": 2}, {}, r"Expected it to run on one frame\. Its batch may be frozen inside"),
    "a rule of more values": (
        {},
        {"score": None, "score_from_map": 10_000_000},
        r"score_from_map is 10000000; expected at most 24, the number of values of the model's own map \(4x6\)",
    ),
    "a map as score": (
        {},
        {"score": "anomaly_map", "anomaly_map": None},
        r"Output anomaly_map has the shape \(1, 1, 4, 6\) for 1 image; expected a score each: \(1,\) or \(1, 1\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_words(import_file, case):
    written, changes, words = REFUSED[case]
    with pytest.raises(BadInputError, match=words):
        import_file(written, **changes)


SPECIFICATIONS = {
    "value_range": ({"value_range": ...}, r"value_range is missing; expected one of '0\.\.1', '0\.\.255'"),
    "unknown": ({"resize": 256}, r"resize is no field of this file; expected frame_height_px, frame_width_px"),
    "mean": ({"mean": [0.5]}, r"mean holds 1 values; expected 3, one per channel of channel_order 'rgb'"),
    "std": ({"std": [1, 0, 1]}, r"std is \[1, 0, 1\]; expected values above 0\. Write 1 where nothing is divided"),
    "neither": ({"score": None, "anomaly_map": None}, r"score and anomaly_map are both null; expected the name of one"),
    "no rule": ({"score": None}, r'score is null; expected score_from_map to say how it is made of the map: "max", or'),
    "two rules": (
        {"score_from_map": "max"},
        r"score is 'pred_score' and score_from_map 'max': the score would be made",
    ),
    "no values": ({"score": None, "score_from_map": 0}, r"score_from_map is 0; expected 1 or more values of the map"),
    "the same": ({"anomaly_map": "pred_score"}, r"score and anomaly_map are both 'pred_score'; expected two outputs"),
    "crop": ({"crop_px": [16, 16]}, r"The crop 16x16 is larger than the resized image 10x15"),
    "size": ({"resize_px": [0, 15]}, r"resize_px is 0x15 \(height x width\); expected 1 or more on each side"),
    "grey of colours": (
        {"channel_order": "mono", "mean": [0], "std": [1]},
        r"channel_order is 'mono' and frame_channels is 3: which grey an RGB frame has is not defined",
    ),
    "a bool": ({"frame_channels": True}, r"frame_channels is True, expected one of 1, 3"),
}


@pytest.mark.parametrize("case", SPECIFICATIONS)
def test_a_specification_that_leaves_something_open_is_refused(specification, tmp_path, case):
    changes, words = SPECIFICATIONS[case]
    values = {key: value for key, value in specification(**changes).items() if value is not ...}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values))
    with pytest.raises(BadInputError, match=rf"a\.json: {words}.*docs/import-onnx\.md says what every field means"):
        read_specification(path)


def test_a_specification_that_cannot_be_read(tmp_path):
    with pytest.raises(
        BadInputError, match=r"preprocessing \(--preprocessing\): .*a\.json: no such file or directory\."
    ):
        read_specification(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{'mean': 0}")
    with pytest.raises(BadInputError, match=r"a\.json is not JSON \(Expecting property name.*has an example to copy"):
        read_specification(tmp_path / "a.json")


def test_files_that_are_no_model_are_refused_in_words(tmp_path, dataset, specification):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(specification()))

    def run(name):
        import_onnx(tmp_path / name, preprocessing=path, dataset=dataset, out=tmp_path / "a.bundle")

    with pytest.raises(BadInputError, match=r"b\.onnx does not exist; expected an ONNX file\. Check the path"):
        run("b.onnx")
    with pytest.raises(BadInputError, match=r"a\.json: ONNX Runtime cannot open it: .*Expected a whole ONNX file"):
        run("a.json")
    detector_file(tmp_path / "c.onnx", external=True)
    (tmp_path / "c.onnx.data").unlink()
    with pytest.raises(BadInputError, match=r"c\.onnx\.data.*with the file of its weights beside it where it has one"):
        run("c.onnx")
    assert not (tmp_path / "a.bundle").exists()


def test_a_data_set_without_good_images_is_refused(tmp_path, dataset, specification):
    train_only = dataclasses.replace(dataset, samples=dataset.train)
    with pytest.raises(BadInputError, match=r"holds 0 validation images and 0 good test images; expected two or more"):
        import_into(tmp_path, train_only, specification())


def test_options_out_of_range_are_refused(import_file):
    with pytest.raises(UsageError, match=r"max_batch \(--batch\) is 0; expected at least 1"):
        import_file(options=ImportOptions(max_batch=0))
    with pytest.raises(UsageError, match=r"The threshold is nan; expected a finite number"):
        import_file(options=ImportOptions(threshold=float("nan")))
    with pytest.raises(UsageError, match=r"max_batch \(--batch\) is 4, and .* at once: its batch is frozen at 1 \("):
        import_file({"batch": 1}, options=ImportOptions(max_batch=4))
    with pytest.raises(
        UsageError, match=r"at once: its batch is symbolic, but 3 at once do not run \(.*: /fix: The input"
    ):
        import_file({"reshape": 1}, options=ImportOptions(max_batch=4))


def test_what_stands_in_the_bundle(dressed):
    bundle = open_bundle(dressed("as anomalib's").bundle.path)
    manifest = bundle.manifest
    model = onnx.load(bundle.model_path)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert list(dict.fromkeys(name.split("/")[0] for name in names)) == ["preprocess", "model", "post"]
    assert "model/net/conv/Conv" in names
    # The labels that the file gives as well are no part of the bundle.
    assert not {node.op_type for node in model.graph.node} & {"Greater"}
    notes = {item.key: item.value for item in model.metadata_props}
    assert notes["lineproof.detector"] == "onnx"
    assert float(notes["lineproof.threshold"]) == manifest.threshold.value
    assert (manifest.name, manifest.precision, manifest.max_batch) == ("nut-model", "fp32", 8)
    assert manifest.imported.sha256 == manifest.files[f"{ORIGINAL}/model.onnx"].sha256
    assert manifest.threshold.source == "6 good test images of MVTec AD layout nut"
    assert manifest.threshold.engine == "original"
    assert (manifest.training.num_images, manifest.training.num_holdout) == (0, 6)
    assert manifest.figures.extra_parameters == KERNEL.size
    # Two products of 2 × 2 pixels of 3 channels at 4 × 6 places: both channels of the convolution.
    assert manifest.figures.flops["model"] == 2 * 2 * 12 * 24
    assert set(manifest.figures.flops) == {"preprocess", "model", "post"}


def test_what_was_found_out_is_said(dressed):
    notes = " ".join(dressed("no score, highest").notes)
    assert "The reference is model.onnx in ONNX Runtime" in notes
    assert "The model's map is 4x6 for an input of 8x12: the graph enlarges it, bilinear." in notes
    assert "The score is the mean of the 5 highest values of output anomaly_map." in notes
    assert "the threshold is set on its good test images" in notes
    lines = " ".join(dressed("as anomalib's").summary_lines())
    assert re.search(r"Bundle: .*a\.bundle \(not verified yet: lineproof verify .*Threshold .* of 6 good parts", lines)
    assert dressed("as anomalib's").to_dict()["max_batch"] == 8


@pytest.mark.slow
def test_a_map_that_is_none_says_so(dressed):
    assert "the bundle's map is the score at every pixel and localises nothing" in " ".join(dressed("no map").notes)


@pytest.mark.slow
def test_a_file_in_float16_makes_a_bundle_in_fp16(dressed):
    manifest = dressed("float16").bundle.manifest
    assert manifest.precision == "fp16"
    assert manifest.figures.nodes_per_dtype["float16"] > 0


@pytest.mark.slow
def test_a_frozen_batch_makes_a_bundle_of_batch_1(dressed):
    result = dressed("frozen batch")
    assert result.bundle.manifest.max_batch == 1
    words = r"The bundle takes one frame at once: its batch is frozen at 1 \(input input \(1, 3, 8, 12\)\)\. Export it"
    assert re.search(words, " ".join(result.notes))
    (frames,) = onnx.load(result.bundle.model_path).graph.input
    assert [dim.dim_value for dim in frames.type.tensor_type.shape.dim] == [1, 20, 24, 3]


def test_scores_that_depend_on_the_batch_make_a_bundle_of_batch_1(import_file):
    result = import_file({"is_relative": True})
    assert result.bundle.manifest.max_batch == 1
    words = "The bundle takes one frame at once: the score of a frame depends on the other frames of its batch"
    assert words in " ".join(result.notes)


def test_weights_beside_the_file_come_along(dressed):
    bundle = dressed("weights beside it").bundle
    assert f"{ORIGINAL}/model.onnx.data" in bundle.manifest.files
    assert open_original(bundle).describe()["engine"] == "original"
    # The bundle's own graph holds them itself.
    own = onnx.load(bundle.model_path, load_external_data=False)
    assert not [item.name for item in own.graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL]


def test_a_data_set_is_compared_with_the_file_itself(dressed, images_folder):
    bundle, said = dressed("bgr").bundle, []
    request = ParityRequest(engine="ort-cpu", data=images_folder, batch=4)
    report = verify_as_asked(bundle, request, warn=said.append)
    assert (report.reference, report.passed, said) == ("original", True, [""])
    assert report.num_frames == report.num_golden + 9
    assert report.score_max_abs_error < 1e-5


def test_without_the_original_another_engine_must_be_proved(tmp_path, dressed, images_folder):
    shutil.copytree(dressed("bgr").bundle.path, tmp_path / "a.bundle")
    bundle = open_bundle(tmp_path / "a.bundle")
    kept = {name: item for name, item in bundle.manifest.files.items() if not name.startswith(ORIGINAL)}
    bundle = bundle.change(lambda manifest: dataclasses.replace(manifest, files=kept))
    with pytest.raises(
        EnvironmentMissingError, match=r"PyTorch cannot \(the bundle was imported with --no-reference\)"
    ):
        verify_as_asked(bundle, ParityRequest(engine="ort-cpu", data=images_folder))
    with pytest.raises(
        BundleError, match=r"carries no original: it was not imported, or with --no-reference\. Name an"
    ):
        verify_as_asked(bundle, ParityRequest(engine="ort-cpu", data=images_folder, reference="original"))


def test_a_graph_that_prepares_frames_otherwise_fails_its_proof(import_file, monkeypatch):
    """The golden answers are not the graph's own: BGR is forgotten in the graph, and the proof says so."""
    monkeypatch.setattr(torch.Tensor, "flip", lambda images, _axis: images)
    bundle = import_file(channel_order="bgr", mean=MEAN[::-1], std=STD[::-1]).bundle
    report = verify(bundle, engine="ort-cpu")
    assert report.state == "failed"
    assert re.search(r"The score is off by", " ".join(report.failures))


def test_a_given_threshold_and_a_validation_split(tmp_path, dataset, specification):
    held = tuple(dataclasses.replace(item, split="validation") for item in dataset.test if not item.label)
    split = dataclasses.replace(dataset, samples=(*dataset.train, *held))
    options = ImportOptions(threshold=1.5, max_batch=2, has_reference=False)
    result = import_into(tmp_path, split, specification(), options=options)
    manifest = result.bundle.manifest
    assert (manifest.threshold.value, manifest.threshold.num_good) == (1.5, 0)
    assert manifest.threshold.source == "given at the import"
    assert manifest.max_batch == 2
    assert not any(name.startswith(ORIGINAL) for name in manifest.files)
    assert "test images" not in " ".join(result.notes)


def test_a_quantised_file_is_refused(tmp_path, dataset, specification):
    path = detector_file(tmp_path / "plain.onnx", opset=18)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(0.1, np.float32), "step"))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.int8), "zero"))
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "step", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "step", "zero"], ["rounded"]),
    ]
    model.graph.node[0].input[0] = "rounded"
    for number, node in enumerate(nodes):
        model.graph.node.insert(number, node)
    onnx.save(model, path)
    (tmp_path / "a.json").write_text(json.dumps(specification()))
    with pytest.raises(
        BadInputError, match=r"plain\.onnx is quantised \(DequantizeLinear, QuantizeLinear\); expected a"
    ):
        import_onnx(path, preprocessing=tmp_path / "a.json", dataset=dataset, out=tmp_path / "a.bundle")
