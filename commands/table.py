"""The table of commands, in the order in which ``--help`` lists them."""

from importlib import import_module

from ..core.registry import check_name
from ..host.needs import Needs

#: Command, alone or below a group, → its file and function.
COMMANDS = {
    name: f"lineproof.commands.{target}:{target}"
    for name in (
        "train", "import anomalib", "import onnx", "export", "calibrate", "set-threshold", "verify", "profile", "run",
        "evaluate", "compare", "badcases", "inspect", "diagnose anomalib", "doctor", "models", "sample", "demo",
    )
    for target in [name.replace("-", "_").replace(" ", "_")]
}  # fmt: skip
#: Group of commands → what it is for.
GROUPS = {
    "import": "Make a run or a bundle of a detector that was trained elsewhere.",
    "diagnose": "Say why a file that another tool exported gives other verdicts than what was trained.",
}


def needs_of(command: str) -> Needs:
    """Packages, engine and folder that a command needs, as its own file states them.

    Raises:
        UsageError: there is no such command.
    """
    check_name(COMMANDS, command, kind="command")
    needs: Needs = import_module(COMMANDS[command].partition(":")[0]).NEEDS
    return needs
