"""The table of commands, in the order in which ``--help`` lists them."""

from importlib import import_module

from ..core.registry import check_name
from ..host.needs import Needs

COMMANDS = {
    name: f"lineproof.commands.{name.replace('-', '_')}:{name.replace('-', '_')}"
    for name in (
        "train", "export", "calibrate", "set-threshold", "verify", "profile", "run", "evaluate", "compare", "badcases",
        "inspect", "doctor", "models", "sample", "demo",
    )
}  # fmt: skip


def needs_of(command: str) -> Needs:
    """Packages, engine and folder that a command needs, as its own file states them.

    Raises:
        UsageError: there is no such command.
    """
    check_name(COMMANDS, command, kind="command")
    needs: Needs = import_module(COMMANDS[command].partition(":")[0]).NEEDS
    return needs
