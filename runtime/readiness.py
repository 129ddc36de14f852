"""Readiness of one command: the packages, the engine and the folder it needs, and whether they are here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.errors import EnvironmentMissingError
from ..host.extras import extra_of, install
from ..host.needs import Needs
from .engine import availability, is_reference, names_of


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that a command needs.

    Attributes:
        what: the thing, in words.
        is_met: whether it is here.
        found: what is here, in words.
        fix: the command or step that brings it; "" where it is here.
    """

    what: str
    is_met: bool
    found: str
    fix: str


@dataclass(frozen=True)
class Readiness:
    """Whether one command can work here.

    Attributes:
        command: name of the command.
        needs: everything that it needs, met or not.
    """

    command: str
    needs: tuple[Need, ...]

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missing."""
        return all(need.is_met for need in self.needs)

    def check(self) -> None:
        """Check that nothing is missing.

        Raises:
            EnvironmentMissingError: something is missing; the message names it.
        """
        if not self.is_ready:
            missing = ", ".join(need.what for need in self.needs if not need.is_met)
            raise EnvironmentMissingError(f"lineproof {self.command} cannot work here; missing: {missing}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "command": self.command,
            "ready": self.is_ready,
            "needs": [dataclasses.asdict(need) for need in self.needs],
        }

    def summary_lines(self) -> tuple[str, ...]:
        """Everything that the command needs, and the fixes, a line each."""
        lines = [f"lineproof {self.command}: {'ready' if self.is_ready else 'not ready'}"]
        for need in self.needs:
            lines.append(f"{'yes' if need.is_met else 'NO':4}{need.what}: {need.found}")
            if need.fix and not need.is_met:
                lines.append(f"{'':4}to fix: {need.fix}")
        return (*lines, *(() if self.needs else ("It needs nothing besides lineproof itself.",)))


def examine_for(command: str, needs: Needs) -> Readiness:
    """Check everything that a command needs; nothing is opened or written.

    Args:
        command: name of the command.
        needs: what the command states that it needs.
    """
    checked = [*_packages(needs.modules)]
    if needs.has_engine:
        checked.append(_engine())
    if needs.writes:
        checked.append(_writable(Path(needs.writes)))
    return Readiness(command, tuple(checked))


def _packages(modules: tuple[str, ...]) -> Iterator[Need]:
    for module in modules:
        is_met = find_spec(module) is not None
        yield Need(
            what=f"the module {module}",
            is_met=is_met,
            found="installed" if is_met else "not installed",
            fix="" if is_met else install(extra_of(module)),
        )


def _engine() -> Need:
    states = [availability(name) for name in names_of(lambda engine: not engine.is_harness)]
    here = [state.name for state in states if state.is_available and not is_reference(state.name)]
    return Need(
        what="an engine",
        is_met=bool(here),
        found=", ".join(here) or "; ".join(f"{state.name}: {state.found}" for state in states),
        fix="" if here else f"{install('cpu')}, or {install('openvino')}",
    )


def _writable(folder: Path) -> Need:
    place = folder if folder.exists() else folder.absolute().parent
    is_met = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    state = "can be written" if is_met else ("is not writable" if place.is_dir() else "is a file")
    fix = "" if is_met else "work in a folder that can be written, or name one with --out"
    return Need(what=f"the folder {folder.absolute()}", is_met=is_met, found=state, fix=fix)
