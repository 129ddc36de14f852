"""Other people's checkpoints and ONNX files: each becomes a run or a bundle, and then goes the ordinary way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import from_module as from_module

__all__ = ["from_module"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: it needs PyTorch."""
    if name == "from_module":
        from .module import from_module

        return from_module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
