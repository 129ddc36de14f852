"""What runs on the target imports without the training packages, and arrows between folders point down only."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = (
    "torch", "torchvision", "timm", "FrEIA", "sklearn", "safetensors", "onnx", "onnx_ir", "onnxscript", "onnxruntime",
    "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda",
)  # fmt: skip
TARGET_FOLDERS = (
    "core", "host", "bundle", "data", "metrics", "runtime", "eval", "profiles", "line", "report", "commands",
)  # fmt: skip
TARGET_MODULES = ["lineproof", "lineproof.cli", "lineproof.detectors.table", "lineproof.export.tensorrt.build"] + [
    "lineproof." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in TARGET_FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
]

PROBE = """
import importlib, importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
failed = []
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{{name}}: {{error}}")
print("\\n".join(failed))
"""


def failed_imports(modules):
    code = PROBE.format(blocked=BLOCKED, modules=modules)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return answer.stdout.split("\n")[:-1] if answer.stdout.strip() else []


def test_every_module_of_the_target_imports_without_the_training_packages():
    assert len(TARGET_MODULES) > 60
    assert failed_imports(TARGET_MODULES) == []


def test_the_blocker_blocks():
    (line,) = failed_imports(["lineproof.core.spec", "lineproof.detectors.base"])
    assert line.startswith("lineproof.detectors.base: torch")


def run_linter(folder, *options, path):
    """Run lint-imports in ``folder``; its package is found by ``path``."""
    code = "import sys; from importlinter.cli import lint_imports_command as run; run()"
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-P", "-c", code, "--no-cache", *options],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    """A copy of the package, installed nowhere."""
    pytest.importorskip("importlinter")
    package = tmp_path / "lineproof"
    folders = (*TARGET_FOLDERS, "detectors", "export", "importers", "sweep")
    for folder in folders:
        shutil.copytree(ROOT / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "cli.py", "pyproject.toml"):
        shutil.copy(ROOT / name, package / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_the_contracts_are_kept():
    pytest.importorskip("importlinter")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    answer = run_linter(ROOT, path=ROOT / ".typing")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"{len(contracts)} kept, 0 broken" in answer.stdout


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("core/spec.py", "from ..bundle import store", "imports go down only"),
        ("eval/parity/verify.py", "from ...profiles import table", "imports go down only"),
        ("runtime/ort.py", "def lazily():\n    import torch", "reaches no training package"),
        ("line/inspector.py", "def lazily():\n    from ..detectors import base", "reaches no training package"),
        ("report/page.py", "import pycuda", "TensorRT and CUDA stand in two places"),
        ("export/names.py", "import onnxruntime", "stand behind their engines"),
    ],
)
def test_a_forbidden_import_is_seen(tree, file, line, words):
    with (tree / "lineproof" / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    answer = run_linter(tree, path=tree)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    broken = [text for text in answer.stdout.splitlines() if " BROKEN" in text]
    assert any(words in text for text in broken), answer.stdout


def test_a_new_folder_must_take_its_place(tree):
    (tree / "lineproof" / "gadgets").mkdir()
    (tree / "lineproof" / "gadgets" / "__init__.py").write_text("")
    answer = run_linter(tree, path=tree)
    assert answer.returncode == 1
    assert "gadgets" in answer.stdout
