"""The contract that every detector of the table must keep; a new one is tested here without an edit."""

import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
from safetensors.torch import load_file

torch = pytest.importorskip("torch")
ir = pytest.importorskip("onnx_ir")
ort = pytest.importorskip("onnxruntime")

from lineproof.bundle.runs.folder import CHECKPOINT, RECORD  # noqa: E402
from lineproof.core.errors import ExportError, UsageError  # noqa: E402
from lineproof.core.registry import resolve  # noqa: E402
from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.data.inputs.table import input_of  # noqa: E402
from lineproof.detectors.base import (  # noqa: E402
    DETECTORS,
    AbstractDetector,
    DetectorConfig,
    FitContext,
    TrainedConfig,
    build_detector,
    make_config,
)
from lineproof.detectors.nn.graph import FrameGraph  # noqa: E402
from lineproof.detectors.ranges import Range, allowed_values  # noqa: E402
from lineproof.detectors.training.checkpoint import load_reference  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402
from lineproof.detectors.training.trainer import Trainer  # noqa: E402
from lineproof.detectors.volume.wgan import WganTask  # noqa: E402
from lineproof.export.bundle import save_model  # noqa: E402
from lineproof.export.figures import STAGES, count_figures, nodes_per_dtype, prove_precision  # noqa: E402
from lineproof.export.passes.fp16 import SAFE_OPERATORS, to_half  # noqa: E402
from lineproof.export.passes.names import stage_of  # noqa: E402
from lineproof.export.to_onnx import export_onnx  # noqa: E402

MAX_BATCH = 8
CHANNELS = {"rgb": 3, "mono": 1}
#: How far a score may be off, of the range of the frames' scores: these are noise, to which no threshold belongs.
SCORE_SHARES = {"fp32": 1e-4, "fp16": 5e-2}


def frame_shape(detector, frame="rgb"):
    """Frames half as large again as the detector's images."""
    height, width = detector.config.resize_px
    return height * 3 // 2, width * 3 // 2, CHANNELS[frame]


def preprocessing(fitted, frame="rgb"):
    """That of its run where it takes scans; images are larger than what it sees."""
    if fitted.record.scans:
        return fitted.record.scans.spec
    config = fitted.detector.config
    sizes = frame_shape(fitted.detector, frame), config.resize_px, config.crop_px
    return Preprocessing.of(*sizes, normalisation=fitted.detector.normalisation)


def frames_like(fitted, frame="rgb", count=MAX_BATCH):
    """Noise for what takes images, and the test scans themselves: noise is no surface."""
    if fitted.record.scans:
        reader = input_of(fitted.record.scans.spec)
        return reader.prepare(np.stack([reader.read(path) for path in fitted.images.paths[:count]]))
    shape = (count, *frame_shape(fitted.detector, frame))
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function from a fit and a precision to model.onnx; each is made once. To trace a graph takes 3 to 20 s."""
    made = {}

    def get(fitted, precision="fp32"):
        key = (fitted.name, fitted.size, precision)
        if key not in made:
            folder = tmp_path_factory.mktemp("model")
            if precision == "fp16":
                model = ir.load(get(fitted)[0])
                to_half(model, fitted.detector.half_scopes)
            else:
                model = export_onnx(fitted.detector, preprocessing(fitted), max_batch=MAX_BATCH)
            save_model(model, folder)
            made[key] = (folder / "model.onnx", model)
        return made[key]

    return get


def run_onnx(path, frames):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["score", "anomaly_map"], {session.get_inputs()[0].name: frames})


def run_openvino(path, frames):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({0: frames})
    return [answer["score"], answer["anomaly_map"]]


def assert_parity(fitted, precision, got, want):
    anomaly_map = fitted.detector.tolerance(precision).anomaly_map
    for value, wanted, share in zip(got, want, (SCORE_SHARES[precision], anomaly_map), strict=True):
        spread = max(float(np.ptp(wanted)), 1e-3 * float(np.abs(wanted).max()))
        np.testing.assert_allclose(value, wanted, rtol=0, atol=share * spread)


def test_it_is_documented_and_typed(fitted_square):
    detector = type(fitted_square.detector)
    assert issubclass(detector, AbstractDetector)
    assert issubclass(detector.config_class, DetectorConfig)
    assert "arXiv" in inspect.getmodule(detector).__doc__ or "doi" in inspect.getmodule(detector).__doc__
    assert dataclasses.is_dataclass(detector.config_class)


def test_forward_gives_scores_and_maps(fitted_any):
    batch = fitted_any.images.batch([0, 1, 2])
    with torch.inference_mode():
        score, anomaly_map = fitted_any.detector(batch)
    assert fitted_any.detector.config.crop_px == fitted_any.size
    assert score.shape == (3,)
    assert anomaly_map.shape == (3, *fitted_any.size)
    assert score.dtype == anomaly_map.dtype == torch.float32
    assert torch.isfinite(score).all()
    assert torch.isfinite(anomaly_map).all()
    assert score.unique().numel() == 3
    if not fitted_any.detector.localises:
        assert (anomaly_map == score[:, None, None]).all(), "without localisation the map is the score at every pixel"


def test_lowered_form_is_the_same_function(fitted_any):
    batch = fitted_any.images.batch(range(len(fitted_any.images)))
    before = fitted_any.detector.extra_parameters()
    with torch.inference_mode():
        want = fitted_any.detector(batch)
        got = fitted_any.detector.lower().eval()(batch)
        again = fitted_any.detector(batch)
    for value, wanted, repeated in zip(got, want, again, strict=True):
        atol = 1e-5 * max(1.0, float(wanted.abs().max()))
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), rtol=0, atol=atol)
        np.testing.assert_array_equal(repeated.numpy(), wanted.numpy())
    assert fitted_any.detector.extra_parameters() == before


def test_same_seed_gives_the_same_bits(fitted, tmp_path):
    config = make_config(fitted.name, fitted.record.detector.parameters)
    train(fitted.name, config, dataset=fitted.dataset, run=tmp_path / "again", options=fitted.options)
    first, second = load_file(fitted.run / CHECKPOINT), load_file(tmp_path / "again" / CHECKPOINT)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name].numpy(), value.numpy(), err_msg=name)


def test_checkpoint_says_what_was_done(fitted):
    record = json.loads((fitted.run / RECORD).read_text())
    assert record["detector"]["name"] == fitted.name
    assert record["training"]["num_images"] + record["training"]["num_holdout"] == 10
    assert len(record["holdout"]) == len(record["holdout_scores"]) == 2
    assert record["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert not [item for item in fitted.run.iterdir() if item.suffix in (".pkl", ".pt", ".pth", ".ckpt")]


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_onnx, run_openvino])
def test_exported_graph_is_the_reference(fitted, exported, run):
    seen = frames_like(fitted, count=4)
    frames = np.concatenate([seen, np.zeros_like(seen[:1])])
    spec = preprocessing(fitted)
    reference = load_reference(fitted.record.detector, spec, weights=fitted.run / CHECKPOINT)
    with torch.inference_mode():
        want = [item.numpy() for item in reference(torch.from_numpy(frames))]
    path, _ = exported(fitted)
    assert_parity(fitted, "fp32", run(path, frames), want)


@pytest.mark.slow
def test_no_frame_depends_on_its_neighbours(fitted, exported):
    frames = frames_like(fitted)
    path, _ = exported(fitted)
    together = run_onnx(path, frames)
    alone = [np.concatenate(part) for part in zip(*(run_onnx(path, frame[None]) for frame in frames), strict=True)]
    for value, wanted in zip(together, alone, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=2e-6 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.slow
def test_fp16_graph_is_half_where_it_may_be(fitted, exported):
    path, model = exported(fitted, "fp16")
    counted = nodes_per_dtype(model)
    prove_precision("fp16", counted)
    half = [node for node in model.graph if node.outputs[0].dtype == model.graph.inputs[0].dtype.FLOAT16]
    assert {node.op_type for node in half} - {"Cast"} <= SAFE_OPERATORS
    assert not [node.name for node in half if stage_of(node.name) in ("preprocess", "post")]
    with pytest.raises(ExportError, match=r"precision fp32 was asked for, but the written graph has \d+ fp16 nodes"):
        prove_precision("fp32", counted)
    frames = frames_like(fitted, count=4)
    full, _ = exported(fitted)
    assert_parity(fitted, "fp16", run_onnx(path, frames), run_onnx(full, frames))


def test_mono_frames_are_grey_rgb_frames(fitted_square):
    """In the form that is traced; tests/export holds a mono graph to it, on every CPU engine."""
    detector = fitted_square.detector
    if detector.input_kind != "image":
        pytest.skip(f"{fitted_square.name} takes scans")
    frames = frames_like(fitted_square, "mono", 2)
    with torch.inference_mode():
        mono, colour = (
            [item.numpy() for item in FrameGraph(preprocessing(fitted_square, kind), detector.lower()).eval()(given)]
            for kind, given in (("mono", torch.from_numpy(frames)), ("rgb", torch.from_numpy(frames.repeat(3, axis=3))))
        )
    assert_parity(fitted_square, "fp32", mono, colour)


@pytest.mark.slow
def test_nodes_are_named_after_modules(fitted, exported):
    _, model = exported(fitted)
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    assert {stage_of(name) for name in names} <= set(STAGES)
    assert [value.name for value in model.graph.inputs] == [preprocessing(fitted).frames.name]
    assert [value.name for value in model.graph.outputs] == ["score", "anomaly_map"]
    assert not [node.op_type for node in model.graph if node.domain not in ("", "ai.onnx")]


@pytest.mark.slow
def test_exporting_twice_gives_the_same_graph(fitted_square, exported, tmp_path):
    path, _ = exported(fitted_square)
    model = export_onnx(fitted_square.detector, preprocessing(fitted_square), max_batch=MAX_BATCH)
    save_model(model, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(fitted, exported, precision):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install tensorrt-rtx")
    from lineproof.export.tensorrt.build import gate

    path, _ = exported(fitted, precision)
    report = gate(path, max_batch=MAX_BATCH)
    assert report.passed, report.errors
    assert set(report.targets) == {"sm_86", "sm_89", "sm_120"}


@pytest.mark.slow
def test_figures_are_counted(fitted, exported):
    _, model = exported(fitted)
    figures = count_figures(fitted.detector, model)
    assert set(figures.flops) == set(STAGES)
    trained = sum(item.numel() for item in fitted.detector.parameters() if item.requires_grad)
    # Without a network there is neither a convolution nor a product of matrices to count.
    assert (figures.flops["backbone"] + figures.flops["head"] > 1e6) == (trained + figures.backbone_parameters > 0)
    assert figures.extra_parameters <= trained
    # A network that restores depth images keeps nothing beside its weights.
    assert figures.constants_bytes > 0 or fitted.detector.input_kind == "depth"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_three_squares_side_by_side_cost_three_times_the_network(name, fit, exported):
    if not resolve(DETECTORS, name, kind="detector").takes_rectangles:
        pytest.skip(f"{name} takes squares alone")
    if resolve(DETECTORS, name, kind="detector").input_kind == "voxel":
        pytest.skip(f"{name} computes over a grid, whatever the frame's size")
    if name == "efficient_ad":
        pytest.skip(f"{name} has convolutions without padding, which lose as wide a border of every image")
    square, lying = fit(name), fit(name, (64, 192))
    sizes = {"resize_px": (64, 192), "crop_px": (64, 192)}
    if dataclasses.replace(square.detector.config, **sizes) != lying.detector.config:
        pytest.skip(f"{name} has other settings on a rectangle that small")
    one, three = (count_figures(item.detector, exported(item)[1]) for item in (square, lying))
    # The smallest maps are rounded up to whole positions.
    assert three.flops["backbone"] == pytest.approx(3 * one.flops["backbone"], rel=0.02)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_quick_settings_need_no_hub(name):
    detector = resolve(DETECTORS, name, kind="detector")
    assert detector.quick_settings().get("weights") != "imagenet"
    assert build_detector(name, make_config(name, detector.quick_settings())).config.backbone


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_presets_are_settings_with_a_source(name):
    presets = resolve(DETECTORS, name, kind="detector").presets()
    assert {"paper", "quick"} <= set(presets) <= {"paper", "repo", "table4", "small", "quick"}
    # The paper's values are the defaults themselves.
    assert presets["paper"].settings == {}
    for preset in presets.values():
        assert preset.source.endswith(".")
        for category in ("", *preset.by_category):
            make_config(name, {**preset.settings, **preset.of_category(category)})


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_epoch_runs_and_the_last_is_kept_unless_the_user_says_otherwise(name):
    config_class = resolve(DETECTORS, name, kind="detector").config_class
    if "epochs" not in {field.name for field in dataclasses.fields(config_class)}:
        pytest.skip(f"{name} has no epochs")
    assert issubclass(config_class, TrainedConfig)
    config = make_config(name, {})
    assert (config.keep, config.patience) == ("last", 0)
    assert make_config(name, {"keep": "best", "patience": "7"}).patience == 7


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_number_has_a_range_and_what_lies_outside_is_refused_by_name(name):
    config = make_config(name, {})
    allowed = allowed_values(type(config))
    numbers = {
        field.name
        for field in dataclasses.fields(config)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers == {key for key, value in allowed.items() if isinstance(value, Range)}
    for key, value in allowed.items():
        kind = type(getattr(config, key))
        ends = [value.low - 1] + ([value.low] if not value.takes_low else []) if isinstance(value, Range) else ["other"]
        for wrong in map(kind, ends):
            with pytest.raises(UsageError, match=rf"^{name}: {key} is .*; expected "):
                make_config(name, {key: wrong})


class _AtTheStartError(Exception):
    pass


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_trainer_is_told_what_to_keep(name, fit, monkeypatch):
    fitted = fit(name)
    small = fitted.detector.config
    if not isinstance(small, TrainedConfig):
        pytest.skip(f"{name} is not trained by gradient")
    seen = []

    def noted(trainer):
        seen.append(trainer._schedule)
        # A GAN has no loss by which one of its epochs would be better; the encoder after it has.
        if isinstance(trainer._task, WganTask):
            return {}
        raise _AtTheStartError

    monkeypatch.setattr(Trainer, "run", noted)
    detector = build_detector(name, dataclasses.replace(small, keep="last", patience=3))
    paths = [sample.path for sample in fitted.dataset.train]
    images, holdout = (image_set(detector, part, scans=fitted.record.scans) for part in (paths[:8], paths[8:]))
    with pytest.raises(_AtTheStartError):
        detector.fit(images, holdout, context=FitContext())
    assert (seen[-1].keeps, seen[-1].patience) == ("last", 3)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_all_trainings_of_a_fit_share_the_time_limit(name, fit, monkeypatch):
    fitted = fit(name)
    if not isinstance(fitted.detector.config, TrainedConfig):
        pytest.skip(f"{name} is not trained by gradient")
    limits = []
    monkeypatch.setattr(Trainer, "run", lambda trainer: limits.append(trainer._context.time_limit_s) or {})
    detector = build_detector(name, fitted.detector.config)
    paths = [sample.path for sample in fitted.dataset.train]
    images, holdout = (image_set(detector, part, scans=fitted.record.scans) for part in (paths[:8], paths[8:]))
    detector.fit(images, holdout, context=FitContext(time_limit_s=60.0))
    assert sum(limits) == pytest.approx(60.0)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_rectangle_is_taken_or_refused_with_the_reason(name):
    detector = resolve(DETECTORS, name, kind="detector")
    settings = {"resize_px": (128, 384), "crop_px": "128x384"}
    if detector.takes_rectangles:
        assert not detector.why_squares
        assert make_config(name, settings).crop_px == (128, 384)
        return
    with pytest.raises(UsageError, match=rf"crop_px is 128x384, but {name} {re.escape(detector.why_squares)}"):
        make_config(name, settings)


def marked_batch(fitted, row, column):
    """What the detector takes of its first image, plain and with a square of 16 pixels inverted around a pixel."""
    if fitted.record.scans:
        cloud = fitted.images.cloud(0)
        height, width = row * cloud.shape[0] // fitted.size[0], column * cloud.shape[1] // fitted.size[1]
        marked = cloud.copy()
        mark = marked[height - 12 : height + 12, width - 8 : width + 8]
        # Nearer along each ray, so that every point stays in its pixel.
        mark[..., :3] *= 0.98
        mark[..., 3:] = 255 - mark[..., 3:]
        return fitted.images.parts([cloud]), fitted.images.parts([marked])
    images = fitted.images.batch([0])
    marked = images.clone()
    mark = marked[:, :, row - 8 : row + 8, column - 8 : column + 8]
    # Not beyond what pixels can be.
    mark.copy_(images.max() + images.min() - mark)
    return images, marked


def test_a_mark_lights_up_where_it_is(fitted_rectangle):
    """Rows and columns are not taken for each other anywhere between the image and the map."""
    if not type(fitted_rectangle.detector).localises:
        pytest.skip(f"{fitted_rectangle.name} does not localise")
    height, width = fitted_rectangle.size
    row, column = height * 13 // 16, width * 3 // 16
    images, marked = marked_batch(fitted_rectangle, row, column)
    for module in (fitted_rectangle.detector, fitted_rectangle.detector.lower().eval()):
        with torch.inference_mode():
            change = (module(marked)[1] - module(images)[1])[0].abs()
        here, *mirrored = (
            float(change[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12].mean())
            for y, x in ((row, column), (height - row, column), (row, width - column), (height - row, width - column))
        )
        assert max(mirrored) < 0.6 * here
