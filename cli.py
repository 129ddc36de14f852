"""The command line: one typer application of all the commands in the table."""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script from the root: hand over to the installed package
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    import lineproof.cli

    lineproof.cli.main()

from typing import Annotated

import typer

from . import __version__
from .commands._status import Commands, run_app
from .commands.table import COMMANDS, GROUPS
from .core.registry import resolve

app = typer.Typer(
    help="Carries a trained anomaly detector from PyTorch to the inspection line and proves that it did not change.",
    epilog="Exit status: 0 done, 1 error, 2 usage, 3 environment missing, 4 parity failed or undecided, "
    "5 deadline missed, 130 stopped by Ctrl-C (what was done by then is kept, and said), "
    "141 the reader of stdout went away.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: object) -> None:
    if value:
        typer.echo(f"lineproof {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Carry a trained anomaly detector from PyTorch to the inspection line and prove that it did not change."""


def _register() -> None:
    groups = {name: typer.Typer(no_args_is_help=True, rich_markup_mode=None) for name in GROUPS}
    for name in COMMANDS:
        group, _, own = name.rpartition(" ")
        place = groups[group] if group else app
        place.command(name=own)(resolve(COMMANDS, name, kind="command"))
        if group and len(place.registered_commands) == 1:
            app.add_typer(place, name=group, help=GROUPS[group])


_register()


def main() -> None:
    """Run the command line; every error ends in a message on stderr and its exit status."""
    run_app(app)
