"""A growing bag of numbers: what a metric remembers of the images it has seen."""

from typing import Any, Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)

# Pages of a block that were never written cost no memory, so that a large block is free until it fills.
BLOCK_LENGTH = 1 << 24


@final
class Pool(Generic[_Scalar]):
    """Values appended in any order, held in blocks and never copied to grow.

    The order of the values is no part of the state: whoever reads the blocks may sort them in place.
    """

    def __init__(self, dtype: type[_Scalar]) -> None:
        self._dtype = dtype
        self._blocks: list[NDArray[_Scalar]] = []
        self._free: NDArray[_Scalar] = np.empty(0, dtype)

    def __len__(self) -> int:
        return sum(map(len, self.blocks()))

    def reserve(self, num_values: int) -> None:
        """Make room so that the next ``num_values`` values lie in one block."""
        if num_values > len(self._free):
            self._open_block(num_values)

    def append(self, values: NDArray[Any]) -> None:
        """Add the values of a one-dimensional array."""
        while len(values):
            if not len(self._free):
                self._open_block(BLOCK_LENGTH)
            taken = min(len(values), len(self._free))
            self._free[:taken] = values[:taken]
            self._free, values = self._free[taken:], values[taken:]

    def blocks(self) -> list[NDArray[_Scalar]]:
        """Return views of what has been appended so far, one per block."""
        filled = self._blocks[:]
        if filled:
            filled[-1] = filled[-1][: len(filled[-1]) - len(self._free)]
        return [block for block in filled if len(block)]

    def absorb(self, other: "Pool[_Scalar]") -> None:
        """Append a copy of everything that ``other`` holds."""
        for block in other.blocks():
            self.append(block)

    def to_array(self) -> NDArray[_Scalar]:
        """Return a copy of all values in one array."""
        return np.concatenate([np.empty(0, self._dtype), *self.blocks()])

    def _open_block(self, length: int) -> None:
        if self._blocks:
            self._blocks[-1] = self._blocks[-1][: len(self._blocks[-1]) - len(self._free)]
        self._blocks.append(np.empty(length, self._dtype))
        self._free = self._blocks[-1]
