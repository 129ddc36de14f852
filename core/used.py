"""How many images of a set could be used, and whether that is enough for the result to stand for the set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, final

from .errors import BadInputError
from .words import counted

#: Share of the images that must have been used, unless another is stated.
MIN_USED = 0.9
_NAMED = 3


class SkippedJson(TypedDict):
    """An image that could not be used, and why."""

    file: str
    reason: str


class UsedJson(TypedDict):
    """How many images of a set were used, and every one that was not."""

    num_total: int
    num_used: int
    skipped: list[SkippedJson]


@final
@dataclass(frozen=True)
class UsedShare:
    """How many images of a set could be used.

    Attributes:
        num_total: number of images of the set.
        skipped: images that could not be used, each as (file, reason).
    """

    num_total: int
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def num_used(self) -> int:
        """Images that were used."""
        return self.num_total - len(self.skipped)

    @property
    def share(self) -> float:
        """Share of the images that were used, 0 to 1; 1 for a set without images."""
        return self.num_used / self.num_total if self.num_total else 1.0

    def lines(self, *, lists_all: bool = False) -> list[str]:
        """The warning about a set of which only part was used; no line where all of it was.

        Args:
            lists_all: name every image with its reason, instead of three and one reason.
        """
        if not self.skipped:
            return []
        head = f"Only {self.num_used} of {counted(self.num_total, 'image')} could be used ({self.share:.1%}). Not used"
        if lists_all:
            return [f"{head}:", *(f"  {file}: {reason}" for file, reason in self.skipped)]
        names = ", ".join(file for file, _ in self.skipped[:_NAMED])
        num_more, num_reasons = len(self.skipped) - _NAMED, len({reason for _, reason in self.skipped}) - 1
        more = f" and {num_more} more" if num_more > 0 else ""
        plural = "s" if num_reasons > 1 else ""
        others = f" (and {num_reasons} other reason{plural}; -v lists all)" if num_reasons else ""
        return [f"{head}: {names}{more}: {self.skipped[0][1].rstrip('.')}{others}."]

    def check(self, min_used: float) -> None:
        """Raise BadInputError where less than ``min_used`` (0 to 1) of the images was used."""
        if self.share < min_used:
            raise BadInputError(
                f"Only {self.num_used} of {counted(self.num_total, 'image')} could be used ({self.share:.1%}); "
                f"expected at least {min_used:.0%}, so that the result stands for the set. Mend what the first "
                "line names, or accept less with --min-used."
            )

    def to_dict(self) -> UsedJson:
        """JSON: counts, and every image that was not used."""
        skipped = [SkippedJson(file=file, reason=reason) for file, reason in self.skipped]
        return {"num_total": self.num_total, "num_used": self.num_used, "skipped": skipped}
