"""Every detector of images takes tiles: its graph equals the detector on tiles that were cut outside."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ir = pytest.importorskip("onnx_ir")

from lineproof.core.registry import resolve  # noqa: E402
from lineproof.core.tiles import Tiles  # noqa: E402
from lineproof.data.inputs.table import input_of  # noqa: E402
from lineproof.detectors.base import DETECTORS  # noqa: E402
from lineproof.detectors.nn.graph import FrameGraph  # noqa: E402
from lineproof.export.figures import count_figures  # noqa: E402
from lineproof.export.to_onnx import export_onnx  # noqa: E402

IMAGES = [name for name in sorted(DETECTORS) if resolve(DETECTORS, name, kind="detector").input_kind == "image"]
TILES = Tiles(height_px=64, width_px=48, overlap_px=16)
TOPS, LEFTS = (0, 32), (0, 32, 48)
MAX_BATCH = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def made():
    """What was made of a detector, by its name: tracing takes seconds."""
    return {}


@pytest.fixture(params=IMAGES)
def tiled(request, fit, made):
    """A small fit on squares, the specification of its frames in tiles, three frames, and its graph."""
    if request.param not in made:
        fitted = fit(request.param)
        whole = fitted.images.preprocessing(96, 96)
        frames = np.stack([input_of(whole).read(path) for path in fitted.images.paths[:MAX_BATCH]])
        spec = dataclasses.replace(whole, tiles=TILES)
        made[request.param] = fitted.detector, spec, frames, export_onnx(fitted.detector, spec, max_batch=MAX_BATCH)
    return made[request.param]


def test_the_graph_equals_tiles_cut_outside(tiled):
    ort = pytest.importorskip("onnxruntime")
    detector, spec, frames, model = tiled
    cut = np.stack([frame[y : y + 64, x : x + 48] for frame in frames for y in TOPS for x in LEFTS])
    with torch.inference_mode():
        scores, tile_maps = FrameGraph(spec.each, detector)(torch.from_numpy(cut))
        reference, reference_map = FrameGraph(spec, detector)(torch.from_numpy(frames))
    expected = scores.reshape(-1, 6).amax(1).numpy()
    np.testing.assert_allclose(reference.numpy(), expected, rtol=1e-5)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    scale = float(tile_maps.abs().max())
    corner = tile_maps.reshape(-1, 6, 64, 64)[:, 0, :32, :42].numpy()
    # The reference computes all tiles in one batch: what rounds otherwise there is the detector, not the stitching.
    np.testing.assert_allclose(reference_map.numpy()[:, :32, :42], corner, rtol=1e-5, atol=1e-5 * scale)
    for num in (1, MAX_BATCH):
        score, anomaly_map = session.run(None, {"frames": frames[:num]})
        np.testing.assert_allclose(score, expected[:num], rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_allclose(anomaly_map, reference_map.numpy()[:num], rtol=1e-3, atol=1e-3 * scale)


def test_what_it_costs_is_counted(tiled):
    detector, spec, _, model = tiled
    flops = count_figures(detector, model).flops
    each = count_figures(detector, export_onnx(detector, spec.each, max_batch=MAX_BATCH)).flops
    assert (flops["backbone"], flops["head"]) == (6 * each["backbone"], 6 * each["head"])


def test_tensorrt_rtx_builds_it(tiled, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install tensorrt-rtx")
    from lineproof.export.tensorrt.build import gate

    ir.save(tiled[3], tmp_path / "model.onnx")
    report = gate(tmp_path / "model.onnx", max_batch=MAX_BATCH)
    assert report.passed, report.errors
