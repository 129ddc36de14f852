"""Outputs of an engine that never ran, made of maps and masks."""

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
