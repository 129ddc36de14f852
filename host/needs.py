"""What a command cannot do without. Light on purpose: every command states its own at the top of its file."""

from dataclasses import dataclass
from typing import final

TRAINING_MODULES = ("torch", "torchvision", "timm", "FrEIA", "safetensors")
EXPORT_MODULES = (*TRAINING_MODULES, "onnx", "onnxscript")


@final
@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a command cannot do without.

    Attributes:
        modules: Python modules.
        has_engine: whether it runs a bundle, so that one engine must be available.
        writes: the folder that it writes to where no option names another; "" for none.
    """

    modules: tuple[str, ...] = ()
    has_engine: bool = False
    writes: str = ""
