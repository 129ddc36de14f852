"""lineproof carries a trained anomaly detector from PyTorch to the inspection line and proves its parity.

Importing this package imports nothing else; ``open_line`` is loaded when it is first asked for (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .line.inspector import open_line as open_line

__version__ = "0.1.0"
__all__ = ["__version__", "open_line"]


def __getattr__(name: str) -> Any:
    if name == "open_line":
        from .line.inspector import open_line

        return open_line
    raise AttributeError(f"module 'lineproof' has no attribute {name!r}")
