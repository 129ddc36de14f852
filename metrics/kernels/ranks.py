"""Order of scores: exact integer keys for float32, and the number of scores above each threshold."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint32(0x80000000)

# Fewer scores than this are sorted faster by one thread than handed to another one.
_WORTH_A_THREAD = 1 << 17
# Copying so few scores is cheaper than one more block to search.
_FEW = 1 << 21
# Positives ranked at a time: bounds the scratch memory, and their stretch of the negatives stays in the cache.
_STRETCH = 1 << 15


def encode(values: NDArray[np.float32], payload: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Pack float32 scores and a 32-bit payload into words that sort by score, then by payload.

    Args:
        values: float32 (P,), no NaN; -0.0 becomes 0.0, so that the two are ties.
        payload: uint32 (P,).

    Returns:
        uint64 (P,).
    """
    bits = (values + np.float32(0)).view(np.uint32)
    # Positive floats order like their bits; negative ones the other way round.
    key = bits ^ ((bits.view(np.int32) >> 31).view(np.uint32) | _SIGN)
    return (key.astype(np.uint64) << np.uint64(32)) | payload


def decode(words: NDArray[np.uint64]) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Undo ``encode``: scores float32 (P,) and payload uint32 (P,)."""
    key = (words >> np.uint64(32)).astype(np.uint32)
    bits = key ^ (((key ^ _SIGN).view(np.int32) >> 31).view(np.uint32) | _SIGN)
    return bits.view(np.float32), words.astype(np.uint32)


def spans(words: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Cut sorted words, (P,) with P >= 1, into spans of about equal length that never divide a tie of scores."""
    score_only = np.uint64(0xFFFFFFFF00000000)
    cuts = np.searchsorted(words, words[::_STRETCH] & score_only, side="left")
    return list(pairwise([*np.unique(cuts).tolist(), len(words)]))


@final
class Ranking:
    """All scores, of positives and negatives, in blocks that are each sorted in ascending order."""

    def __init__(self, sorted_blocks: Sequence[NDArray[Any]]) -> None:
        self._blocks = sorted_blocks
        self._dtype = sorted_blocks[0].dtype

    def count(self, thresholds: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the scores above each threshold, and those at or above it.

        Args:
            thresholds: (T,), ascending, T >= 1, of the dtype that the scores had.

        Returns:
            int64 (T,) twice: number of scores > threshold, number of scores >= threshold.
        """
        thresholds = thresholds.view(self._dtype)
        above = np.zeros(len(thresholds), np.int64)
        at_or_above = np.zeros(len(thresholds), np.int64)
        for block in self._blocks:
            low = np.searchsorted(block, thresholds[0], side="left")
            high = np.searchsorted(block, thresholds[-1], side="right")
            # Only the stretch that these thresholds span is searched: it is short and stays in the cache.
            stretch, beyond = block[low:high], len(block) - low
            ends = np.searchsorted(stretch, thresholds, side="right")
            above += beyond - ends
            at_or_above += beyond - _starts_of_ties(stretch, thresholds, ends)
        return above, at_or_above


def _starts_of_ties(scores: NDArray[Any], thresholds: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the scores that equal each threshold start, given where they end: at the end, without ties.

    Most thresholds have one tie or none; looking is cheaper than a second search, which is left to the others.
    """
    starts = ends.copy()
    tied = np.flatnonzero((ends > 0) & (scores[ends - 1] == thresholds)) if len(scores) else starts[:0]
    starts[tied] -= 1
    tied = tied[(starts[tied] > 0) & (scores[starts[tied] - 1] == thresholds[tied])]
    starts[tied] = np.searchsorted(scores, thresholds[tied], side="left")
    return starts


def as_integers(blocks: Sequence[NDArray[np.float32]]) -> list[NDArray[Any]]:
    """View float32 scores as the integers with the same bits, unless one has a sign (-0.0 has one).

    The two order alike, and integers sort and search faster, since no comparison has to think of NaN.
    """
    views: list[NDArray[Any]] = [block.view(np.int32) for block in blocks]
    return views if all(np.min(view) >= 0 for view in views) else list(blocks)


def share_out(blocks: Sequence[NDArray[Any]], num_parts: int) -> list[NDArray[Any]]:
    """Rearrange blocks into few parts that ``num_parts`` threads can sort in about equal time.

    Every part costs one more search per threshold, so that small blocks are copied into one; long ones are cut
    into views.
    """
    total = sum(map(len, blocks))
    longest = max(_WORTH_A_THREAD, -(-total // num_parts))
    shortest = max(_FEW, longest // 4)
    small = [block for block in blocks if len(block) < shortest]
    large = [block for block in blocks if len(block) >= shortest]
    if small:
        large.append(np.concatenate(small))
    return [block[first : first + longest] for block in large for first in range(0, len(block), longest)]
