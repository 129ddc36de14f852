"""The graph with tiles equals one that is given tiles which were cut outside, in PyTorch and in the CPU engines."""

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.core.tiles import Tiles  # noqa: E402
from lineproof.detectors.base import Deployed  # noqa: E402
from lineproof.detectors.nn.graph import FrameGraph, graph_part  # noqa: E402

#: name -> frame height, width, channels; resize height, width; tile height, width, overlap
SIZES = {
    "same scale": (40, 56, 3, 16, 24, 16, 24, 8),
    "no overlap": (32, 48, 3, 16, 24, 16, 24, 0),
    "shrunk": (100, 90, 3, 16, 16, 40, 40, 10),
    "shrunk, moved back": (97, 131, 3, 16, 16, 32, 48, 4),
    "mono": (50, 61, 1, 20, 20, 20, 30, 9),
    "enlarged": (30, 30, 3, 24, 24, 12, 12, 3),
    "one tile": (24, 40, 3, 12, 20, 24, 40, 0),
    "one row": (24, 90, 3, 24, 24, 24, 24, 6),
}


def make_spec(sizes):
    height, width, channels, rows, columns, *tile = sizes
    return Preprocessing(
        frame_height_px=height, frame_width_px=width, frame_channels=channels, resize_height_px=rows,
        resize_width_px=columns, crop_height_px=rows, crop_width_px=columns,
        tiles=Tiles(height_px=tile[0], width_px=tile[1], overlap_px=tile[2]),
    )  # fmt: skip


class Roughness(torch.nn.Module):
    """A map that is no linear function of an image and differs at its borders, and a score that is not its maximum."""

    def forward(self, images):
        padded = torch.nn.functional.pad(images.square().mean(1, keepdim=True), (1, 1, 1, 1))
        anomaly_map = torch.nn.functional.avg_pool2d(padded, 3, 1).squeeze(1).sqrt()
        return images.flatten(1).std(1) + anomaly_map.mean((1, 2)), anomaly_map


def frames_for(spec, num=3):
    shape = (num, *spec.frame_shape)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    frames[1, : shape[1] // 2] = 255
    return frames


def tiled_outside(frames, spec):
    """Score and map of each frame by an untiled graph and NumPy: cut, score, blend pixel by pixel."""
    height, width, overlap = spec.tiles.height_px, spec.tiles.width_px, spec.tiles.overlap_px
    untiled = FrameGraph(
        Preprocessing.of(
            (height, width, spec.frame_channels),
            (spec.resize_height_px, spec.resize_width_px),
            (spec.crop_height_px, spec.crop_width_px),
        ),
        Roughness(),
    ).eval()
    scores, maps = [], []
    for frame in frames:
        tops, lefts = (
            [*range(0, size - side, side - overlap), size - side]
            for size, side in ((frame.shape[0], height), (frame.shape[1], width))
        )
        out = {}
        for top in tops:
            for left in lefts:
                tile = frame[top : top + height, left : left + width]
                with torch.inference_mode():
                    score, anomaly_map = untiled(torch.from_numpy(tile[None].copy()))
                out[top, left] = float(score), anomaly_map[0].double().numpy()
        scores.append(max(score for score, _ in out.values()))
        maps.append(blended({key: value for key, (_, value) in out.items()}, frame.shape[:2], (height, width)))
    return np.array(scores), np.array(maps)


def blended(tile_maps, frame_px, tile_px):
    """Each pixel: tile maps read bilinearly at its centre, weighted by the distance to the nearer inner end."""
    num = next(iter(tile_maps.values())).shape
    size = [round(frame * pixels / tile) for frame, pixels, tile in zip(frame_px, num, tile_px, strict=True)]
    whole = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            centre = [
                (at + 0.5) * frame / sides for at, frame, sides in zip((row, column), frame_px, size, strict=True)
            ]
            weights, values = [], []
            for corner, tile_map in tile_maps.items():
                weight, places = 1.0, []
                for axis in range(2):
                    first, last, half = corner[axis], corner[axis] + tile_px[axis], 0.5 * tile_px[axis] / num[axis]
                    if not first <= centre[axis] <= last:
                        weight = 0.0
                        break
                    inner = [centre[axis] - first - half] * (first > 0) + [last - centre[axis] - half] * (
                        last < frame_px[axis]
                    )
                    weight *= max(min(inner, default=float(frame_px[axis])), 1e-9)
                    places.append((centre[axis] - first) * num[axis] / tile_px[axis] - 0.5)
                if weight:
                    weights.append(weight)
                    values.append(read(tile_map, places))
            whole[row, column] = np.dot(weights, values) / np.sum(weights)
    return whole


def read(tile_map, places):
    """Bilinear value, held constant beyond the outermost centres."""
    at = [min(max(place, 0.0), side - 1.0) for place, side in zip(places, tile_map.shape, strict=True)]
    low = [int(place) for place in at]
    high = [min(place + 1, side - 1) for place, side in zip(low, tile_map.shape, strict=True)]
    down, right = (place - first for place, first in zip(at, low, strict=True))
    return (
        tile_map[low[0], low[1]] * (1 - down) * (1 - right)
        + tile_map[high[0], low[1]] * down * (1 - right)
        + tile_map[low[0], high[1]] * (1 - down) * right
        + tile_map[high[0], high[1]] * down * right
    )


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_graph_with_tiles_equals_tiles_cut_outside(sizes):
    spec = make_spec(sizes)
    frames = frames_for(spec)
    with torch.inference_mode():
        score, anomaly_map = FrameGraph(spec, Roughness()).eval()(torch.from_numpy(frames))
    expected_score, expected_map = tiled_outside(frames, spec)
    np.testing.assert_allclose(score.numpy(), expected_score, rtol=1e-5)
    np.testing.assert_allclose(anomaly_map.numpy(), expected_map, rtol=1e-5, atol=1e-5)


def test_tiles_of_a_frame_stand_row_by_row():
    spec = make_spec(SIZES["same scale"])
    frames = frames_for(spec, 2)
    tiles = graph_part(spec)(torch.from_numpy(frames)).numpy()
    assert tiles.shape == (2 * 12, 3, 16, 24)
    grey = 255.0 * (tiles.transpose(0, 2, 3, 1) * np.array(spec.std) + np.array(spec.mean))
    places = [(frame, top, left) for frame in range(2) for top in (0, 8, 16, 24) for left in (0, 16, 32)]
    for tile, (frame, top, left) in zip(grey, places, strict=True):
        np.testing.assert_allclose(tile, frames[frame, top : top + 16, left : left + 24], atol=1e-3)


class Lowered:
    def lower(self):
        return Deployed(torch.nn.Identity(), torch.nn.Identity(), Roughness())


@pytest.mark.parametrize("engine", ["ort", "openvino"])
@pytest.mark.parametrize("name", ["same scale", "shrunk, moved back", "mono"])
def test_engines_compute_tiles_for_every_batch(engine, name):
    pytest.importorskip("onnxscript")
    ir = pytest.importorskip("onnx_ir")
    from lineproof.export.to_onnx import export_onnx

    spec = make_spec(SIZES[name])
    model = export_onnx(Lowered(), spec, max_batch=4)
    assert {node.name.split("/")[0] for node in model.graph} <= {"preprocess", "post"}
    proto = io.BytesIO(ir.serde.serialize_model(model).SerializeToString()).getvalue()
    run = RUNNERS[engine](proto)
    frames = frames_for(spec)
    expected_score, expected_map = tiled_outside(frames, spec)
    for num in (1, 3):
        score, anomaly_map = run(frames[:num])
        np.testing.assert_allclose(score, expected_score[:num], rtol=1e-5)
        np.testing.assert_allclose(anomaly_map, expected_map[:num], rtol=1e-5, atol=1e-5)


def run_ort(proto):
    session = pytest.importorskip("onnxruntime").InferenceSession(proto, providers=["CPUExecutionProvider"])
    return lambda frames: session.run(None, {"frames": frames})


def run_openvino(proto):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(proto), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frames: list(compiled({"frames": frames}).values())


RUNNERS = {"ort": run_ort, "openvino": run_openvino}
