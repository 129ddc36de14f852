"""Devices of a training: their names, moves to them, and the arithmetic of float32 on them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ...core.errors import EnvironmentMissingError, UsageError

BatchT = TypeVar("BatchT")


def find_device(name: str) -> torch.device:
    """Return the device with a name, which must be there; CUDA is never chosen silently.

    Args:
        name: ``"cpu"``, ``"cuda"`` for the first GPU, or ``"cuda:N"`` for the one with index N in CUDA's order.

    Raises:
        UsageError: no device is called so.
        EnvironmentMissingError: torch finds no CUDA GPU, or none with this index.
    """
    if name == "cpu":
        return torch.device("cpu")
    found = re.fullmatch(r"cuda(?::(0|[1-9]\d{0,3}))?", name)
    if not found:
        raise UsageError(f"device (--device) is {name!r}; expected cpu, cuda, or cuda:N with the index of a GPU.")
    if not torch.cuda.is_available():
        raise EnvironmentMissingError(
            f"device (--device) is {name}, and torch {torch.__version__} finds no CUDA GPU. Train with --device cpu, "
            "or install a torch built for CUDA and an NVIDIA driver."
        )
    index, count = int(found[1] or 0), torch.cuda.device_count()
    if index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise EnvironmentMissingError(
            f"device (--device) is {name}, and torch finds {there}. Give one of these; CUDA_VISIBLE_DEVICES hides GPUs."
        )
    return torch.device("cuda", index)


def current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which a GPU is CUDA's current one, where pinned memory and new tensors belong to."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def moved(batch: BatchT, device: torch.device) -> BatchT:
    """Return a batch whose tensors are on a device; the host does not wait for copies from pinned memory.

    Args:
        batch: a tensor, or tuples (named ones too), lists and dictionaries of such; all else in them stays what it is.
        device: device that the tensors are needed on.
    """
    return cast(BatchT, _moved(batch, device))


def _moved(batch: object, device: torch.device) -> object:
    if isinstance(batch, Tensor):
        # To the CPU a copy must have ended before its values are read.
        return batch.to(device, non_blocking=device.type == "cuda")
    if isinstance(batch, dict):
        return {key: _moved(item, device) for key, item in batch.items()}
    if isinstance(batch, tuple | list):
        items: Any = [_moved(item, device) for item in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 in full on CUDA: without TF32, which torch's convolutions round their inputs to by default.

    What is computed so may be compared with what a CPU computes.
    """
    operations = _operations()
    before = {name: item.fp32_precision for name, item in operations.items()}
    try:
        for item in operations.values():
            item.fp32_precision = "ieee"
        yield
    finally:
        for name, item in operations.items():
            item.fp32_precision = before[name]


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return what a run records of the device that it was trained on, as JSON values; nothing of a CPU.

    Returns:
        ``device``, and ``fp32`` with what torch computes a float32 operation in: ``"tf32"`` with inputs rounded to
        10 bits of mantissa, ``"ieee"`` in full, which is also what ``"none"`` means where nothing was set.
    """
    if device.type != "cuda":
        return {}
    return {"device": str(device), "fp32": {name: str(item.fp32_precision) for name, item in _operations().items()}}


def _operations() -> dict[str, Any]:
    cudnn: Any = torch.backends.cudnn
    return {"matrix products": torch.backends.cuda.matmul, "convolutions": cudnn.conv}
