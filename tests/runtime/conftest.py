"""Engines over the tiny bundle: a PyTorch reference and, on a GPU, a plan are put into it."""

import dataclasses
import os
import sys
import types

import numpy as np
import pytest

from lineproof.bundle.atomic import file_sha256
from lineproof.bundle.manifest import FileRecord
from lineproof.bundle.store import MODEL, REFERENCE
from lineproof.runtime.cuda.bindings import AbstractCuda
from lineproof.runtime.engine import ENGINES, availability, engine_type, open_engine


def check_required(state, required):
    """Skip an absent engine with its own words; fail where LINEPROOF_REQUIRE names it."""
    names = [name for name in required.split(",") if name]
    unknown = set(names) - set(ENGINES)
    assert not unknown, f"LINEPROOF_REQUIRE names {unknown}; known are {sorted(ENGINES)}"
    if not state.is_available:
        words = f"{state.name} cannot run here. Found: {state.found}. To fix: {state.fix}."
        if state.name in names:
            pytest.fail(f"LINEPROOF_REQUIRE names {words}")
        pytest.skip(words)


@pytest.fixture(name="check_required")
def check_required_fixture():
    return check_required


@pytest.fixture
def require():
    """Call with an engine's name: skips or fails where it cannot run."""
    return lambda name: check_required(availability(name), os.environ.get("LINEPROOF_REQUIRE", ""))


def _tiny_reference():
    torch = pytest.importorskip("torch")

    class Tiny(torch.nn.Module):
        def forward(self, frames):
            anomaly_map = frames.float().mul(1.0 / 255.0).mean(dim=3)
            return anomaly_map.amax(dim=(1, 2)), anomaly_map

    return Tiny()


@pytest.fixture
def with_reference(tiny_bundle, monkeypatch):
    """The tiny bundle with a reference file, and a loader that answers with the tiny graph in PyTorch."""
    model = _tiny_reference()
    (tiny_bundle.path / REFERENCE).write_bytes(b"")
    checkpoint = types.ModuleType("lineproof.detectors.training.checkpoint")

    def load_reference(record, preprocessing, *, weights, imported):
        assert (record is None, preprocessing is None, imported is None) == (False, False, True)
        return model if weights.is_file() else None

    checkpoint.load_reference = load_reference
    monkeypatch.setitem(sys.modules, "lineproof.detectors.training.checkpoint", checkpoint)
    empty = FileRecord("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)
    return tiny_bundle.change(
        lambda manifest: dataclasses.replace(manifest, files={**tiny_bundle.manifest.files, REFERENCE: empty})
    )


@pytest.fixture
def open_tiny(request, tiny_bundle, require):
    """Open the tiny bundle with an engine by name; closed at the end."""
    opened = []

    def open_with(name, options=None):
        require(name)
        engine = engine_type(name)
        bundle = request.getfixturevalue("with_reference") if engine.is_reference else tiny_bundle
        if engine.needs_plan:
            from lineproof.export.tensorrt.build import build_plan

            bundle = build_plan(bundle, engine=name)
        opened.append(open_engine(bundle, name, options=options))
        return opened[-1]

    yield open_with
    for engine in opened:
        engine.close()


class HostCuda(AbstractCuda):
    """CUDA's calls over host memory, with a log of what was called."""

    library = "host memory"

    def __init__(self, *, fail_at=None):
        self.calls, self.blocks, self.fail_at, self.is_current = [], {}, fail_at, 0

    def _log(self, call, *details):
        assert self.is_current, f"{call} outside of current()"
        self.calls.append((call, *details))

    def current(self):
        cuda = self

        class Current:
            def __enter__(self):
                cuda.is_current += 1

            def __exit__(self, *_error):
                cuda.is_current -= 1

        return Current()

    stream = 7

    def allocate_device(self, num_bytes):
        self._log("allocate_device", num_bytes)
        if len(self.blocks) == self.fail_at:
            from lineproof.core.errors import LineproofError

            raise LineproofError("CUDA failed on GPU 0: out of memory (error 2).")
        address = 1000 * (len(self.blocks) + 1)
        self.blocks[address] = np.zeros(num_bytes, np.uint8)
        return address

    def free_device(self, address):
        self._log("free_device", address)
        del self.blocks[address]

    def allocate_host(self, num_bytes):
        self._log("allocate_host", num_bytes)
        return np.zeros(num_bytes, np.uint8)

    def free_host(self, memory):
        self._log("free_host", memory.nbytes)

    def copy_to_device(self, address, memory):
        self._log("copy_to_device", address, memory.nbytes)
        self.blocks[address][: memory.nbytes] = memory

    def copy_to_host(self, memory, address):
        self._log("copy_to_host", address, memory.nbytes)
        memory[:] = self.blocks[address][: memory.nbytes]

    def record(self, event):
        self._log("record", event)

    def elapsed_ns(self):
        return 1500

    def synchronize(self):
        self._log("synchronize")

    def used_bytes(self):
        return 500 + sum(block.nbytes for block in self.blocks.values())

    def close(self):
        self._log("close")


@pytest.fixture
def host_cuda():
    """The class HostCuda."""
    return HostCuda


@pytest.fixture
def half_bundle(tiny_bundle):
    """The tiny bundle with its mean computed in fp16."""
    onnx = pytest.importorskip("onnx")
    kind = onnx.TensorProto
    model = onnx.load(tiny_bundle.model_path)
    nodes = {node.name: node for node in model.graph.node}
    nodes["preprocess/cast"].attribute[0].i = kind.FLOAT16
    nodes["head/mean"].output[0] = "half_map"
    model.graph.node.insert(
        3, onnx.helper.make_node("Cast", ["half_map"], ["anomaly_map"], name="head/cast", to=kind.FLOAT)
    )
    scale = next(constant for constant in model.graph.initializer if constant.name == "scale")
    scale.CopyFrom(onnx.helper.make_tensor("scale", kind.FLOAT16, [], [1.0 / 255.0]))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tiny_bundle.model_path)
    record = FileRecord(file_sha256(tiny_bundle.model_path), tiny_bundle.model_path.stat().st_size)
    return tiny_bundle.change(
        lambda manifest: dataclasses.replace(
            manifest, precision="fp16", files={**tiny_bundle.manifest.files, MODEL: record}
        )
    )
