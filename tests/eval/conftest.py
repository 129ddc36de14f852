"""Engines made of a NumPy function, and a data set of images that fit the tiny bundle."""

import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lineproof.core.prediction import Prediction
from lineproof.core.spec import PRECISIONS
from lineproof.data.dataset import open_dataset
from lineproof.runtime.engine import ENGINES, Availability


def tiny_outputs(frames):
    """What the tiny graph computes, independent of the engines."""
    anomaly_map = (frames.astype(np.float64).mean(axis=3) / 255.0).astype(np.float32)
    return anomaly_map.max(axis=(1, 2)), anomaly_map


class FunctionEngine:
    """An engine without checks of its own: its outputs are ``change(score, anomaly_map)`` of the right ones."""

    name = ""
    change = None
    precisions = PRECISIONS
    compute_dtypes = ("f32", "bf16")
    uses_gpu = False
    takes_threads = True
    needs_plan = False
    builds_ahead = False
    is_reference = False
    is_harness = False
    preference = 0

    def __init__(self, bundle, *, options):
        self.bundle = bundle
        self.options = options
        self.opened.append(options)

    @classmethod
    def availability(cls):
        return Availability(name=cls.name, is_available=True, looked_for="NumPy", found="NumPy", fix="")

    def upload(self, frames):
        self.batches.append(len(frames))
        self.frames = frames

    def execute(self):
        score, anomaly_map = tiny_outputs(self.frames)
        self.outputs = Prediction(*type(self).change(score.copy(), anomaly_map.copy()))

    def download(self):
        return self.outputs

    def device_time_ns(self):
        return None

    def device_bytes(self):
        return None

    def describe(self):
        return {"library": "NumPy"}

    def close(self):
        type(self).num_closed += 1


def unchanged(score, anomaly_map):
    return score, anomaly_map


@pytest.fixture
def add_engine(monkeypatch):
    """Register a FunctionEngine under a name; returns its class, which lists options and batches and counts closes.

    Further keywords are class attributes: what the engine says that it can.
    """
    module = ModuleType("lineproof_test_engines")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def add(name, change=unchanged, **can):
        fields = {"name": name, "change": staticmethod(change), "opened": [], "batches": [], "num_closed": 0, **can}
        engine = type(name, (FunctionEngine,), fields)
        monkeypatch.setitem(ENGINES, name, f"{module.__name__}:{name}")
        setattr(module, name, engine)
        return engine

    return add


@pytest.fixture
def tiny_dataset(tmp_path):
    """Plain folder: 10 good images (2 of them test images) and 4 bad ones with masks, all 16x12 pixels."""
    rng = np.random.default_rng(1)
    root = tmp_path / "parts"
    for folder in ("good", "bad", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(10):
        Image.fromarray(rng.integers(0, 60, (12, 16, 3)).astype(np.uint8)).save(root / "good" / f"{index:03d}.png")
    for index in range(4):
        frame = rng.integers(0, 60, (12, 16, 3)).astype(np.uint8)
        mask = np.zeros((12, 16), np.uint8)
        mask[3:6, 4:9] = 255
        frame[mask > 0] += 120
        Image.fromarray(frame).save(root / "bad" / f"{index:03d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index:03d}.png")
    return open_dataset(root)
