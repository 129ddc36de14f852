"""Put what each command's --help prints into its page, between the markers; ``--check`` only compares."""

import sys
from pathlib import Path

from typer.testing import CliRunner

DOCS = Path(__file__).resolve().parent
START, END = "<!-- help -->\n```text\n", "```\n<!-- end help -->\n"


def help_text(command: str) -> str:
    """What ``lineproof COMMAND --help`` prints at 100 columns."""
    from lineproof.cli import app

    result = CliRunner().invoke(
        app, [*command.split(), "--help"], env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}, prog_name="lineproof"
    )
    return result.output.strip("\n") + "\n"


def commands() -> list[str]:
    """Names of all commands."""
    from lineproof.commands.table import COMMANDS

    return list(COMMANDS)


def with_help(page: str, command: str) -> str:
    """The page with its help block made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{help_text(command)}{END}{after}"


def main() -> int:
    """Update the pages, or with --check name those that are out of date."""
    stale = []
    for command in commands():
        path = DOCS / f"{command.replace(' ', '-')}.md"
        page = path.read_text()
        wanted = with_help(page, command)
        if wanted != page:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(wanted)
    if "--check" in sys.argv and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python docs/update_help.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
