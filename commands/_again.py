"""The command line that repeats the running command, for messages and run records."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from pathlib import Path

from typer import Context


def typed_line(context: Context, *, without: Collection[str] = ()) -> str:
    """Command line that repeats the running command from any folder: shell-quoted, with absolute paths.

    Args:
        context: typer's context of the running command.
        without: names of the parameters that are left out.
    """
    words = ["lineproof", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        for item in value if isinstance(value, list | tuple) else [value]:
            words += _option_words(parameter.opts, parameter.secondary_opts, item)
    return shlex.join(words)


def _option_words(names: list[str], opposites: list[str], value: object) -> list[str]:
    if not names[0].startswith("-"):
        return [_text(value)]
    # The longest name is the one that explains itself.
    if isinstance(value, bool):
        return [max(names if value else opposites, key=len)]
    return [max(names, key=len), _text(value)]


def _text(value: object) -> str:
    is_path = isinstance(value, Path) or (isinstance(value, str) and os.sep in value and os.path.exists(value))
    return os.path.abspath(str(value)) if is_path else str(value)
