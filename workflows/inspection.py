"""Files to verdicts: JSON lines and heat-map overlays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundle.atomic import write_atomic
from ..bundle.store import Bundle
from ..core.errors import BadInputError, LineproofError
from ..core.progress import Progress, silent
from ..data.decode import decode_image
from ..data.overlay import overlay
from ..data.records import is_image, visible
from ..line.inspector import Line, Verdict
from ..line.inspector import open_line as open_line

VERDICTS = "verdicts.jsonl"
OVERLAYS = "overlays"


@dataclass(frozen=True)
class Inspection:
    """What came of a run over files.

    Attributes:
        verdicts: one JSON value per file, in order: file, verdict (OK, NG or ERR), score, threshold, time_ms, error.
    """

    verdicts: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"num_files": len(self.verdicts), "num_errors": self.num_errors, "verdicts": list(self.verdicts)}

    def check(self) -> None:
        """Raise BadInputError where a file gave no verdict."""
        if self.num_errors:
            raise BadInputError(f"{self.num_errors} of {len(self.verdicts)} files gave no verdict; see the ERR lines.")

    @property
    def num_errors(self) -> int:
        """Files that gave no verdict."""
        return sum(item["verdict"] == "ERR" for item in self.verdicts)

    def sentences(self) -> tuple[str, ...]:
        """One JSON value per file, a line each."""
        return tuple(json.dumps(item) for item in self.verdicts)


def find_images(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The files given, and every image below the folders given, by name.

    Raises:
        BadInputError: a path that does not exist, or no image at all.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise BadInputError(f"No such file or folder: {', '.join(missing)}.")
    found = [item for path in paths for item in (_below(path) if path.is_dir() else (path,))]
    if not found:
        raise BadInputError(f"No image below {', '.join(map(str, paths))}. Expected PNG, JPEG, BMP, TIFF or WebP.")
    return tuple(found)


def _below(folder: Path) -> Iterator[Path]:
    for item in visible(folder):
        if item.is_dir():
            yield from _below(item)
        elif is_image(item):
            yield item


def map_limits(bundle: Bundle) -> tuple[float, float]:
    """Map values shown as cold and as hot, see ``show_limits``, from the golden frames that are good."""
    reference = bundle.golden().reference
    return show_limits(reference.anomaly_map, ~bundle.manifest.threshold.is_defect(reference.score))


def show_limits(maps: NDArray[np.float32], is_good: NDArray[np.bool_]) -> tuple[float, float]:
    """Map values shown as cold and as hot, so that what good parts never reach begins to glow.

    Args:
        maps: float32 (N, h, w).
        is_good: bool (N,).

    Returns:
        The median of the good maps, and twice as far above it as nearly all good maps reach (the 95 % quantile of their
        maxima). Where no map is good: median and maximum of all.
    """
    places = np.flatnonzero(is_good)
    if len(places):
        low = float(np.median([np.median(maps[i]) for i in places]))
        high = 2 * float(np.quantile([maps[i].max() for i in places], 0.95)) - low
    else:
        low = float(np.median([np.median(item) for item in maps]))
        high = max(float(item.max()) for item in maps)
    return low, max(high, low + 1e-9)


def inspect_files(
    line: Line, paths: Sequence[Path], *, out: Path | None = None, progress: Progress = silent
) -> Inspection:
    """Inspect files one by one; a file that cannot be judged becomes an ERR entry and the rest goes on.

    Args:
        line: opened line.
        paths: images, or folders of images, see ``find_images``.
        out: folder for verdicts.jsonl and overlays/, or None for none.
        progress: told after each file.
    """
    files = find_images(paths)
    limits = map_limits(line.bundle) if out else None
    entries = []
    for number, path in enumerate(files):
        entry, drawn = _inspect(line, path, limits=limits)
        entries.append(entry)
        if out and drawn is not None:
            name = f"{number:05d}-{path.stem}-{entry['verdict']}.png"
            entry["overlay"] = f"{OVERLAYS}/{name}"
            (out / OVERLAYS).mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn).save(out / OVERLAYS / name)
        progress("inspecting", number + 1, len(files))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / VERDICTS, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
    return Inspection(tuple(entries))


def _inspect(
    line: Line, path: Path, *, limits: tuple[float, float] | None
) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    entry: dict[str, Any] = {"file": str(path), "verdict": "ERR", "score": None, "threshold": line.threshold}
    try:
        frame = decode_image(path, channels=line.bundle.manifest.preprocessing.frame_channels)
        found = line.inspect(frame)
    except LineproofError as error:
        return {**entry, "error": str(error)}, None
    entry |= {"verdict": found.verdict, "score": found.score, "time_ms": found.time_ns / 1e6}
    return entry, draw(frame, found, line.bundle, limits=limits) if limits else None


def draw(frame: NDArray[np.uint8], found: Verdict, bundle: Bundle, *, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """The frame with its heat map over the part that the detector sees: uint8 (H, W, 3)."""
    colour = np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame
    rows, columns = seen_part(bundle)
    drawn = colour.copy()
    drawn[rows, columns] = overlay(
        np.ascontiguousarray(colour[rows, columns]), found.anomaly_map, low=limits[0], high=limits[1]
    )
    return drawn


def seen_part(bundle: Bundle) -> tuple[slice, slice]:
    """Rows and columns of the frame that the centre crop keeps."""
    spec = bundle.manifest.preprocessing
    parts = []
    for frame, resized, crop in (
        (spec.frame_height_px, spec.resize_height_px, spec.crop_height_px),
        (spec.frame_width_px, spec.resize_width_px, spec.crop_width_px),
    ):
        margin = round(frame * (resized - crop) / resized / 2)
        parts.append(slice(margin, frame - margin))
    return parts[0], parts[1]
