"""Standard output and standard error: text in any encoding, and whether anything was printed."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast, final

#: Plain signs for an encoding that lacks these; any other sign is escaped by its number.
_PLAIN = {
    "–": "-", "—": "-", "−": "-", "×": "x", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "±": "+-", "·": "-",
    "“": '"', "”": '"', "‘": "'", "’": "'", "²": "2", "µ": "u", "━": "-",
}  # fmt: skip
_HANDLER = "lineproof-plain"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    plain = [_PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in unknown]
    return "".join(plain), error.end


@final
class Watched:
    """A text stream that knows whether anything was written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.has_text = False

    def write(self, text: str) -> int:
        """Write to the stream that is watched."""
        num = self._stream.write(text)
        self.has_text = self.has_text or bool(text)
        return num

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def prepared_streams() -> Iterator[Watched]:
    """Let stdout and stderr take any text inside the block.

    Yields:
        The stream that stands for stdout; it says whether anything was written.
    """
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
    watched = Watched(sys.stdout)
    with contextlib.redirect_stdout(cast(TextIO, watched)):
        yield watched


def drop_stdout() -> None:
    """Drop what is left in stdout's buffer after its reader has gone; else the interpreter complains at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
