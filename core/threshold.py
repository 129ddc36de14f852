"""A threshold from the scores of held-out good parts, and what it promises."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BadInputError, UsageError
from .words import counted

#: Name, in thresholds and proofs, of the engine that is the truth: the detector in its training form.
REFERENCE_ENGINE = "torch"
#: Name, likewise, of an imported model's own file, which is the truth of its bundle.
ORIGINAL_ENGINE = "original"
#: Share of good parts that may be rejected, unless another is stated.
MAX_FALSE_REJECT = 0.01
_EXTRAPOLATION = 0.05


def check_threshold(value: float) -> None:
    """Raise UsageError unless the threshold is finite: every score compares with NaN as good, and with inf too."""
    if not math.isfinite(value):
        raise UsageError(f"The threshold is {value}; expected a finite number in units of the score.")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A calibrated threshold: a frame is NG where ``score > value``, strictly.

    Attributes:
        value: the threshold, in units of the score; always finite.
        num_good: number of held-out good parts that it was calibrated on; 0 for one that was set by hand.
        num_rejected: number of those parts that score above it.
        max_false_reject: share of good parts that the user allowed to be rejected, 0..1.
        interval_low: lower end of the 95 % interval of the true false-reject rate, 0..1.
        interval_high: upper end of that interval, 0..1.
        engine: name of the engine whose scores were used.
        source: origin of the good parts, or of the value, in words.

    Raises:
        UsageError: the value is not finite.
    """

    value: float
    num_good: int
    num_rejected: int
    max_false_reject: float
    interval_low: float
    interval_high: float
    engine: str
    source: str

    def __post_init__(self) -> None:
        check_threshold(self.value)

    def sentence(self) -> str:
        """The promise in words, as every command prints it; a threshold that was set by hand promises nothing."""
        if not self.num_good:
            return "it promises no rate of rejected good parts"
        return (
            f"{self.num_rejected} of {counted(self.num_good, 'good part')} rejected, "
            f"95 % interval {self.interval_low:.1%}–{self.interval_high:.1%}"
        )

    def is_defect(self, score: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """The verdict rule, in float64: bool, True where the frame is NG."""
        return np.asarray(np.asarray(score, dtype=np.float64) > self.value)


def stated_threshold(value: float, *, engine: str, source: str, max_false_reject: float = 0.0) -> Threshold:
    """A threshold that somebody named: it was set on no good parts, and promises nothing about them.

    Args:
        value: the threshold, finite, in units of the score.
        engine: name of the engine, or of the library, whose scores it is for.
        source: origin of the value, in words.
        max_false_reject: share of rejected good parts that was allowed where it stands in for a calibrated one.

    Raises:
        UsageError: the value is not finite.
    """
    return Threshold(
        value=value,
        num_good=0,
        num_rejected=0,
        max_false_reject=max_false_reject,
        interval_low=0.0,
        interval_high=1.0,
        engine=engine,
        source=source,
    )


def calibrate(scores: Sequence[float], *, max_false_reject: float, engine: str, source: str) -> Threshold:
    """Set the threshold that rejects at most ``max_false_reject`` of these good parts.

    The threshold never lies on a sample's own score. It is the middle between the highest accepted and the
    lowest rejected score; where nothing may be rejected it stands above the highest score by 5 % of the
    distance between the highest and the median score.

    Args:
        scores: scores of held-out good parts, finite.
        max_false_reject: allowed share of rejected good parts, 0 ≤ share < 1.
        engine: name of the engine that gave the scores.
        source: origin of the parts, in words.

    Raises:
        UsageError: the share is outside [0, 1).
        BadInputError: fewer than two scores, or a score that is not finite.
    """
    if not 0.0 <= max_false_reject < 1.0:
        raise UsageError(
            f"max_false_reject (--max-false-reject) is {max_false_reject}; expected a share from 0 up to below 1 (or "
            "0% to 99%)."
        )
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    if ordered.size < 2 or not np.isfinite(ordered).all():
        raise BadInputError(
            f"A threshold needs at least two finite scores of good parts; got {ordered.size} "
            f"({int((~np.isfinite(ordered)).sum())} not finite). Hold out more good images."
        )
    value = _between(ordered, math.floor(max_false_reject * ordered.size))
    num_rejected = int((ordered > value).sum())
    low, high = clopper_pearson(num_rejected, ordered.size)
    return Threshold(
        value=value,
        num_good=ordered.size,
        num_rejected=num_rejected,
        max_false_reject=max_false_reject,
        interval_low=low,
        interval_high=high,
        engine=engine,
        source=source,
    )


def _between(descending: NDArray[np.float64], num_rejected: int) -> float:
    """A value below exactly ``num_rejected`` scores, or fewer where ties forbid it, and equal to none."""
    accepted = descending[num_rejected]
    above = descending[descending > accepted]
    if above.size:
        middle = float(0.5 * (accepted + above[-1]))
        if accepted < middle < above[-1]:
            return middle
        return float(np.nextafter(above[0], np.inf))
    margin = _EXTRAPOLATION * float(accepted - np.median(descending))
    return float(accepted + max(margin, 1e-6 * abs(float(accepted)), 1e-12))


def clopper_pearson(num_events: int, num_trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of a rate (Clopper and Pearson, 1934).

    Args:
        num_events: number of events, 0 to ``num_trials``.
        num_trials: number of trials, 1 or more.
        confidence: smallest probability with which the interval covers the true rate, 0 to 1.

    Returns:
        (low, high), both in [0, 1].
    """
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if num_events == 0 else _solve(lambda p: _tail_above(num_events, num_trials, p) - tail)
    high = 1.0 if num_events == num_trials else _solve(lambda p: tail - _tail_below(num_events, num_trials, p))
    return low, high


def _log_terms(num_trials: int, rate: float) -> NDArray[np.float64]:
    k = np.arange(num_trials + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num_trials + 1)))])
    binomial = log_factorial[-1] - log_factorial[k] - log_factorial[num_trials - k]
    return np.asarray(binomial + k * math.log(rate) + (num_trials - k) * math.log1p(-rate))


def _tail_above(num_events: int, num_trials: int, rate: float) -> float:
    return float(np.exp(_log_terms(num_trials, rate)[num_events:]).sum())


def _tail_below(num_events: int, num_trials: int, rate: float) -> float:
    return float(np.exp(_log_terms(num_trials, rate)[: num_events + 1]).sum())


def _solve(rising: Callable[[float], float]) -> float:
    """Root of a function that rises over (0, 1), by bisection to double precision."""
    low, high = 1e-15, 1.0 - 1e-15
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return 0.5 * (low + high)
