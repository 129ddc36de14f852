"""JSON types of a verdict, as ``run`` prints and files it, and the reading of filed verdicts (docs/run.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, final

from ..bundle.record import ProofState
from ..core.errors import BadInputError
from ..core.strict import read_as
from ..core.words import clause


class Decided(TypedDict):
    """What decides a verdict besides the image."""

    threshold: float
    engine: str
    compute_dtype: str
    order: str
    bundle: str
    model_sha256: str
    decision: str
    parity: ProofState


class VerdictLine(Decided):
    """The verdict on one image; docs/run.md says what each key holds."""

    file: str
    verdict: Literal["OK", "NG", "ERR"]
    score: float | None
    lineproof: str
    path: str
    time: str
    time_ms: float
    overlay: NotRequired[str]
    error: NotRequired[str]
    kind: NotRequired[str]


@final
@dataclass(frozen=True, kw_only=True)
class FiledVerdict:
    """The part of a filed verdict that the next run reads; None where an earlier release did not write it.

    Attributes:
        verdict: ``"OK"``, ``"NG"`` or ``"ERR"``.
        path: absolute path of the image.
        time: time at which it was judged, in UTC as ISO 8601.
        threshold: threshold that the score was compared with.
        engine: name of the engine that computed.
        compute_dtype: arithmetic that the engine was asked for: ``"f32"`` or ``"bf16"``.
        order: order of the channels: ``"rgb"``, ``"bgr"`` or ``"mono"``.
        decision: digest of the bundle's decision.
    """

    verdict: Literal["OK", "NG", "ERR"]
    path: str | None = None
    time: str | None = None
    threshold: float | None = None
    engine: str | None = None
    compute_dtype: str | None = None
    order: str | None = None
    decision: str | None = None


def is_whole(line: bytes) -> bool:
    """Whether a line is a whole verdict, not one that a kill or a power cut left half written."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return False
    return isinstance(value, dict) and "verdict" in value


def read_verdicts(path: Path) -> Iterator[FiledVerdict]:
    """Read the whole verdicts of a file, in their order; none where there is no file.

    Raises:
        BadInputError: A value is of another type than ``lineproof run`` writes.
    """
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if is_whole(line):
                yield _read(line, f"{path}, line {number}")


def _read(line: bytes, where: str) -> FiledVerdict:
    try:
        return read_as(FiledVerdict, json.loads(line), refuses_unknown=False)
    except ValueError as error:
        raise BadInputError(
            f"{where} was not written by `lineproof run`: {clause(error)}. Give another --out, or mend the line."
        ) from None
