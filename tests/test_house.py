"""The house rules that no other tool checks, over every tracked source file."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Built by name, so that this file does not hold what it looks for.
ABSOLUTE_PATHS = re.compile(r"/(?:home|root|Users|work|farm|mnt|opt/venv|tmp/[a-z])\w*/[\w.]")
BANNED_WORDS = re.compile(r"\b(?:chatgpt|claude|anthropic|openai|copilot|llm|ai[- ]generated|language model)\b", re.I)
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error|HA" r"CK)\b")


def tracked():
    """Files under version control, and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot list the files: {error}")
    names = [name for name in answer.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def package_sources():
    """Python files of the package, without tests, benchmarks, examples and docs."""
    folders = {"tests", "benchmarks", "examples", "docs", ".typing", ".ci"}
    return [
        path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] not in folders
    ]  # fmt: skip


def functions(path):
    """(name, node) of every function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def relative(path):
    return path.relative_to(ROOT).as_posix()


def is_public(name):
    return not name.startswith("_") or name in ("__init__", "__call__")


def test_there_is_something_to_check():
    sources = {relative(path) for path in package_sources()}
    assert {"cli.py", "__init__.py", "core/spec.py", "detectors/base.py", "export/to_onnx.py"} <= sources
    assert len(sources) > 60


def loose_signatures(path, name):
    """Public functions that take ``**kwargs``, and any function that takes a bool by position."""
    offences = []
    for node in functions(path):
        arguments = node.args
        if arguments.kwarg and is_public(node.name):
            offences.append(f"{name}:{node.name} takes **{arguments.kwarg.arg}")
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = dict(zip(reversed(positional), reversed(arguments.defaults), strict=False))
        for argument in positional:
            default = defaults.get(argument)
            by_default = isinstance(default, ast.Constant) and isinstance(default.value, bool)
            by_type = isinstance(argument.annotation, ast.Name) and argument.annotation.id == "bool"
            # torch's own interface: Module.train(mode=True) is called so by every library.
            is_torchs = node.name == "train" and argument.arg == "mode"
            if (by_default or by_type) and not is_torchs:
                offences.append(f"{name}:{node.name} takes {argument.arg} by position")
    return offences


def test_signatures_are_strict():
    offences = []
    for path in package_sources():
        offences += loose_signatures(path, relative(path))
    assert offences == []


def test_loose_signatures_are_seen(tmp_path):
    (tmp_path / "a.py").write_text(
        "def f(x, **options): ...\n"
        "def _g(x, **options): ...\n"
        "def h(x, flag=False): ...\n"
        "def i(x, flag: bool): ...\n"
        "def j(x, *, flag: bool = True): ...\n"
        "class C:\n"
        "    def __init__(self, **options): ...\n"
    )
    assert loose_signatures(tmp_path / "a.py", "a.py") == [
        "a.py:f takes **options", "a.py:h takes flag by position", "a.py:i takes flag by position",
        "a.py:__init__ takes **options",
    ]  # fmt: skip


def test_listed_packages_are_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in package_sources() if path.name == "__init__.py"}
    names = {".".join(["lineproof", *folder.relative_to(ROOT).parts]) for folder in folders}
    assert sorted(listed) == sorted(names)
    without = {path.parent for path in package_sources()} - folders
    assert not without, f"folders of Python files without __init__.py: {without}"


def test_data_files_of_the_package_are_there():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, names in data.items():
        for name in names:
            assert (ROOT.joinpath(*package.split(".")[1:]) / name).is_file(), f"{package}: {name}"


def offending_lines(path, pattern):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []
    return [f"{path.name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if pattern.search(line)]


def test_no_machine_no_maker_and_nothing_unfinished_in_the_files():
    offences = []
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        offences += offending_lines(path, BANNED_WORDS)
        # Tests name places that do not exist on purpose.
        if "tests" not in path.parts:
            offences += offending_lines(path, ABSOLUTE_PATHS) + offending_lines(path, UNFINISHED)
    assert offences == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (ABSOLUTE_PATHS, "see /home/ann/lineproof"),
        (ABSOLUTE_PATHS, 'open("/tmp/v/dev")'),
        (BANNED_WORDS, "written by ChatGPT"),
        (UNFINISHED, "# TODO: later"),
        (UNFINISHED, "raise NotImplementedError"),
    ],
)
def test_offending_lines_are_seen(tmp_path, pattern, text):
    (tmp_path / "a.py").write_text(f"x = 1\n{text}\n")
    assert offending_lines(tmp_path / "a.py", pattern) == [f"a.py:2: {text}"]


def test_imports_inside_the_package_are_relative_and_at_most_two_steps_up():
    offences = []
    for path in package_sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.level > 3 or (node.module or "").startswith("lineproof")):
                offences.append(f"{relative(path)}:{node.lineno}")
            if isinstance(node, ast.Import) and any(item.name.startswith("lineproof") for item in node.names):
                offences.append(f"{relative(path)}:{node.lineno}")
    # Run as a script from the root, cli.py hands over to the installed package.
    assert [item for item in offences if not item.startswith("cli.py:")] == []
    assert len(offences) <= 1


def broad_excepts(path):
    """Lines where everything is caught; a handler that cleans up and raises again catches nothing."""
    offences = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ExceptHandler) or ast.unparse(node.body[-1]) == "raise":
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if any(item is None or ast.unparse(item) in ("Exception", "BaseException") for item in caught):
            offences.append(node.lineno)
    return offences


def test_no_broad_except(tmp_path):
    (tmp_path / "a.py").write_text(
        "try: x\nexcept Exception: pass\ntry: x\nexcept: pass\ntry: x\nexcept (OSError, BaseException): pass\n"
        "try: x\nexcept BaseException:\n    y\n    raise\ntry: x\nexcept OSError: pass\n"
    )
    assert broad_excepts(tmp_path / "a.py") == [2, 4, 6]
    offences = {relative(path): lines for path in package_sources() if (lines := broad_excepts(path))}
    assert offences == {}


def dataclass_options(node):
    """Keywords of a class's ``@dataclass``, or None where it is none."""
    for item in node.decorator_list:
        called = item.func if isinstance(item, ast.Call) else item
        if ast.unparse(called) in ("dataclass", "dataclasses.dataclass"):
            return {word.arg: ast.unparse(word.value) for word in item.keywords} if isinstance(item, ast.Call) else {}
    return None


def positional_dataclasses(paths):
    """Dataclasses that take more than three fields, with those of their bases, by position: ``file:name``."""
    nodes = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    classes = {node.name: node for _, node in nodes if isinstance(node, ast.ClassDef)}

    def num_fields(node):
        own = [item for item in node.body if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item)]
        bases = [classes[name] for item in node.bases if (name := ast.unparse(item).partition("[")[0]) in classes]
        return len(own) + sum(num_fields(base) for base in bases if dataclass_options(base) is not None)

    return [
        f"{path.name}:{node.name}"
        for path, node in nodes
        if isinstance(node, ast.ClassDef)
        and (options := dataclass_options(node)) is not None
        and options.get("kw_only") != "True"
        and num_fields(node) > 3
    ]


def test_dataclasses_above_three_fields_take_names_only():
    assert positional_dataclasses(package_sources()) == []


def test_positional_dataclasses_are_seen(tmp_path):
    (tmp_path / "a.py").write_text(
        "@dataclass(frozen=True)\nclass Three:\n    a: int\n    b: int\n    c: int\n    K: ClassVar[int] = 1\n"
        "@dataclass(frozen=True)\nclass Child(Three):\n    d: int\n"
        "@dataclass\nclass Plain:\n    a: int\n    b: int\n    c: int\n    d: int = 1\n"
        "@final\n@dataclass(frozen=True, kw_only=True)\nclass Named(Three):\n    d: int\n    e: int\n"
    )
    assert positional_dataclasses([tmp_path / "a.py"]) == ["a.py:Child", "a.py:Plain"]
