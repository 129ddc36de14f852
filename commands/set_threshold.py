"""``lineproof set-threshold``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import Needs
from ._options import AsJson, Quiet, Verbose, Who

NEEDS = Needs()


def set_threshold(
    bundle: Annotated[Path, Argument(help="Bundle folder.")],
    value: Annotated[float, Argument(help="The threshold, in units of the score.")],
    *,
    engine: Annotated[
        str, Option(help="Engine whose threshold is set; where left out, that of the engines without one of their own.")
    ] = "",
    reason: Annotated[str, Option(help="Reason for the change; it stays in the bundle's history.")],
    who: Who = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Set a threshold by hand, and keep who did it and why."""
    from ..bundle.decide import set_threshold as decide
    from ..bundle.store import open_bundle
    from ..core.registry import check_name
    from ..host.environment import user_name
    from ..runtime.engine import ENGINES, check_deciding
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    if engine:
        check_name(ENGINES, engine, kind="engine")
        check_deciding(engine, what="have a threshold")
    ui.show(decide(open_bundle(bundle), value, engine=engine, reason=reason, who=who or user_name()))
