"""Bundles of tiled frames: the graph, its engines, its threshold, and which runs have one."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnxscript")
ir = pytest.importorskip("onnx_ir")

from lineproof.bundle.runs.folder import CHECKPOINT, read_record  # noqa: E402
from lineproof.bundle.store import GOLDEN, open_bundle  # noqa: E402
from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.core.tiles import Tiles  # noqa: E402
from lineproof.data.inputs.table import input_of  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.nn.graph import FrameGraph  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import train  # noqa: E402
from lineproof.eval.parity.verify import verify  # noqa: E402
from lineproof.export.bundle import check_run, export_bundle  # noqa: E402
from lineproof.export.figures import count_flops  # noqa: E402
from lineproof.export.options import ExportOptions  # noqa: E402
from lineproof.export.passes.fp16 import to_half  # noqa: E402
from lineproof.export.to_onnx import export_onnx  # noqa: E402
from lineproof.runtime.engine import availability, cpu_engines, open_engine, predict  # noqa: E402

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": 32, "crop_px": 32, "num_features": 6}
TILES = Tiles(height_px=32, width_px=48, overlap_px=8)
TOPS, LEFTS = (0, 24, 48, 64), (0, 40, 48)


def trained(dataset, folder, **options):
    config = make_config("padim", SETTINGS)
    train("padim", config, dataset=dataset, run=folder, options=TrainOptions(holdout=1 / 3, **options))
    return folder


@pytest.fixture(scope="module")
def run(sample_dataset, tmp_path_factory):
    return trained(sample_dataset, tmp_path_factory.mktemp("tiles") / "run", tiles=TILES)


@pytest.fixture(scope="module")
def centres(sample_dataset, tmp_path_factory):
    """A run that learned the centres of the images."""
    return trained(sample_dataset, tmp_path_factory.mktemp("centres") / "run", frame=(32, 48), fit="crop")


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    return export_bundle(run, tmp_path_factory.mktemp("bundle") / "a.bundle", options=ExportOptions(max_batch=2))


def outside(run, frames):
    """Score of each frame, and the map at its corner tiles' own pixels, by the run's detector on tiles cut by NumPy."""
    detector = load_detector(read_record(run).detector, run / CHECKPOINT)
    config = detector.config
    each = Preprocessing.of((32, 48, 3), config.resize_px, config.crop_px, normalisation=detector.normalisation)
    untiled = FrameGraph(each, detector).eval()
    cut = np.stack([frame[y : y + 32, x : x + 48] for frame in frames for y in TOPS for x in LEFTS])
    with torch.inference_mode():
        score, anomaly_map = untiled(torch.from_numpy(cut))
    num = len(TOPS) * len(LEFTS)
    return score.numpy().reshape(-1, num).max(1), anomaly_map.numpy().reshape(-1, num, 32, 32)


def test_the_reference_and_the_engines_equal_tiles_cut_outside(run, bundle):
    golden = np.load(bundle.path / GOLDEN)
    expected, tile_maps = outside(run, golden["frames"])
    assert bundle.manifest.outputs[1].shape == ("N", 96, 64)
    np.testing.assert_allclose(golden["score"], expected, rtol=1e-5)
    # Where one tile alone lies, the map is that tile's: the upper left corner, rows and columns 0 to 23 and 0 to 26.
    np.testing.assert_allclose(golden["anomaly_map"][:, :24, :26], tile_maps[:, 0, :24, :26], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", *cpu_engines()])
def test_every_engine_computes_it(bundle, name):
    state = availability(name)
    if not state.is_available:
        pytest.skip(f"{name} cannot run here. Found: {state.found}. To fix: {state.fix}.")
    report = verify(bundle, engine=name)
    assert report.passed, report.failures
    golden = bundle.golden()
    with contextlib.closing(open_engine(bundle, name)) as engine:
        for num in (1, 2):
            answer = predict(engine, golden.frames[-num:])
            np.testing.assert_allclose(answer.score, golden.reference.score[-num:], rtol=1e-4)
            np.testing.assert_allclose(answer.anomaly_map, golden.reference.anomaly_map[-num:], rtol=1e-3, atol=1e-3)


def test_the_manifest_holds_the_tiles(bundle):
    raw = json.loads((bundle.path / "manifest.json").read_text())
    assert raw["preprocessing"]["tiles"] == {"height_px": 32, "width_px": 48, "overlap_px": 8}
    assert open_bundle(bundle.path).manifest.preprocessing.tiles == TILES
    spec = dataclasses.replace(bundle.manifest.preprocessing, tiles=dataclasses.replace(TILES, overlap_px=4))
    assert dataclasses.replace(bundle.manifest, preprocessing=spec).decision != bundle.manifest.decision


def test_a_manifest_without_tiles_is_as_before(bundle_of):
    plain = bundle_of()
    raw = json.loads((plain.path / "manifest.json").read_text())
    assert "tiles" not in raw["preprocessing"]
    assert open_bundle(plain.path).manifest.is_decision_recorded


def test_the_threshold_is_that_of_whole_frames(run, bundle):
    record, threshold = read_record(run), bundle.manifest.threshold
    assert threshold.num_good == len(record.holdout_scores)
    assert threshold.value > max(record.holdout_scores)


def half_nodes(detector, spec):
    model = export_onnx(detector, spec, max_batch=2)
    to_half(model, detector.half_scopes)
    computing = [node for node in model.graph if node.op_type != "Cast"]
    return {node.name for node in computing if node.outputs[0].dtype == ir.DataType.FLOAT16}


def test_fp16_computes_the_same_nodes_with_and_without_tiles(run, bundle):
    spec = bundle.manifest.preprocessing
    detector = load_detector(read_record(run).detector, run / CHECKPOINT)
    tiled = half_nodes(detector, spec)
    assert tiled
    assert tiled == half_nodes(detector, spec.each)


def test_what_a_frame_costs_is_counted_over_its_tiles(run, bundle):
    spec = bundle.manifest.preprocessing
    detector = load_detector(read_record(run).detector, run / CHECKPOINT)
    each = count_flops(export_onnx(detector, spec.each, max_batch=2))
    tiled = bundle.manifest.figures.flops
    assert tiled["backbone"] == 12 * each["backbone"]
    assert tiled["head"] == 12 * each["head"]
    # Stitching: rows (96 of 4 x 32 by 3 x 32), then columns (96 by 64 of 3 x 32).
    assert tiled["post"] - 12 * each["post"] == 2 * (96 * 128 * 96 + 96 * 96 * 64)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_for_rtx_builds_it(run, tmp_path, precision):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install tensorrt-rtx")
    from lineproof.export.tensorrt.build import gate

    made = export_bundle(run, tmp_path / "a.bundle", options=ExportOptions(precision=precision, max_batch=2))
    report = gate(made.model_path, max_batch=2)
    assert report.passed, report.errors


def test_another_overlap_sets_another_threshold(run, sample_dataset, tmp_path):
    tiles = dataclasses.replace(TILES, overlap_px=16)
    other = export_bundle(run, tmp_path / "a.bundle", options=ExportOptions(tiles=tiles, max_batch=1))
    assert other.manifest.preprocessing.tiles == tiles
    reader = input_of(other.manifest.preprocessing)
    frames = np.stack([reader.read(sample_dataset.root / name) for name in read_record(run).holdout])
    golden = np.load(other.path / GOLDEN)
    with contextlib.closing(open_engine(other, "torch")) as engine:
        scores = [float(predict(engine, frame[None]).score[0]) for frame in frames]
        np.testing.assert_allclose(predict(engine, golden["frames"][:1]).score, golden["score"][:1], rtol=1e-5)
    assert other.manifest.threshold.value > max(scores)
    assert other.manifest.score_spread == pytest.approx(float(np.std(scores, ddof=1)), rel=1e-4)


def test_a_run_that_learned_centres_gets_its_threshold_from_whole_frames(centres, sample_dataset, tmp_path):
    notes: list[str] = []
    options = ExportOptions(frame=(96, 96, 3), tiles=TILES, max_batch=2)
    made = export_bundle(centres, tmp_path / "a.bundle", options=options, conversions=notes)
    record, reader = read_record(centres), input_of(made.manifest.preprocessing)
    frames = np.stack([reader.read(sample_dataset.root / name) for name in record.holdout])
    expected, _ = outside(centres, frames)
    assert made.manifest.threshold.value > expected.max()
    assert expected.max() > max(record.holdout_scores)
    assert "Training saw the centre of each image in that size alone" in notes[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiles": dataclasses.replace(TILES, width_px=32)}, r"the run was trained on tiles of 32x48\. Leave it out"),
        (
            {"max_batch": 22},
            r"max_batch \(--batch\) is 22, and a frame has 12 tiles: 264 .* Give --batch 21\.",
        ),
    ],
)
def test_a_run_of_tiles_refuses_others(run, options, words):
    with pytest.raises(UsageError, match=words):
        check_run(read_record(run), ExportOptions(**options))


def test_a_run_of_whole_frames_refuses_tiles(run_folder, centres):
    whole = dataclasses.replace(TILES, height_px=96, width_px=96)
    for tiles in (TILES, whole):
        with pytest.raises(UsageError, match=r"trained on frames of 96x96 with fit none\. .* Train with --tiles on"):
            check_run(read_record(run_folder), ExportOptions(tiles=tiles))
    with pytest.raises(UsageError, match=r"trained on the centres of larger images .* Say with frame \(--frame\)"):
        check_run(read_record(centres), ExportOptions(tiles=TILES))


def test_frames_larger_than_the_held_out_images_are_refused(centres, tmp_path):
    options = ExportOptions(frame=(128, 128, 3), tiles=TILES, max_batch=1)
    with pytest.raises(BadInputError, match="the image is 96x96"):
        export_bundle(centres, tmp_path / "a.bundle", options=options)
