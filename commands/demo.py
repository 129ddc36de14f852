"""``lineproof demo``."""

from pathlib import Path
from typing import Annotated

from typer import Option

from ..host.needs import EXPORT_MODULES, Needs
from ._options import AsJson, Quiet, Verbose

NEEDS = Needs(modules=EXPORT_MODULES, has_engine=True, writes=".")


def demo(
    *,
    out: Annotated[Path, Option(help="Folder for the sample, the runs, the bundles and the page.")] = Path(
        "lineproof-demo"
    ),
    detector: Annotated[
        list[str], Option(help="Detector to show; may be repeated. Where left out: fastflow, padim, patchcore.")
    ] = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train, export, verify and profile on the built-in sample, ending in a page with images."""
    from ..sweep.demo import DEMO_DETECTORS, run_demo
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with ui.progress() as progress:
        result = run_demo(out, detectors=detector or DEMO_DETECTORS, progress=progress)
    ui.conclude(result)
