"""``lineproof doctor``."""

from typing import Annotated

from typer import Option

from ..host.needs import Needs
from ._options import AsJson, Quiet, Verbose

NEEDS = Needs()


def doctor(
    *,
    command: Annotated[
        str | None, Option("--for", help="Look only at what this command needs; exit 3 where something is missing.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say which engines work here, and what would make the others work."""
    from ..runtime.diagnosis import examine
    from ..runtime.readiness import examine_for
    from ._console import Ui
    from .table import needs_of

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    if command is None:
        ui.show(examine())
        return
    ui.conclude(examine_for(command, needs_of(command)))
