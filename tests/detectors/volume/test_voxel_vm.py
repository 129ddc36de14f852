"""Voxel VM against NumPy, cell by cell; and the whole way from scans to proved verdicts."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.bundle.runs.folder import RECORD, read_record  # noqa: E402
from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.data.calibration import read_camera  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.data.files import CALIBRATION  # noqa: E402
from lineproof.data.inputs.table import input_of  # noqa: E402
from lineproof.data.scans import Extent, survey_scans  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import train  # noqa: E402

PLAIN = {"copies": 0, "num_cells": 12}


def filled(spec, cloud):
    """The grid of a cloud, point by point: float64 (C, z, y, x)."""
    side = spec.num_cells
    points = {}
    for pixel in cloud.reshape(-1, cloud.shape[2]).astype(np.float64):
        if pixel[:3].any():
            places = np.floor((pixel[:3] - spec.origin_m) * side / spec.edge_m).astype(int).clip(0, side - 1)
            points.setdefault(tuple(places[::-1]), []).append(pixel[3:] / 255)
    grid = np.full((3 if spec.has_rgb else 1, side, side, side), -1.0)
    for place, colours in points.items():
        grid[(slice(None), *place)] = np.mean(colours, axis=0) if spec.has_rgb else 1.0
    return grid


@pytest.mark.parametrize("rgb", ["false", "true"])
def test_scores_by_cell_and_by_pixel(brackets, fit_of, rgb):
    fit = fit_of("voxel_vm", rgb=rgb, **PLAIN)
    spec = fit.record.scans.spec
    learned, tested = fit.scans_of(brackets.train), fit.scans_of(brackets.test[:3])
    grids = np.stack([filled(spec, learned.cloud(index)) for index in range(len(learned))])
    mean = grids.mean(0)
    with torch.inference_mode():
        score, anomaly_map = (item.numpy() for item in fit.detector(tested.batch(range(3))))
    for number in range(3):
        offsets = filled(spec, tested.cloud(number)) - mean
        distances = np.zeros(offsets.shape[1:])
        for place in np.argwhere((offsets != 0).any(0)):
            at = (slice(None), *place)
            here, offset = grids[(slice(None), *at)], offsets[at]
            if rgb == "true":
                precision = np.linalg.inv(np.cov(here.T) + 0.01 * np.eye(3))
            else:
                precision = np.diag(1 / np.maximum(here.std(0, ddof=1), 0.1) ** 2)
            distances[tuple(place)] = np.sqrt(offset @ precision @ offset)
        padded = np.append(distances.ravel(), 0.0)
        _, cells = tested.batch([number])
        own = padded[cells[0].numpy()].reshape(64, 64)
        np.testing.assert_array_less(own, anomaly_map[number] + 1e-3)
        seen = padded[fit.detector.table.numpy()].max(1).reshape(1, 1, 16, 16)
        along = torch.nn.functional.interpolate(torch.from_numpy(seen), (64, 64), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(anomaly_map[number], np.maximum(own, along[0, 0].numpy()), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(score[number], anomaly_map[number].max())


def test_a_bump_of_a_stated_height_raises_the_map_there_and_nowhere_else(brackets, fit_of, with_bump):
    fit = fit_of("voxel_vm", copies=0, num_cells=32, ray_stride_px=1)
    spec = fit.record.scans.spec
    scans = fit.scans_of(brackets.test[:1])
    cloud = scans.cloud(0)
    # Higher than two cells, so that it reaches one that no good part has filled.
    changed, place = with_bump(cloud, height_m=2.2 * spec.edge_m / spec.num_cells)
    plain, bumped = (fit.detector(scans.parts([item]))[1][0].numpy() for item in (cloud, changed))
    difference = bumped - plain
    assert np.median(difference[place]) > 5.0
    far = np.ones(difference.shape, bool)
    # A cell is four pixels wide, and a ray goes on through what lies behind.
    far[place[0].start - 6 : place[0].stop + 6, place[1].start - 6 : place[1].stop + 6] = False
    assert np.abs(difference[far]).max() < 1e-4


def test_every_pixel_has_a_score_also_without_a_measurement(brackets, fit_of):
    fit = fit_of("voxel_vm", copies=0, num_cells=32, ray_stride_px=1)
    scans = fit.scans_of(brackets.test[:1])
    hidden = scans.cloud(0).copy()
    hidden[20:40, 20:40] = 0.0
    _, cells = scans.parts([hidden])
    is_lost = (cells == 32**3).numpy().reshape(64, 64)
    assert is_lost[20:40, 20:40].all()
    anomaly_map = fit.detector(scans.parts([hidden]))[1][0].numpy()
    # The surface is missing where rays used to meet it: cells that are always filled are empty now.
    assert np.median(anomaly_map[20:40, 20:40]) > 5.0


def test_the_record_holds_box_and_camera(brackets, fit_of):
    record = read_record(fit_of("voxel_vm", rgb="true", **PLAIN).run)
    assert record.scans is not None
    assert record.scans.is_calibrated
    assert record.scans.camera == read_camera(brackets.root)
    points = np.concatenate([input_of(record.scans.spec).read(s.path).reshape(-1, 6)[:, :3] for s in brackets.train])
    points = points[points.any(1)].astype(np.float64)
    np.testing.assert_allclose(record.scans.spec.box_low_m, points.min(0))
    np.testing.assert_allclose(record.scans.spec.box_high_m, points.max(0))
    assert record.frame_shape == (64, 64, 6)


def test_without_a_calibration_a_pinhole_is_fitted(brackets, fit_of, tmp_path):
    for part in ("train", "validation", "test"):
        (tmp_path / "bracket").mkdir(exist_ok=True)
        (tmp_path / "bracket" / part).symlink_to(brackets.root / part)
    assert not (tmp_path / "bracket" / CALIBRATION).exists()
    dataset = open_dataset(tmp_path, category="bracket")
    record = train("voxel_vm", make_config("voxel_vm", PLAIN), dataset=dataset, run=tmp_path / "run")
    assert not record.scans.is_calibrated
    calibrated = fit_of("voxel_vm", **PLAIN).record.scans.camera
    rows, columns = calibrated.project(record.scans.camera.rays())
    expected = np.mgrid[:64, :64]
    # The lens moves pixels by half a pixel at the corners of images that small.
    assert np.hypot(rows - expected[0], columns - expected[1]).max() < 0.8


def test_trimming_leaves_single_points_out(brackets):
    clouds = np.zeros((1, 50, 50, 3), np.float32)
    clouds[..., 2] = np.linspace(0.4, 0.5, 2500).reshape(50, 50)
    clouds[0, 0, 0] = (0.0, 0.0, 9.0)
    assert Extent.of(clouds).high_m[2] == 9.0
    assert Extent.of(clouds, trim=0.001).high_m[2] < 0.5001
    assert Extent.of(np.zeros((4, 4, 3))) is None
    seen = survey_scans([sample.path for sample in brackets.train[:2]], has_rgb=False)
    assert seen.sizes == {(64, 64): 2}
    assert seen.extent(2) == Extent.around(seen.extents)


def test_another_image_size_than_the_frame_is_refused(brackets, tmp_path):
    config = make_config("voxel_vm", {"resize_px": "32", "crop_px": "32"})
    with pytest.raises(UsageError, match=r"resize_px \(--image-size\) is 32x32, frames are 64x64"):
        train("voxel_vm", config, dataset=brackets, run=tmp_path / "run")
    options = TrainOptions(frame=(32, 32), fit="stretch")
    record = train(
        "voxel_vm", dataclasses.replace(config, copies=0), dataset=brackets, run=tmp_path / "b", options=options
    )
    assert record.scans.spec.frame_shape == (32, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("voxel_vm", {"rgb": "true", **PLAIN}),
        ("voxel_vm", PLAIN),
        ("depth_vm", {"invalid": "masked", "copies": 0}),
        ("depth_vm", {"rgb": "true", "copies": 0}),
    ],
)
def test_the_whole_way(brackets, fit_of, tmp_path, name, settings):
    """Exported, proved by two engines on golden frames and on every test scan, opened as a line."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from lineproof import open_line
    from lineproof.eval.parity.verify import verify
    from lineproof.export.bundle import export_bundle
    from lineproof.export.options import ExportOptions
    from lineproof.runtime.engine import availability

    fit = fit_of(name, **settings)
    with pytest.raises(UsageError, match="the run was trained on scans of 64x64"):
        export_bundle(fit.run, tmp_path / "a.bundle", options=ExportOptions(frame=(32, 32, 3), fit="stretch"))
    bundle = export_bundle(fit.run, tmp_path / "a.bundle")
    for engine in ("ort-cpu", "openvino"):
        if availability(engine).is_available:
            report = verify(bundle, engine=engine, dataset=brackets)
            assert report.state != "failed", report.failures
            assert report.verdict_flips == ()
    with open_line(bundle.path, engine="ort-cpu") as line:
        frame = line.input.read(brackets.test[0].path)
        verdict = line.inspect(frame)
        cloud = fit.scans_of(brackets.test[:1]).cloud(0)
        has_rgb = cloud.shape[2] > 3
        again = line.inspect(xyz=cloud[..., :3], rgb=cloud[..., 3:].astype(np.uint8) if has_rgb else None)
        assert again.score == verdict.score
        with pytest.raises(UsageError, match="A scan was given with a frame beside it"):
            line.inspect(frame, xyz=cloud[..., :3])
        with pytest.raises(
            UsageError, match="Neither a frame nor a scan was given; the bundle takes scans: give a frame, or xyz "
        ):
            line.inspect()
    scans = fit.scans_of(brackets.test[:1])
    with torch.inference_mode():
        score, _ = fit.detector(scans.batch([0]))
    np.testing.assert_allclose(verdict.score, float(score), rtol=1e-3)
    assert json.loads((fit.run / RECORD).read_text())["scans"]["spec"]["kind"] == bundle.manifest.preprocessing.kind
