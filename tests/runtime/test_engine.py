"""Opening engines by name."""

import ast
from pathlib import Path

import pytest

from lineproof.core.errors import EnvironmentMissingError, UsageError
from lineproof.runtime import engine as engines
from lineproof.runtime.engine import EngineOptions, open_engine, predict


def test_an_unknown_name_is_a_usage_error(tiny_bundle):
    with pytest.raises(UsageError, match=r"There is no engine 'ort_cpu'.*Did you mean 'ort-cpu'\?"):
        open_engine(tiny_bundle, "ort_cpu")


def test_an_engine_that_cannot_run_names_those_that_can(tiny_bundle):
    state = engines.availability("ort-cuda")
    if state.is_available:
        pytest.skip("ort-cuda can run here")
    with pytest.raises(
        EnvironmentMissingError, match=r"Engine ort-cuda cannot run here.*To fix: .*work here: .*ort-cpu"
    ):
        open_engine(tiny_bundle, "ort-cuda")


@pytest.mark.parametrize("name", ["ort-cuda", "ort-trt"])
def test_a_fallback_that_was_accepted_runs_and_says_so(name, tiny_bundle, require):
    require("ort-cpu")
    if engines.availability(name).is_available:
        pytest.skip(f"{name} can run here")
    engine = open_engine(tiny_bundle, name, options=EngineOptions(allow_fallback=True))
    golden = tiny_bundle.golden()
    assert predict(engine, golden.frames).score == pytest.approx(golden.reference.score, abs=1e-6)
    assert engine.describe()["provider"] == "CPUExecutionProvider"
    assert engine.device_bytes() is None
    engine.close()


def asked_by_name(source):
    """Lines that compare something with an engine's name, or ask how a name begins."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            items = [item for side in sides for item in (side, *getattr(side, "elts", ()))]
            words = {item.value for item in items if isinstance(item, ast.Constant)}
            lines += [node.lineno] if words & set(engines.ENGINES) else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            words = [item.value for item in node.args if isinstance(item, ast.Constant)]
            lines += [node.lineno for word in words if any(name.startswith(word) for name in engines.ENGINES)]
    return lines


def test_nobody_asks_an_engine_for_its_name():
    assert asked_by_name(
        'a == "torch"\nb in ("trt", "x")\nc.startswith("ort")\nd = "torch"\nf("torch") == 1\ne == "onnx"'
    ) == [1, 2, 3]
    root = Path(engines.__file__).parents[1]
    folders = ("core", "host", "runtime", "export", "profiles", "eval", "line", "report", "sweep", "commands")
    sources = [path for folder in folders for path in (root / folder).rglob("*.py")]
    offences = {str(path.relative_to(root)): asked_by_name(path.read_text(encoding="utf-8")) for path in sources}
    assert {path: lines for path, lines in offences.items() if lines} == {}
