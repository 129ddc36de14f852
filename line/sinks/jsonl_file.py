"""Verdicts as JSON lines, in a file or a named pipe: what ``run`` prints, for a program that reads beside it."""

from __future__ import annotations

import json
import os
from typing import final

from ...bundle.atomic import write_all
from ..verdict_line import VerdictLine
from .base import AbstractSink


@final
class JsonlSink(AbstractSink):
    """Appends a line per verdict, written in one piece."""

    def __init__(self, place: str) -> None:
        self._handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, entry: VerdictLine) -> None:
        """Append one line."""
        write_all(self._handle, (json.dumps(entry) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
