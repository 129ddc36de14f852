"""``lineproof inspect``."""

from ..host.needs import Needs
from ._options import AsJson, BundleArgument, Quiet, Verbose

NEEDS = Needs()


def inspect(
    bundle: BundleArgument = None,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a bundle holds."""
    from ..bundle.description import BundleDescription
    from ._console import Ui
    from ._find import open_named

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.show(BundleDescription(open_named(bundle)))
