"""Filing reports: after they were printed, in the bundle or in a folder that takes them where the bundle does not."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import BadInputError, LineproofError
from ..core.os_errors import os_error_words
from .lock import exclusive
from .store import WAIT_S, Bundle, now
from .transaction import append_json

#: What a command advises where a bundle cannot be written to.
RECORD_ADVICE = "`--record DIR` names a folder that takes it."


def check_record(record: Path | None) -> None:
    """Check before any work that a folder for reports can be written; it is made where it is missing.

    Args:
        record: the folder, or None for the bundle itself, which may be read-only: see ``file_report``.

    Raises:
        BadInputError: it is a file, cannot be made, or cannot be written.
    """
    if record is None:
        return
    try:
        record.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"record (--record) is {record}, which cannot take a report. {os_error_words(error)}"
        ) from error
    if not os.access(record, os.W_OK | os.X_OK):
        raise BadInputError(
            f"record (--record) is {record}, which cannot take a report: it is not writable. Name another folder."
        )


def file_report(bundle: Bundle, file: str, report: Mapping[str, Any], *, record: Path | None = None) -> str:
    """Append a report to a JSON list, in the bundle or in a folder of its own; never loses what was computed.

    Call it after the report was printed.

    Args:
        bundle: what the report is about.
        file: ``"proof.json"`` or ``"profile.json"``.
        report: JSON values that name the bundle and its model.
        record: folder for the list instead of the bundle; a bundle that may be written is left as it is then.

    Returns:
        "" where the report was filed, else the warning for the user: what was not kept, why, and what to do.
    """
    path = (record or bundle.path) / file
    try:
        if record is None:
            bundle.append_report(file, report)
        else:
            record.mkdir(parents=True, exist_ok=True)
            with exclusive(record, what="a report", wait_s=WAIT_S):
                append_json(path, {"time": now(), **report})
    except (OSError, LineproofError) as error:
        return not_kept_warning(error, place=str(path), is_elsewhere=record is not None)
    return ""


def not_kept_warning(error: OSError | LineproofError, *, place: str = "", is_elsewhere: bool = False) -> str:
    """The warning that a report was not kept, with the reason and what to do.

    Args:
        error: the error that kept it from being written.
        place: the file that was to be written, where the error itself names no path.
        is_elsewhere: whether it was to be kept in a folder of its own already.
    """
    if isinstance(error, OSError):
        fix = "" if is_elsewhere else f" {RECORD_ADVICE}"
        return f"The report was not kept. {os_error_words(error, place=place)}{fix}"
    return f"The report was not kept. {error} Or name a folder: --record DIR."
