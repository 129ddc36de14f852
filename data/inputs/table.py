"""The kinds of input, by name; a table is no import."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ...core.inputs import InputSpec
from ...core.registry import resolve
from ...core.spec import FrameRule

if TYPE_CHECKING:
    from .base import AbstractInput

#: ``kind`` of a specification → the class that handles its frames.
INPUTS = {
    "image": "lineproof.data.inputs.image:ImageInput",
    "depth": "lineproof.data.inputs.depth:DepthInput",
    "voxel": "lineproof.data.inputs.voxel:VoxelInput",
}

#: An input of whatever kind.
AnyInput: TypeAlias = "AbstractInput[InputSpec | FrameRule]"


def input_of(spec: InputSpec | FrameRule) -> AnyInput:
    """The input that reads, checks, fits and shows the frames of a specification.

    Args:
        spec: a manifest's ``preprocessing``; or, for images before there is a graph, the rule alone.
    """
    handler: AnyInput = resolve(INPUTS, spec.kind, kind="input")(spec)
    return handler
