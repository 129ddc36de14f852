"""One table of optional packages: that of pyproject.toml, and no message names another fix."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from lineproof.host.extras import EXTRAS, MODULES, extra_of, install

ROOT = Path(__file__).resolve().parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_table_is_that_of_the_package():
    own = {name: tuple(packages) for name, packages in DECLARED.items() if name not in ("dev", "test", "all-cpu")}
    assert own == EXTRAS
    assert DECLARED["all-cpu"] == ["lineproof[cpu,openvino,rtx,train]"]


def test_a_command_names_every_package_once_and_is_fit_for_a_shell():
    assert install("cpu") == "pip install 'onnxruntime>=1.20'"
    assert install("trt", "rtx") == (
        "pip install 'tensorrt>=10.0' 'cuda-python>=12.6' 'nvidia-ml-py>=12.560' 'tensorrt-rtx>=1.5'"
    )
    for name, packages in EXTRAS.items():
        assert shlex.split(install(name)) == ["pip", "install", *packages]


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "train"), ("torch.nn", "train"), ("onnxscript", "train"), ("onnxruntime", "cpu"), ("json", "")],
)
def test_which_extra_brings_a_module(module, extra):
    assert extra_of(module) == extra
    assert set(MODULES) <= set(EXTRAS)


def test_no_message_sends_to_a_package_index_for_lineproof():
    """The index does not have it: such a command could not work."""
    wrong = []
    files = [*ROOT.glob("*/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "cli.py", ROOT / "__init__.py"]
    for path in files:
        if "tests" in path.parts:
            continue
        wrong += [f"{path.name}: {line}" for line in path.read_text().splitlines() if re.search(r"lineproof\[", line)]
    assert wrong == []
