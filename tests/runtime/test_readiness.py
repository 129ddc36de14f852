"""What a command needs here, in words, values and an exit status."""

import importlib.util
import json
import os

import pytest

from lineproof.commands.table import COMMANDS, needs_of
from lineproof.core.errors import EnvironmentMissingError, UsageError
from lineproof.host.extras import install
from lineproof.runtime import readiness
from lineproof.runtime.engine import Availability
from lineproof.runtime.readiness import Readiness
from lineproof.runtime.readiness import examine_for as examine_with


def examine_for(command) -> Readiness:
    return examine_with(command, needs_of(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_answers(command, here):
    result = examine_for(command)
    assert result.summary_lines()[0].startswith(f"lineproof {command}: ")
    json.dumps(result.to_dict(), allow_nan=False)
    assert os.listdir(here) == []


def test_a_missing_package_and_its_fix(monkeypatch):
    pytest.importorskip("torch", reason="torch would be missing besides")
    real = importlib.util.find_spec
    monkeypatch.setattr(readiness, "find_spec", lambda name: None if name == "timm" else real(name))
    result = examine_for("train")
    (missing,) = [need for need in result.needs if not need.is_met]
    assert (missing.what, missing.found, missing.fix) == ("the module timm", "not installed", install("train"))
    assert f"    to fix: {install('train')}" in result.summary_lines()
    with pytest.raises(EnvironmentMissingError, match=r"lineproof train cannot work here; missing: the module timm\."):
        result.check()


@pytest.mark.parametrize("names", [(), ("torch",), ("openvino", "torch")])
def test_an_engine_besides_the_reference(monkeypatch, names):
    monkeypatch.setattr(
        readiness,
        "availability",
        lambda name: Availability(
            name=name, is_available=name in names, looked_for="a package", found="no module", fix=""
        ),
    )
    (need,) = examine_for("run").needs
    assert need.is_met == ("openvino" in names)
    assert need.found.startswith("openvino" if need.is_met else "torch: no module; ort-cpu: no module")
    assert need.fix == ("" if need.is_met else f"{install('cpu')}, or {install('openvino')}")


def test_a_folder_that_cannot_be_written(here, monkeypatch):
    (need,) = examine_for("sample").needs
    assert (need.is_met, need.found) == (True, "can be written")
    with monkeypatch.context() as patch:
        patch.setattr(readiness.os, "access", lambda *_: False)
        (need,) = examine_for("sample").needs
    assert (need.what, need.is_met, need.found) == (f"the folder {here}", False, "is not writable")
    (here / "runs").write_text("x")
    assert examine_for("train").needs[-1].found == "is a file"


def test_an_unknown_command():
    with pytest.raises(UsageError, match=r"There is no command 'exprot'\. Known: .* Did you mean 'export'"):
        examine_for("exprot")
