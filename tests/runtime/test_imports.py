"""Importing costs nothing and needs nothing but NumPy."""

import subprocess
import sys

from lineproof.runtime.engine import ENGINES

MODULES = sorted({entry.partition(":")[0] for entry in ENGINES.values()})

PROBE = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
tops = {{name.partition(".")[0] for name in sys.modules if getattr(sys.modules[name], "__spec__", None)}}
print(" ".join(sorted(tops - set(sys.stdlib_module_names))))
"""


def _third_party(modules):
    code = PROBE.format(modules=modules)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_engine_modules_import_numpy_and_nothing_else():
    bare = _third_party([])
    loaded = _third_party(["lineproof.runtime.engine", *MODULES, "lineproof.line.inspector"])
    assert loaded - bare <= {"numpy", "lineproof"}


def test_the_builder_imports_no_torch_and_no_tensorrt():
    assert _third_party(["lineproof.export.tensorrt.build"]) - _third_party([]) <= {"numpy", "lineproof"}
