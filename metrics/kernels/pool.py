"""A growing pool of numbers: what a metric remembers of the images that it was updated with."""

from typing import Any, Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)

_FIRST_BLOCK_LENGTH = 1 << 20


@final
class Pool(Generic[_Scalar]):
    """Values appended in any order, held in blocks and never copied to grow.

    A new block is half as long as everything before it, so that there are few; its pages cost no memory before
    they are written. The order of the values is no part of the state: whoever reads the blocks may sort them in
    place.
    """

    def __init__(self, dtype: type[_Scalar]) -> None:
        self._dtype = dtype
        self._full: list[NDArray[_Scalar]] = []
        self._open: NDArray[_Scalar] = np.empty(0, dtype)
        self._num_open = 0

    def __len__(self) -> int:
        return sum(map(len, self._full)) + self._num_open

    def reserve(self, num_values: int) -> None:
        """Make room so that the next ``num_values`` values lie in one block."""
        if num_values > len(self._open) - self._num_open:
            self._full = self.blocks()
            self._open, self._num_open = np.empty(num_values, self._dtype), 0

    def append(self, values: NDArray[Any]) -> None:
        """Add the values of a one-dimensional array."""
        while len(values):
            if self._num_open == len(self._open):
                self.reserve(max(_FIRST_BLOCK_LENGTH, len(self) // 2, len(values)))
            end = min(self._num_open + len(values), len(self._open))
            num_fitting = end - self._num_open
            self._open[self._num_open : end] = values[:num_fitting]
            self._num_open, values = end, values[num_fitting:]

    def blocks(self) -> list[NDArray[_Scalar]]:
        """Return views of what has been appended so far, one per block, none empty."""
        return [*self._full, self._open[: self._num_open]] if self._num_open else self._full[:]

    def absorb(self, other: "Pool[_Scalar]") -> None:
        """Append a copy of everything that ``other`` holds."""
        for block in other.blocks():
            self.append(block)

    def adopt(self, other: "Pool[_Scalar]") -> None:
        """Take over the blocks of ``other`` without a copy; ``other`` must not be used any more."""
        self._full = [*other.blocks(), *self._full]

    def merged(self) -> NDArray[_Scalar]:
        """Return all values in one array: a view where there is one block, else a copy."""
        blocks = self.blocks()
        return blocks[0] if len(blocks) == 1 else self.to_array()

    def to_array(self) -> NDArray[_Scalar]:
        """Return a copy of all values in one array."""
        return np.concatenate([np.empty(0, self._dtype), *self.blocks()])
