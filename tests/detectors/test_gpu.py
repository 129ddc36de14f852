"""Every detector, the whole way on a GPU: fitted on CUDA, exported, in ort-cuda equal to the CPU's reference."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.data.inputs.table import input_of  # noqa: E402
from lineproof.detectors.base import DETECTORS  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector, load_reference, score_images  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402
from lineproof.export.bundle import export_bundle  # noqa: E402
from lineproof.runtime.engine import availability, open_engine, predict  # noqa: E402

#: How far a score may be off, of the range of the frames' scores: these are noise, to which no threshold belongs.
SCORE_SHARE = 1e-4
ON_GPU = [pytest.param(name, "cuda", "ort-cuda", marks=pytest.mark.gpu) for name in sorted(DETECTORS)]
#: What runs without a GPU holds the test itself: one of each kind of input.
ON_CPU = [pytest.param(name, "cpu", "ort-cpu", marks=pytest.mark.slow) for name in ("padim", "depth_vm", "voxel_vm")]


def check_hardware(device, engine):
    """Skip where torch or the engine finds no GPU; fail where LINEPROOF_REQUIRE names the engine."""
    state, words = availability(engine), ""
    if device == "cuda" and not torch.cuda.is_available():
        words = f"torch {torch.__version__} finds no CUDA GPU"
    elif not state.is_available:
        words = f"{engine} cannot run here. Found: {state.found}. To fix: {state.fix}"
    if words and engine in os.environ.get("LINEPROOF_REQUIRE", "").split(","):
        pytest.fail(f"LINEPROOF_REQUIRE names {engine}, and {words}")
    if words:
        pytest.skip(words)


def frames_of(spec, dataset):
    """Four frames as the graph takes them: noise, or the first test scans."""
    if spec.kind == "image":
        return np.random.default_rng(0).integers(0, 256, (4, *spec.frame_shape), dtype=np.uint8)
    reader = input_of(spec)
    return reader.prepare(np.stack([reader.read(sample.path) for sample in dataset.test[:4]]))


@pytest.mark.parametrize(("name", "device", "engine"), ON_GPU + ON_CPU)
def test_fitted_on_a_device_it_is_the_reference_in_an_engine(name, device, engine, data_of, settings_of, tmp_path):
    check_hardware(device, engine)
    run = tmp_path / "run"
    dataset, options = data_of(name, device=device)
    record = train(name, settings_of(name), dataset=dataset, run=run, options=options)
    assert record.fit.get("device") == ("cuda:0" if device == "cuda" else None)

    detector = load_detector(record.detector, run / CHECKPOINT)
    held_out = image_set(detector, [dataset.root / name for name in record.holdout], scans=record.scans)
    assert list(record.holdout_scores) == score_images(detector, held_out), "a threshold comes from the reference"

    bundle = export_bundle(run, tmp_path / "model.bundle")
    spec = bundle.manifest.preprocessing
    frames = frames_of(spec, dataset)
    with torch.inference_mode():
        reference = load_reference(record.detector, spec, weights=run / CHECKPOINT)(torch.from_numpy(frames))
    got = predict(open_engine(bundle, engine), frames)
    shares = SCORE_SHARE, detector.tolerance("fp32").anomaly_map
    for value, wanted, share in zip((got.score, got.anomaly_map), reference, shares, strict=True):
        atol = share * max(float(np.ptp(wanted.numpy())), 1e-3 * float(wanted.abs().max()))
        np.testing.assert_allclose(value, wanted.numpy(), rtol=0, atol=atol)
