"""Progress of a long TensorRT build, and its interruption by Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

from ...core.progress import Progress


@dataclass(frozen=True, eq=False)
class BuildMonitor:
    """A listener for one build, and whether the user interrupted it.

    Attributes:
        listener: progress monitor for the builder's configuration.
        interrupts: interrupts that were caught while the builder ran.
    """

    listener: Any
    interrupts: list[KeyboardInterrupt] = field(default_factory=list)

    def raise_if_interrupted(self) -> None:
        """Raise the interrupt that stopped the build; it could not travel through the library's C++."""
        if self.interrupts:
            raise self.interrupts[0]


def build_monitor(trt: Any, progress: Progress) -> BuildMonitor:
    """Return a monitor that reports the phases of a build to ``progress``.

    Args:
        trt: the module, ``tensorrt`` or ``tensorrt_rtx``.
        progress: called with the steps of the outermost phase, and once or more in every inner phase.
    """
    interrupts: list[KeyboardInterrupt] = []
    totals: dict[str, int] = {}

    def safely(report: Callable[[], None]) -> bool:
        try:
            report()
        except KeyboardInterrupt as interrupt:
            interrupts.append(interrupt)
        return not interrupts

    @final
    class PhaseListener(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, num_steps: int) -> None:
            if parent is None:
                totals[phase] = num_steps
            safely(lambda: progress(f"build: {phase}", 0, totals.get(phase, 0)))

        def step_complete(self, phase: str, step: int) -> bool:
            total = totals.get(phase, 0)
            return safely(lambda: progress(f"build: {phase}", step + 1 if total else 0, total))

        def phase_finish(self, phase: str) -> None:
            total = totals.get(phase, 0)
            safely(lambda: progress(f"build: {phase}", total, total))

    return BuildMonitor(PhaseListener(), interrupts)
