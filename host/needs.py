"""What a command needs to run. Light on purpose: every command states its own needs at the top of its file."""

from dataclasses import dataclass
from typing import final

TRAINING_MODULES = ("torch", "torchvision", "timm", "FrEIA", "safetensors")
EXPORT_MODULES = (*TRAINING_MODULES, "onnx", "onnxscript")


@final
@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a command needs to run; ``doctor --for`` looks for it.

    Attributes:
        modules: names of the Python modules that it imports.
        has_engine: whether it runs a bundle, so that one engine must be available.
        writes: the folder that it writes to where no option names another; "" for none.
    """

    modules: tuple[str, ...] = ()
    has_engine: bool = False
    writes: str = ""
