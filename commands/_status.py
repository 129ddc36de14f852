"""Exit statuses: every error of a command ends in a message on stderr and its number."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..core.errors import LineproofError


def run_app(app: Callable[[], Any]) -> None:
    """Run a command-line application, which handles its own usage errors (status 2) and exits.

    Raises:
        SystemExit: 0 done, 1 error, 2 usage, 3 environment missing, 4 parity failed, 5 deadline missed.
    """
    try:
        app()
    except LineproofError as error:
        _fail(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        fix = "Training and export need: pip install 'lineproof[train]'. `lineproof doctor` says what works here."
        _fail(f"The package {error.name} is missing. {fix}", 3)


def _fail(message: str, status: int) -> None:
    if {"-v", "--verbose"} & set(sys.argv):
        sys.excepthook(*sys.exc_info())
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)
