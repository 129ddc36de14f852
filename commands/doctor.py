"""``lineproof doctor``."""

from ._options import AsJson, Quiet, Verbose


def doctor(
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say which engines work here, and what would make the others work."""
    from ..workflows.describe import examine
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.show(examine())
