"""Engines whose time is told by a clock of the test's own."""

import sys
from types import ModuleType

import numpy as np
import pytest

from lineproof.core.prediction import Prediction
from lineproof.core.spec import PRECISIONS
from lineproof.runtime.engine import ENGINES, Availability


class Clock:
    """Time stands still until somebody moves it."""

    def __init__(self):
        self.now_ns = 0

    def __call__(self):
        return self.now_ns


class TimedEngine:
    """Moves the clock by ``cost_ns(number of the call)`` ns in each of the three stages."""

    name = ""
    clock = None
    costs_ns = None
    calls = None
    opened = None
    device_ns = None
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
        self.shape = bundle.manifest.outputs[1].shape[1:]
        self.opened.append((self.name, options))

    @classmethod
    def availability(cls):
        return Availability(name=cls.name, is_available=True, looked_for="a clock", found="a clock", fix="")

    def _spend(self, stage):
        self.clock.now_ns += type(self).costs_ns(self.number)[stage]

    def upload(self, frames):
        self.number = sum(1 for name, _ in self.calls if name == self.name)
        self.calls.append((self.name, len(frames)))
        self.num_frames = len(frames)
        self._spend(0)

    def execute(self):
        self._spend(1)

    def download(self):
        self._spend(2)
        return Prediction(np.zeros(self.num_frames, np.float32), np.zeros((self.num_frames, *self.shape), np.float32))

    def device_time_ns(self):
        return self.device_ns

    def device_bytes(self):
        return None

    def describe(self):
        return {"library": "a clock"}

    def close(self):
        self.calls.append((self.name, "closed"))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def add_timed(monkeypatch, clock):
    """Register a TimedEngine; further keywords are class attributes.

    ``add_timed.calls`` lists (engine, batch) of every call in order, ``add_timed.opened`` (engine, options).
    """
    module = ModuleType("lineproof_test_timed_engines")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    calls, opened = [], []

    def add(name, costs_ns, *, device_ns=None, **can):
        fields = {
            "name": name,
            "clock": clock,
            "calls": calls,
            "opened": opened,
            "costs_ns": staticmethod(costs_ns),
            "device_ns": device_ns,
            **can,
        }
        monkeypatch.setitem(ENGINES, name, f"{module.__name__}:{name}")
        setattr(module, name, type(name, (TimedEngine,), fields))

    add.calls, add.opened = calls, opened
    return add
