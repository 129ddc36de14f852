"""The README does what it says: every ``sh run`` and ``python run`` block works in an empty folder, in order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
_BLOCK = re.compile(r"^```(sh|python) run[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_SECONDS = 600


def find_blocks(text):
    """(kind, content) of each fenced block whose info string ends in ``run``."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


def command_lines(block):
    """Argument lists of a shell block: one command a line, ``\\`` continues it, comments go."""
    joined = block.replace("\\\n", " ")
    split = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words for words in split if words]


def run_command(words, folder):
    assert words[0] == "lineproof", f"a block to run holds lineproof commands only, not {words[0]}"
    command = [sys.executable, "-m", "lineproof.cli", *words[1:]]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    assert answer.returncode == 0, f"{shlex.join(words)}\n{answer.stdout}\n{answer.stderr}"
    assert answer.stdout.strip(), f"{shlex.join(words)} says nothing"
    assert "Warning" not in answer.stderr, f"{shlex.join(words)}\n{answer.stderr}"


def test_blocks_are_found_by_their_info_string():
    text = (
        "```sh\nlineproof no\n```\n\n```sh run\nlineproof a  # x\n\nlineproof b \\\n  --c 'd e'\n```\n"
        "```python run\nx\n```\n"
    )
    blocks = find_blocks(text)
    assert [kind for kind, _ in blocks] == ["sh", "python"]
    assert command_lines(blocks[0][1]) == [["lineproof", "a"], ["lineproof", "b", "--c", "d e"]]
    assert blocks[1][1] == "x\n"


def test_the_readme_has_blocks_to_run():
    kinds = [kind for kind, _ in find_blocks(README.read_text(encoding="utf-8"))]
    assert "sh" in kinds
    assert "python" in kinds


@pytest.mark.slow
def test_the_readme_does_what_it_says(tmp_path, monkeypatch, capsys):
    for package in ("torch", "timm", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for kind, block in find_blocks(README.read_text(encoding="utf-8")):
        if kind == "sh":
            for words in command_lines(block):
                run_command(words, tmp_path)
        else:
            exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
            assert capsys.readouterr().out.strip()
