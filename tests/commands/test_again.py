"""A command as it was typed, so that it works from any folder."""

import os
from pathlib import Path
from typing import Annotated

import pytest
import typer

from lineproof.commands._again import typed_line


@pytest.fixture
def line_of(tmp_path, monkeypatch):
    """A function from typed words to the line that is kept."""
    monkeypatch.chdir(tmp_path)
    kept = []
    app = typer.Typer()

    @app.command()
    def go(
        context: typer.Context,
        name: str,
        data: Annotated[Path, typer.Option()],
        *,
        weights: Annotated[str, typer.Option()] = "imagenet",
        settings: Annotated[list[str], typer.Option("--set")] = [],  # noqa: B006
        epochs: Annotated[int | None, typer.Option("-e", "--epochs")] = None,
        check: Annotated[bool, typer.Option()] = True,
        out: Annotated[Path | None, typer.Option()] = None,
    ) -> None:
        del name, data, weights, settings, epochs, check, out
        kept.append(typed_line(context, without=("out",)))

    def run(*words):
        app(words, standalone_mode=False, prog_name="go")
        return kept.pop()

    return run


def test_only_what_was_typed_is_kept_in_full(line_of, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.pth").touch()
    line = line_of(
        "padim", "--data", "my parts", "--set", "a=1", "--set", "b=x y", "-e", "3", "--no-check", "--out", "o",
        "--weights", "w/a.pth",
    )  # fmt: skip
    assert line == (
        f"lineproof go padim --data '{tmp_path}{os.sep}my parts' --weights {tmp_path}{os.sep}w{os.sep}a.pth --set a=1 "
        "--set 'b=x y' --epochs 3 --no-check"
    )


def test_a_word_is_no_path(line_of, tmp_path):
    (tmp_path / "imagenet").mkdir()
    assert (
        line_of("padim", "--data", "/d", "--weights", "imagenet") == "lineproof go padim --data /d --weights imagenet"
    )
