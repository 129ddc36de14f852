"""What a short command means: the newest run, the newest bundle, the usual names."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ..bundle.runs.folder import RECORD, is_unfinished, run_detector, unfinished_words
from ..bundle.store import MANIFEST, Bundle, open_bundle
from ..core.errors import BadInputError, UsageError
from ..core.size import Size, parse_size

RUNS = Path("runs")


def new_run_folder(detector: str, category: str) -> Path:
    """Make ``runs/DETECTOR-CATEGORY-TIME`` for a run that starts now; of two that start at once each gets its own."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (detector, category, stamp) if part)
    RUNS.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        run = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            run.mkdir()
        except FileExistsError:
            number += 1
        else:
            return run


def newest_run(detector: str, root: Path = RUNS) -> Path:
    """The newest finished run of a detector under ``root``.

    Raises:
        BadInputError: there is none; the message holds the command that makes one.
    """
    records = sorted(root.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for record in records:
        if run_detector(record.parent) == detector:
            return record.parent
    unfinished = [run for run in sorted(root.glob(f"{detector}-*")) if is_unfinished(run)]
    if unfinished:
        raise BadInputError(f"There is no finished {detector} under ./{root}. {unfinished_words(unfinished[-1])}")
    raise BadInputError(
        f"There is no trained {detector} under ./{root} ({len(records)} finished runs of other detectors). Train one: "
        f"lineproof train {detector} --data DIR --category NAME; or let it be made from the built-in sample: "
        f"lineproof export {detector} --sample"
    )


def newest_bundle(root: Path | None = None) -> Path:
    """The newest ``*.bundle`` folder directly under ``root`` (default: here).

    Raises:
        BadInputError: there is none.
    """
    return all_bundles(root)[-1]


def all_bundles(root: Path | None = None) -> list[Path]:
    """The ``*.bundle`` folders directly under ``root`` (default: here), the newest last.

    Raises:
        BadInputError: there is none.
    """
    root = root or Path()
    found = sorted(root.glob(f"*.bundle/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BadInputError(
            f"There is no *.bundle in {root.resolve()}. Name one, or make one: lineproof export fastflow --sample"
        )
    return [path.parent for path in found]


def open_named(path: Path | None, *, precision: str | None = None) -> Bundle:
    """Open the bundle named, or the newest one here.

    Raises:
        BadInputError: none was named and there is none here.
        UsageError: its precision is not the one that was asked for.
    """
    bundle = open_bundle(path or newest_bundle())
    if precision not in (None, bundle.manifest.precision):
        raise UsageError(
            f"{bundle.path} is {bundle.manifest.precision}, not {precision}. The precision is written in the graph: "
            f"export it again with --precision {precision}."
        )
    return bundle


def bundle_folder(category: str, detector: str, precision: str) -> Path:
    """``CATEGORY-DETECTOR.bundle``, with the precision in its name where it is not fp32."""
    parts = [category, detector, "" if precision == "fp32" else precision]
    return Path("-".join(part for part in parts if part) + ".bundle")


def parse_frame(text: str) -> tuple[int, int, int]:
    """``HxW`` or ``HxWxC`` → height, width in pixels and channels (3 where left out).

    Raises:
        UsageError: another form.
    """
    parts = text.lower().split("x")
    if len(parts) in (2, 3) and all(part.isdecimal() and int(part) > 0 for part in parts):
        height, width, channels = (*map(int, parts), 3)[:3]
        return height, width, channels
    raise UsageError(f"--frame is {text!r}; expected HEIGHTxWIDTH or HEIGHTxWIDTHx1 for mono, for example 1024x1280.")


def parse_frame_size(text: str) -> tuple[int, int]:
    """``HxW`` → height, width in pixels.

    Raises:
        UsageError: another form.
    """
    height, width, channels = parse_frame(text)
    if channels != 3:
        raise UsageError(
            f"--frame is {text!r}: training reads pictures as RGB. Give HEIGHTxWIDTH here, and HEIGHTxWIDTHx1 for mono "
            "frames when it is exported."
        )
    return height, width


def parse_image_size(text: str, *, option: str) -> Size:
    """``HxW`` → height and width in pixels; one number means a square.

    Raises:
        UsageError: another form; ``option`` is named.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from None


def parse_batches(text: str) -> tuple[int, ...]:
    """``1:4:8`` → (1, 4, 8), rising.

    Raises:
        UsageError: another form.
    """
    parts = text.split(":")
    if all(part.isdecimal() and int(part) > 0 for part in parts):
        values = tuple(map(int, parts))
        if list(values) == sorted(values):
            return values
    raise UsageError(f"--batch is {text!r}; expected rising numbers such as 1, 8 or 1:4:8.")


def parse_share(text: str) -> float:
    """``1%`` or ``0.01`` → 0.01.

    Raises:
        UsageError: another form, or outside 0 ≤ share < 1.
    """
    share = _share(text)
    if not 0.0 <= share < 1.0:
        raise UsageError(f"--max-false-reject is {text!r}; expected a share such as 1% or 0.01.")
    return share


def parse_min_used(text: str) -> float:
    """``90%`` or ``0.9`` → 0.9; from none to all of them.

    Raises:
        UsageError: another form, or outside 0 ≤ share ≤ 1.
    """
    share = _share(text)
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"--min-used is {text!r}; expected a share such as 90% or 0.9.")
    return share


def _share(text: str) -> float:
    """A number, or a number of per cent as a share; -1 for any other form."""
    number, divisor = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        return float(number) / divisor
    except ValueError:
        return -1.0


def parse_settings(items: list[str]) -> dict[str, str]:
    """``["key=value", …]`` → {"key": "value"}.

    Raises:
        UsageError: an item without ``=``.
    """
    pairs = [item.partition("=") for item in items]
    wrong = [item for item, (key, sign, _) in zip(items, pairs, strict=True) if not (key and sign)]
    if wrong:
        raise UsageError(f"--set {wrong[0]}: expected KEY=VALUE. `lineproof models DETECTOR` lists the keys.")
    return {key: value for key, _, value in pairs}
