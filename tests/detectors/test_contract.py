"""What every detector of the table must keep; a new one is tested here without an edit."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from safetensors.torch import load_file

torch = pytest.importorskip("torch")
ir = pytest.importorskip("onnx_ir")
ort = pytest.importorskip("onnxruntime")

from lineproof.core.errors import ExportError  # noqa: E402
from lineproof.core.registry import resolve  # noqa: E402
from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.detectors.base import DETECTORS, AbstractDetector, DetectorConfig, build_detector, make_config  # noqa: E402
from lineproof.detectors.checkpoint import CHECKPOINT, RECORD, load_reference  # noqa: E402
from lineproof.detectors.train import train  # noqa: E402
from lineproof.export.bundle import _save_model  # noqa: E402
from lineproof.export.figures import STAGES, count_figures, nodes_per_dtype, prove_precision  # noqa: E402
from lineproof.export.half import SAFE_OPERATORS, to_half  # noqa: E402
from lineproof.export.names import stage_of  # noqa: E402
from lineproof.export.to_onnx import export_onnx  # noqa: E402

MAX_BATCH = 8
FRAMES = {"rgb": (96, 96, 3), "mono": (96, 96, 1)}


def preprocessing(detector, frame="rgb"):
    height, width, channels = FRAMES[frame]
    size, crop = detector.config.resize_px, detector.config.crop_px
    return Preprocessing(height, width, channels, size, size, crop, crop, *detector.normalisation)


def frames_like(frame="rgb", count=MAX_BATCH):
    return np.random.default_rng(0).integers(0, 256, (count, *FRAMES[frame]), dtype=np.uint8)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function from a fit, a precision and a kind of frame to model.onnx; each is made once."""
    made = {}

    def get(fitted, precision="fp32", frame="rgb"):
        key = (fitted.name, precision, frame)
        if key not in made:
            folder = tmp_path_factory.mktemp("model")
            if precision == "fp16":
                model = ir.load(get(fitted, "fp32", frame)[0])
                to_half(model, fitted.detector.half_scopes)
            else:
                model = export_onnx(fitted.detector, preprocessing(fitted.detector, frame), max_batch=MAX_BATCH)
            _save_model(model, folder)
            made[key] = (folder / "model.onnx", model)
        return made[key]

    return get


def run_onnx(path, frames):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["score", "anomaly_map"], {"frames": frames})


def assert_parity(fitted, precision, got, want):
    tolerance = fitted.detector.tolerance(precision)
    for value, wanted, share in zip(got, want, (tolerance.score_margin, tolerance.anomaly_map), strict=True):
        spread = max(float(np.ptp(wanted)), 1e-3 * float(np.abs(wanted).max()))
        np.testing.assert_allclose(value, wanted, rtol=0, atol=share * spread)


def test_it_is_documented_and_typed(fitted):
    detector = type(fitted.detector)
    assert issubclass(detector, AbstractDetector)
    assert issubclass(detector.config_class, DetectorConfig)
    assert "arXiv" in inspect.getmodule(detector).__doc__ or "doi" in inspect.getmodule(detector).__doc__
    assert dataclasses.is_dataclass(detector.config_class)


def test_forward_gives_scores_and_maps(fitted):
    batch = fitted.images.batch([0, 1, 2])
    with torch.inference_mode():
        score, anomaly_map = fitted.detector(batch)
    size = fitted.detector.config.crop_px
    assert score.shape == (3,)
    assert anomaly_map.shape == (3, size, size)
    assert score.dtype == anomaly_map.dtype == torch.float32
    assert torch.isfinite(score).all()
    assert torch.isfinite(anomaly_map).all()
    assert score.unique().numel() == 3


def test_lowered_form_is_the_same_function(fitted):
    batch = fitted.images.batch(range(len(fitted.images)))
    before = fitted.detector.extra_parameters()
    with torch.inference_mode():
        want = fitted.detector(batch)
        got = fitted.detector.lower().eval()(batch)
        again = fitted.detector(batch)
    for value, wanted, repeated in zip(got, want, again, strict=True):
        atol = 1e-5 * max(1.0, float(wanted.abs().max()))
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), rtol=0, atol=atol)
        np.testing.assert_array_equal(repeated.numpy(), wanted.numpy())
    assert fitted.detector.extra_parameters() == before


def test_same_seed_gives_the_same_bits(fitted, dataset, tmp_path):
    config = make_config(fitted.name, fitted.record.detector.parameters)
    train(fitted.name, config, dataset=dataset, run=tmp_path / "again")
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


def test_exported_graph_is_the_reference(fitted, exported):
    frames = np.concatenate([frames_like(count=4), np.zeros((1, *FRAMES["rgb"]), np.uint8)])
    spec = preprocessing(fitted.detector)
    reference = load_reference(fitted.record.detector, spec, weights=fitted.run / CHECKPOINT)
    with torch.inference_mode():
        want = [item.numpy() for item in reference(torch.from_numpy(frames))]
    path, _ = exported(fitted)
    assert_parity(fitted, "fp32", run_onnx(path, frames), want)


def test_no_frame_depends_on_its_neighbours(fitted, exported):
    frames = frames_like()
    path, _ = exported(fitted)
    together = run_onnx(path, frames)
    alone = [np.concatenate(part) for part in zip(*(run_onnx(path, frame[None]) for frame in frames), strict=True)]
    for value, wanted in zip(together, alone, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=2e-6 * max(1.0, float(np.abs(wanted).max())))


def test_fp16_graph_is_half_where_it_may_be(fitted, exported):
    path, model = exported(fitted, "fp16")
    counted = nodes_per_dtype(model)
    prove_precision("fp16", counted)
    half = [node for node in model.graph if node.outputs[0].dtype == model.graph.inputs[0].dtype.FLOAT16]
    assert {node.op_type for node in half} - {"Cast"} <= SAFE_OPERATORS
    assert not [node.name for node in half if stage_of(node.name) in ("preprocess", "post")]
    with pytest.raises(ExportError, match=r"precision fp32 was asked for, but the written graph has \d+ fp16 nodes"):
        prove_precision("fp32", counted)
    frames = frames_like(count=4)
    full, _ = exported(fitted)
    assert_parity(fitted, "fp16", run_onnx(path, frames), run_onnx(full, frames))


def test_mono_frames_are_grey_rgb_frames(fitted, exported):
    frames = frames_like("mono", 2)
    mono, _ = exported(fitted, frame="mono")
    colour, _ = exported(fitted)
    assert_parity(fitted, "fp32", run_onnx(mono, frames), run_onnx(colour, np.repeat(frames, 3, axis=3)))


def test_nodes_are_named_after_modules(fitted, exported):
    _, model = exported(fitted)
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    assert {stage_of(name) for name in names} <= set(STAGES)
    assert [value.name for value in model.graph.inputs] == ["frames"]
    assert [value.name for value in model.graph.outputs] == ["score", "anomaly_map"]
    assert not [node.op_type for node in model.graph if node.domain not in ("", "ai.onnx")]


def test_exporting_twice_gives_the_same_graph(fitted, exported, tmp_path):
    path, _ = exported(fitted)
    _save_model(export_onnx(fitted.detector, preprocessing(fitted.detector), max_batch=MAX_BATCH), tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(fitted, exported, precision):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install tensorrt-rtx")
    from lineproof.export.tensorrt_build import gate

    path, _ = exported(fitted, precision)
    report = gate(path, max_batch=MAX_BATCH)
    assert report.passed, report.errors
    assert set(report.targets) == {"sm_86", "sm_89", "sm_120"}


def test_figures_are_counted(fitted, exported):
    _, model = exported(fitted)
    figures = count_figures(fitted.detector, model)
    assert set(figures.flops) == set(STAGES)
    assert figures.flops["backbone"] + figures.flops["head"] > 1e6
    trained = sum(item.numel() for item in fitted.detector.parameters() if item.requires_grad)
    assert figures.extra_parameters <= trained
    assert figures.constants_bytes > 0


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_quick_settings_need_no_hub(name):
    detector = resolve(DETECTORS, name, kind="detector")
    assert detector.quick_settings().get("weights") != "imagenet"
    assert build_detector(name, detector.config_class(**detector.quick_settings())).config.backbone
