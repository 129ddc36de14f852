"""Outputs of an engine that never ran, made of maps and masks; and an evaluation that is not ours."""

import numpy as np
import pytest

from lineproof.eval.accuracy.outputs import Outputs, Source
from lineproof.eval.masks import pack_mask


@pytest.fixture(scope="session")
def outputs_of():
    """A function from maps (N, h, w), masks (N, H, W) and a preprocessing to outputs; a score is a map's maximum."""

    def build(maps, masks, spec, *, threshold):
        label = masks.any(axis=(1, 2))
        source = Source(
            bundle="b",
            model_sha256="0",
            detector="d",
            engine="e",
            precision="fp32",
            threshold=threshold,
            dataset="folder",
            category="c",
            root="/nowhere",
            preprocessing=spec,
        )
        return Outputs(
            source=source,
            files=tuple(f"{index}.png" for index in range(len(maps))),
            defects=tuple("cut" if is_bad else "good" for is_bad in label),
            score=maps.max(axis=(1, 2)),
            label=label,
            has_mask=np.ones(len(maps), np.bool_),
            anomaly_map=maps,
            packed_mask=pack_mask(masks),
        )

    return build


@pytest.fixture(scope="session")
def published_evaluation():
    """A function from maps, masks and a limit of the false-positive rate to AUPRO, slow and independent."""
    from scipy.ndimage import label as scipy_label

    def evaluate(maps, masks, limit=0.3):
        """MVTec's evaluation of AU-PRO in our own words.

        All pixels of the set are put in the order of their scores, the highest first. Each anomaly-free one raises the
        false-positive rate by 1 / their number, each defect pixel the overlap by 1 / (size of its component × number of
        components). Only the last of equal scores is a point of the curve. It is integrated by trapezoids up to the
        limit, with a point interpolated there, and divided by the limit.
        """
        regions = [scipy_label(mask, structure=np.ones((3, 3), int)) for mask in masks]
        num_regions = sum(number for _, number in regions)
        num_good = sum(int((~mask).sum()) for mask in masks)
        scores, false_steps, overlap_steps = [], [], []
        for anomaly_map, (labels, number) in zip(maps, regions, strict=True):
            sizes = np.bincount(labels.ravel(), minlength=number + 1)
            overlap = np.where(labels > 0, 1.0 / sizes[labels] / max(num_regions, 1), 0.0)
            scores.append(anomaly_map.ravel())
            false_steps.append((labels == 0).ravel() / num_good)
            overlap_steps.append(overlap.ravel())
        scores, false_steps, overlap_steps = map(np.concatenate, (scores, false_steps, overlap_steps))
        order = np.argsort(-scores, kind="stable")
        is_last = np.append(np.diff(scores[order]) != 0, True)
        fpr = np.concatenate([[0.0], np.cumsum(false_steps[order])[is_last]])
        pro = np.concatenate([[0.0], np.cumsum(overlap_steps[order])[is_last]])
        kept = fpr <= limit
        at_limit = np.interp(limit, fpr, pro)
        return np.trapezoid(np.append(pro[kept], at_limit), np.append(fpr[kept], limit)) / limit

    return evaluate
