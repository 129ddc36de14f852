"""Records in a manifest: the outcome of each engine's last verify, and the history of the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..core.strict import read_as

#: Outcomes of a verify. ``undecided``: no verdict differs, but too many frames lie at the threshold to prove it.
ParityState = Literal["passed", "failed", "undecided"]

#: What ``Manifest.parity_of`` answers. ``outdated``: proved, but for another decision than the bundle's present one.
ProofState = Literal["passed", "failed", "undecided", "unverified", "outdated"]

#: What can stand in the history of a bundle.
Action = Literal["export", "calibrate", "set-threshold", "upgrade", "edited"]


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """The outcome of the last verify of an engine.

    Attributes:
        state: ``passed``, ``failed`` or ``undecided``.
        decision: digest of the decision that it holds for, see ``Manifest.decision``; "" where a bundle of format
            version 1 did not say.
        time: time of the verify, UTC, ISO 8601.
    """

    state: ParityState
    decision: str
    time: str


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One change of the decision, in the order in which they were made.

    Attributes:
        time: time of the change, UTC, ISO 8601.
        action: what was done: ``export``, ``calibrate``, ``set-threshold``, ``upgrade`` from an older format, or
            ``edited``: by hand, as the next command that wrote noticed.
        who: name of the person who made it; "" where it is not known.
        reason: why it was made, in the person's or the command's words.
        engine: engine whose threshold it was; "" for the bundle's own.
        previous: the threshold before, in units of the score; None where there was none.
        value: the threshold after, likewise.
        decision: digest of the decision after it.
    """

    time: str
    action: Action
    who: str
    reason: str
    engine: str
    previous: float | None
    value: float
    decision: str

    def sentence(self) -> str:
        """The entry for people, in one line."""
        change = f"{self.value:.6g}" if self.previous is None else f"{self.previous:.6g} -> {self.value:.6g}"
        where = f" of {self.engine}" if self.engine else ""
        by = f" by {self.who}" if self.who else ""
        return f"{self.time} {self.action}{by}: threshold{where} {change}{f' ({self.reason})' if self.reason else ''}"


@dataclass(frozen=True)
class _Tolerance1:
    """A tolerance as version 1 had it: both are shares of ranges."""

    score: float
    anomaly_map: float


@dataclass(frozen=True)
class _Version1:
    """Those fields of a manifest of format version 1 that are written otherwise now."""

    created: str
    parity: dict[str, str]
    tolerances: dict[str, _Tolerance1]


def upgrade_from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of a manifest of format version 1 as version 2 has them.

    Version 1 kept for each engine only whether it had passed, not for which decision: such a proof is taken over
    without a decision, so that it counts as outdated until the engine is verified again.

    Raises:
        ValueError: what version 1 had otherwise is missing or of another type.
    """
    old = read_as(_Version1, raw, refuses_unknown=False)
    parity = {engine: {"state": state, "decision": "", "time": old.created} for engine, state in old.parity.items()}
    tolerances = {
        precision: {
            "score_spread": _SPREAD_SHARES.get(precision, 0.1),
            "score_margin": item.score,
            "anomaly_map": item.anomaly_map,
        }
        for precision, item in old.tolerances.items()
    }
    same = {key: value for key, value in raw.items() if key != "score_range"}
    return {**same, "parity": parity, "tolerances": tolerances, "score_spread": 0.0, "history": [], "format_version": 2}


_SPREAD_SHARES = {"fp32": 1e-2, "fp16": 1e-1, "int8": 3e-1}
