"""A check for weights that are not finite, which make all scores NaN, or only some."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_NUM_NAMED = 3
#: Values looked at together: what is computed on the way takes six bytes for each.
_VALUES_AT_ONCE = 1 << 24


def describe_not_finite(state: Mapping[str, Tensor]) -> str:
    """Describe the tensors that hold NaN or infinite values, their number, and the position of the first.

    Args:
        state: tensors by name, of any dtype.

    Returns:
        ``"layer1.weight holds 2 values of 36,864 not finite (first: nan at [0, 1, 2, 0])"``, for
        the first three tensors, then the number of others; empty where every value is finite.
    """
    descriptions = [text for name, value in state.items() if (text := _describe(name, value))]
    others = f", and so do {len(descriptions) - _NUM_NAMED} more tensors" if len(descriptions) > _NUM_NAMED else ""
    return ", ".join(descriptions[:_NUM_NAMED]) + others


def _describe(name: str, value: Tensor) -> str:
    if not (value.is_floating_point() or value.is_complex()):
        return ""
    if all(bool(torch.isfinite(_wide(part)).all()) for part in value.detach().flatten().split(_VALUES_AT_ONCE)):
        return ""
    wide = _wide(value.detach())
    is_bad = ~torch.isfinite(wide)
    num_bad = int(is_bad.sum())
    first = is_bad.nonzero()[0].tolist()
    seen = wide[tuple(first)].item()
    what = "1 value" if num_bad == 1 else f"{num_bad:,} values"
    return f"{name} holds {what} of {value.numel():,} not finite (first: {seen} at {first})"


def _wide(value: Tensor) -> Tensor:
    """Return the values in a type that has an isfinite of its own, which those of 8 bits have not."""
    return value if value.element_size() > 1 else value.float()
