"""``lineproof inspect``."""

from ._options import AsJson, BundleArgument, Quiet, Verbose


def inspect(
    bundle: BundleArgument = None,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a bundle holds."""
    from ..workflows.describe import describe_bundle
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.show(describe_bundle(bundle))
