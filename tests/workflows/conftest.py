"""A tiny trained run in a folder of its own, and pictures that fit the tiny bundle."""

import numpy as np
import pytest
from PIL import Image

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": "64", "crop_px": "64", "num_features": "12"}


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    from lineproof.data.sample.write import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, num_train=10, num_test_good=2, num_test_defect=6, size_px=96)
    return folder


@pytest.fixture(scope="session")
def trained(sample_folder, tmp_path_factory):
    """A finished PaDiM run, made by the workflow."""
    pytest.importorskip("timm")
    from lineproof.workflows.training import train_detector

    run = tmp_path_factory.mktemp("trained") / "run"
    return train_detector("padim", sample_folder, category="flange", settings=SETTINGS, out=run, options={})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder that is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Two dark (good) and one bright (defective) picture of the tiny bundle's 16x12 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        frame = rng.integers(0, 40, (12, 16, 3)).astype(np.uint8)
        frame[4:6, 5:8] += 180 * (index == 2)
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder
