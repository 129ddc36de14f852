"""A data set of tiny images, and what a tiny detector for them takes and gives."""

import numpy as np
import pytest
from PIL import Image

FRAME = (20, 24)


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory):
    """Frames of 24x20 pixels in the layout of MVTec AD: dark good ones, and defective ones with a bright spot."""
    root = tmp_path_factory.mktemp("data") / "nut"
    rng = np.random.default_rng(0)
    for place, num in (("train/good", 2), ("test/good", 6), ("test/spot", 3)):
        (root / place).mkdir(parents=True)
        for number in range(num):
            frame = rng.integers(0, 60 + 8 * number, (*FRAME, 3)).astype(np.uint8)
            frame[5:11, 8:16] += np.uint8(120 * ("spot" in place))
            Image.fromarray(frame).save(root / place / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def dataset(images_folder):
    from lineproof.data.dataset import open_dataset

    return open_dataset(images_folder)


@pytest.fixture(scope="session")
def specification():
    """A function to what the tiny detector takes and gives; words change its fields."""

    def make(**changes):
        values = {
            "frame_height_px": FRAME[0], "frame_width_px": FRAME[1], "frame_channels": 3,
            "resize_px": [10, 15], "crop_px": [8, 12], "value_range": "0..1",
            "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "channel_order": "rgb", "layout": "NCHW",
            "input": "input", "score": "pred_score", "anomaly_map": "anomaly_map",
        }  # fmt: skip
        return {**values, **changes}

    return make
