"""Work shared among threads; NumPy lets go of the interpreter while it sorts, searches and copies."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ...core.errors import UsageError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def check_num_threads(num_threads: int | None) -> int:
    """Return the number of threads to use: the one asked for, or one per CPU for None.

    Raises:
        UsageError: fewer than one.
    """
    if num_threads is not None and num_threads < 1:
        raise UsageError(f"num_threads is {num_threads}; expected at least 1, or None for one per CPU.")
    return num_threads or os.cpu_count() or 1


def in_threads(task: Callable[[_Item], _Result], items: Sequence[_Item], num_threads: int) -> list[_Result]:
    """Run ``task`` on every item and return the results in that order; no thread is made for a single item."""
    if min(len(items), num_threads) < 2:
        return [task(item) for item in items]
    with ThreadPoolExecutor(min(len(items), num_threads)) as executor:
        return list(executor.map(task, items))
