"""Text that a C++ library prints to the process's standard error."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

_COLOUR = re.compile(r"\x1b?\[[0-9;]*m")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ")
_LIMIT = 900


@final
class NativeLog:
    """Text caught by ``caught_stderr``; it is complete when the ``with`` block has ended."""

    def __init__(self) -> None:
        self.text = ""

    def words(self) -> str:
        """The text on one line, without colours and time stamps, cut to a readable length."""
        plain = _STAMP.sub("", _COLOUR.sub("", self.text))
        line = " ".join(plain.split())
        return line if len(line) <= _LIMIT else f"{line[:_LIMIT]}…"


@contextmanager
def caught_stderr() -> Iterator[NativeLog]:
    """Catch what is written to file descriptor 2, also by C++, which no Python stream sees.

    The descriptor belongs to the process: what other threads write meanwhile is caught as well. A caller therefore
    writes the text to ``sys.stderr`` where it does not put it into an error.

    Yields:
        The log, whose text is complete after the block.
    """
    log = NativeLog()
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield log
            finally:
                sys.stderr.flush()
                os.dup2(saved, 2)
                file.seek(0)
                log.text = file.read().decode(errors="replace")
    finally:
        os.close(saved)
