"""Accuracy of detectors of scans: every pixel counts, those without a measurement too, as in MVTec 3D-AD's protocol."""

import numpy as np
import pytest
from PIL import Image

from lineproof.core.inputs import DepthPreprocessing
from lineproof.data.inputs.scan import is_measured, read_scan
from lineproof.data.sample.write_3d import write_sample_3d
from lineproof.eval.accuracy.evaluate import evaluate
from lineproof.eval.accuracy.report import measure_accuracy
from lineproof.eval.accuracy.request import EvaluationRequest
from lineproof.runtime.engine import availability


def test_a_lost_pixel_counts_by_hand(outputs_of):
    """Two scans of 2 x 5 pixels, one defect of two pixels, 18 good pixels.

    The highest scores: a pixel of the defect (0.9), a good pixel that was lost (0.7), the other pixel of the defect,
    lost as well (0.5). Up to the false-positive rate 1 / 18 half of the defect is detected, from there on all of it.
    """
    maps, masks = np.zeros((2, 2, 5), np.float32), np.zeros((2, 2, 5), bool)
    maps[0, 0, 1], maps[1, 1, 4], maps[0, 0, 2] = 0.9, 0.7, 0.5
    masks[0, 0, 1:3] = True
    spec = DepthPreprocessing(
        frame_height_px=2, frame_width_px=5, resize_height_px=2, resize_width_px=5,
        quantity="range", near_m=0.3, far_m=1.0,
    )  # fmt: skip
    pixel = measure_accuracy(outputs_of(maps, masks, spec, threshold=0.6)).pixel
    assert (pixel.num_pixels, pixel.num_defect_pixels, pixel.num_components) == (20, 2, 1)
    assert pixel.aupro == pytest.approx((0.3 - 0.5 / 18) / 0.3, abs=1e-12)


@pytest.fixture(scope="module")
def brackets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_sample_3d(folder, num_train=8, num_validation=4, num_test_good=3, num_test_defect=5, size_px=64)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depth_vm", "voxel_vm"])
def test_figures_of_scans_are_those_of_all_their_pixels(name, brackets, tmp_path, published_evaluation):
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package)
    if not availability("ort-cpu").is_available:
        pytest.skip("onnxruntime is not installed")
    from sklearn.metrics import roc_auc_score

    from lineproof.detectors.training.from_folder import train_detector
    from lineproof.export.bundle import export_bundle

    small = {"copies": 1, "num_cells": 24} if name == "voxel_vm" else {"copies": 1, "invalid": "paper"}
    train_detector(name, brackets, category="bracket", settings=small, preset="quick", out=tmp_path / "run")
    bundle = export_bundle(tmp_path / "run", tmp_path / "a.bundle")
    request = EvaluationRequest(data=brackets, category="bracket", engine="ort-cpu")
    (item,) = evaluate([bundle.path], request).items

    maps = np.array(item.outputs.anomaly_map)
    images = [brackets / "bracket" / file for file in item.outputs.files]
    masks = [np.asarray(Image.open(path.parent.parent / "gt" / path.name)) > 0 for path in images]
    measured = [is_measured(read_scan(path, has_rgb=False)[0]) for path in images]
    assert item.accuracy.pixel.num_pixels == 8 * 64 * 64
    assert item.accuracy.pixel.num_defect_pixels == sum(mask.sum() for mask in masks)
    assert any((mask & ~seen).any() for mask, seen in zip(masks, measured, strict=True)), "a fault has lost pixels too"
    np.testing.assert_allclose(item.accuracy.pixel.aupro, published_evaluation(maps, masks), rtol=0, atol=5e-6)
    np.testing.assert_allclose(
        item.accuracy.pixel.auroc, roc_auc_score(np.ravel(masks), np.ravel(maps)), rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(item.accuracy.image.auroc, roc_auc_score(item.outputs.label, item.outputs.score))
    # Without the pixels that were lost it would be another figure.
    seen = [mask & known for mask, known in zip(masks, measured, strict=True)]
    low = np.where(measured, maps, maps.min() - 1.0)
    assert abs(published_evaluation(low, seen) - item.accuracy.pixel.aupro) > 1e-3
