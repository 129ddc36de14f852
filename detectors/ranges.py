"""What the parameters of a detector may be: declared by their types, and checked where a configuration is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, final, get_args, get_origin, get_type_hints

from ..core.errors import UsageError


@final
@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval of numbers.

    Attributes:
        low: its lower end.
        high: its upper end; infinite where there is none.
        takes_low: whether the lower end belongs to it.
        takes_high: whether the upper end belongs to it.
    """

    low: float
    high: float = math.inf
    takes_low: bool = True
    takes_high: bool = True

    def __contains__(self, value: float) -> bool:
        """Whether a number lies in the interval; not a number lies in none."""
        return self.low <= value <= self.high and not (
            (value == self.low and not self.takes_low) or (value == self.high and not self.takes_high)
        )

    def __str__(self) -> str:
        """The interval in words, such as ``from 0 to below 1``."""
        if math.isinf(self.high):
            return f"{self.low:g} or more" if self.takes_low else f"above {self.low:g}"
        if self.takes_low:
            return f"from {self.low:g} to {'' if self.takes_high else 'below '}{self.high:g}"
        return f"above {self.low:g} and {'at most' if self.takes_high else 'below'} {self.high:g}"


#: How many of something there are, at least one; or none, which may mean "all" or "by the paper's rule".
Count: TypeAlias = Annotated[int, Range(low=1)]
CountOrZero: TypeAlias = Annotated[int, Range(low=0)]
#: A number that may be 0, such as a weight or a weight decay; and one that may not, such as a learning rate.
NotNegative: TypeAlias = Annotated[float, Range(low=0)]
Positive: TypeAlias = Annotated[float, Range(low=0, takes_low=False)]
#: A part of a whole; one that is something; one that is something and leaves something; and one below a half.
Share: TypeAlias = Annotated[float, Range(low=0, high=1)]
PositiveShare: TypeAlias = Annotated[float, Range(low=0, high=1, takes_low=False)]
ProperShare: TypeAlias = Annotated[float, Range(low=0, high=1, takes_low=False, takes_high=False)]
HalfShare: TypeAlias = Annotated[float, Range(low=0, high=0.5, takes_low=False, takes_high=False)]
#: A part of a whole that is left in part, such as a momentum.
ShareBelowOne: TypeAlias = Annotated[float, Range(low=0, high=1, takes_high=False)]
#: The largest angle of a rotation to either side, in degrees.
Degrees: TypeAlias = Annotated[float, Range(low=0, high=180)]


def check_values(config: Any) -> None:
    """Raise UsageError unless every value of a configuration is one that its type allows.

    Args:
        config: a dataclass whose numbers are declared as ``Range`` and whose words as ``Literal``.
    """
    for name, allowed in allowed_values(type(config)).items():
        value = getattr(config, name)
        if value not in allowed:
            shown = f"{value:g}" if isinstance(value, float) else repr(value)
            raise UsageError(f"{name} is {shown}; expected {allowed_words(allowed)}.")


def allowed_words(allowed: Range | tuple[str, ...]) -> str:
    """What ``allowed_values`` gives of a field, in words."""
    return str(allowed) if isinstance(allowed, Range) else " or ".join(allowed)


def allowed_values(config_class: type[Any]) -> Mapping[str, Range | tuple[str, ...]]:
    """Return the range of each number, and the words that each word may be, by field."""
    hints = get_type_hints(config_class, include_extras=True)
    found = {field.name: _allowed(hints[field.name]) for field in dataclasses.fields(config_class)}
    return {name: allowed for name, allowed in found.items() if allowed}


def _allowed(hint: Any) -> Range | tuple[str, ...] | None:
    if get_origin(hint) is Literal:
        return tuple(get_args(hint))
    ranges = [item for item in get_args(hint) if isinstance(item, Range)] if get_origin(hint) is Annotated else []
    return ranges[0] if ranges else None
