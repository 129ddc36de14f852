"""Reader of the JSON file that says what a model takes and gives."""

from __future__ import annotations

import json
from pathlib import Path

from ...core.errors import BadInputError
from ...core.imported_model import ImportedModel
from ...core.os_errors import os_error_words
from ...core.strict import read_as
from ...core.words import clause


def read_specification(path: Path) -> ImportedModel:
    """Read the JSON file of ``--preprocessing``.

    Raises:
        BadInputError: it cannot be read, is no JSON, or a field is missing, unknown, of another type or out of range.
    """
    try:
        return read_as(ImportedModel, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInputError(f"preprocessing (--preprocessing): {os_error_words(error)}") from None
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is not JSON ({error}). docs/import-onnx.md has an example to copy.") from None
    except ValueError as error:
        raise BadInputError(f"{path}: {clause(error)}. docs/import-onnx.md says what every field means.") from None
