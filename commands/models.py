"""``lineproof models``."""

from typing import Annotated

from typer import Argument

from ..host.needs import Needs
from ._options import AsJson, Quiet, Verbose

NEEDS = Needs()


def models(
    detector: Annotated[
        str | None,
        Argument(help="Detector whose parameters and presets are shown; all are listed where left out."),
    ] = None,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the detectors, or the parameters and presets of one."""
    from ..detectors.listing import describe_detectors
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.show(describe_detectors(detector))
