"""Thresholds that a person sets by hand; the bundle's history keeps who set them and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, final

from ..core.errors import UsageError
from ..core.threshold import check_threshold, stated_threshold
from .manifest import Manifest
from .store import Bundle, now


@final
@dataclass(frozen=True, kw_only=True)
class ThresholdChange:
    """A threshold that was set by hand.

    Attributes:
        bundle: the bundle as it is on disk after the change.
        engine: engine whose threshold it is; "" for the bundle's own.
        previous: threshold before, in units of the score.
        value: threshold now.
    """

    bundle: Bundle
    engine: str
    previous: float
    value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bundle": str(self.bundle.path),
            "engine": self.engine,
            "previous_threshold": self.previous,
            "threshold": self.value,
            "decision": self.bundle.manifest.decision,
            "history": [dataclasses.asdict(entry) for entry in self.bundle.manifest.history],
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The change for people, a line each."""
        whose = self.engine or "every engine without one of its own"
        return (
            f"Threshold of {whose}: {self.value:.6g} (before: {self.previous:.6g}).",
            "What was proved before was proved for the other threshold. Verify each engine again: "
            f"lineproof verify {self.bundle.path} --engine {self.engine or 'ENGINE'}",
        )


def set_threshold(bundle: Bundle, value: float, *, engine: str = "", reason: str, who: str = "") -> ThresholdChange:
    """Set a threshold to a value that somebody chose, and write into the history who, when, from, to and why.

    The promise of a calibrated threshold (how many good parts it rejects) does not hold for it and goes away. Every
    engine counts as outdated until it is verified again.

    Args:
        bundle: the bundle to change; its manifest is read again from the disk.
        value: the new threshold, finite, in units of the score.
        engine: engine whose threshold it is; "" for the bundle's own, which engines without one of their own use.
        reason: why it is set, in words; not empty.
        who: name of the person who sets it; "" where it is not known.

    Raises:
        UsageError: the value is not finite, or the reason is empty.
        BundleError, BusyError, OSError: the bundle cannot be changed.
    """
    check_threshold(value)
    if not reason.strip():
        raise UsageError("reason is empty; expected why the threshold is set. Say it in a few words: --reason TEXT.")
    previous = bundle.manifest.threshold_for(engine).value

    def edit(manifest: Manifest) -> Manifest:
        nonlocal previous
        before = manifest.threshold_for(engine)
        previous = before.value
        chosen = stated_threshold(
            float(value),
            engine=engine or before.engine,
            source=f"set by hand: {reason.strip()}",
            max_false_reject=before.max_false_reject,
        )
        changed = manifest.with_threshold(chosen, engine=engine)
        return changed.with_entry(
            "set-threshold", time=now(), engine=engine, previous=previous, who=who, reason=reason.strip()
        )

    changed = bundle.change(edit)
    return ThresholdChange(bundle=changed, engine=engine, previous=previous, value=float(value))
