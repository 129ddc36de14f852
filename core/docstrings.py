"""What the docstring of a class says of each of its attributes."""

from __future__ import annotations

import inspect
from typing import Any


def attributes(kind: type[Any]) -> dict[str, str]:
    """Return each attribute's description in the section ``Attributes`` of a class's docstring, in its order."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if line.startswith("     "):
            texts[name] += f" {line.strip()}"
        else:
            name, _, text = line.strip().partition(": ")
            texts[name] = text
    return {key: text.replace("``", "") for key, text in texts.items()}
