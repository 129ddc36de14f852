"""What a finished run says about itself, and where its held-out images are; read without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.manifest import DetectorRecord, TrainingRecord
from ..bundle.runs.folder import RECORD, read_started, refuse_unfinished
from ..core.errors import BadInputError
from ..core.progress import Progress, silent
from ..core.spec import Fit, check_fit
from .content import content_hashes
from .dataset import open_dataset

_NUM_NAMED = 3


@dataclass(frozen=True)
class CheckpointRecord:
    """What a run folder says about its checkpoint.

    Attributes:
        detector: name and parameters.
        training: data, seed, content hashes of the images.
        holdout: held-out good images, relative to ``root`` with ``/`` between folders.
        holdout_scores: the reference's score of each, at its own frame size.
        frame: height, width of the frames that training saw.
        fit: what the fit reported.
        frame_fit: how pictures of another size became frames, see ``data.inputs.fitting``; None in a run of an earlier
            release, which took each picture at its own size and ``frame`` from the first.
        bit_depth: bits that the camera used in 16-bit pictures; None for all.
        frame_note: what became of the pictures' sizes, in words; "" where all were the frame's.
        conversions: what decoding did to the training pictures, in sentences.
        root: folder of the data set when it was trained, absolute; "" where the images are absolute paths.
        beginning: what was found in the folder when the training that finished it began; "" for a new run.
    """

    detector: DetectorRecord
    training: TrainingRecord
    holdout: tuple[str, ...]
    holdout_scores: tuple[float, ...]
    frame: tuple[int, int]
    fit: dict[str, Any]
    frame_fit: Fit | None = None
    bit_depth: int | None = None
    frame_note: str = ""
    conversions: tuple[str, ...] = ()
    root: str = ""
    beginning: str = ""


def read_record(run: Path) -> CheckpointRecord:
    """Read ``checkpoint.json`` of a run folder.

    Raises:
        BadInputError: the run is unfinished, or there is none, or the file is not what this or an older release writes.
    """
    path = run / RECORD
    if not path.is_file():
        refuse_unfinished(run)
        raise BadInputError(f"{run} holds no {RECORD}: it is no finished run. See lineproof train --help")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        root, holdout = (raw["root"], raw["holdout"]) if "root" in raw else _relative(raw["holdout"], run)
        return CheckpointRecord(
            detector=DetectorRecord(**raw["detector"]),
            training=TrainingRecord(**raw["training"]),
            holdout=tuple(holdout),
            holdout_scores=tuple(raw["holdout_scores"]),
            frame=(raw["frame"][0], raw["frame"][1]),
            fit=raw["fit"],
            frame_fit=check_fit(raw["frame_fit"]) if "frame_fit" in raw else None,
            bit_depth=raw.get("bit_depth"),
            frame_note=raw.get("frame_note", ""),
            conversions=tuple(raw.get("conversions", ())),
            root=root,
            beginning=raw.get("beginning", ""),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path} is not a checkpoint record of this release ({error!r}). Train again.") from None


def _relative(paths: list[str], run: Path) -> tuple[str, list[str]]:
    """Root and relative paths of a record that holds absolute ones; ("", the paths) where the root is not known."""
    root = str(read_started(run).get("data", ""))
    if not root or not all(Path(path).is_relative_to(root) for path in paths):
        return "", paths
    return root, [Path(path).relative_to(root).as_posix() for path in paths]


def held_out_images(
    record: CheckpointRecord,
    run: Path,
    *,
    data: Path | None = None,
    option: str = "--data",
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """The held-out images of a run, once it is sure that they are the ones that it held out.

    Args:
        record: of the run.
        run: its folder, for messages.
        data: where the data set lies now, the category's folder or the one above it; None for where it lay.
        option: what ``data`` is called on the command line.
        progress: told after each image.

    Raises:
        BadInputError: images are gone, have other content than when the run was trained, or cannot be read.
    """
    root = data_root(record, data)
    if data is not None and not record.root:
        raise BadInputError(
            f"{run} was trained by an older release, which kept its images by absolute path: {option} cannot replace "
            "their folder. Put the data back, or train again."
        )
    paths = tuple(root / name for name in record.holdout)
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise BadInputError(
            f"{run}: {len(gone)} of {len(paths)} held-out images are not where they were: {_named(gone)}. Put the data "
            f"back, or say where it lies now: {option} ROOT."
        )
    if record.training.held_out:
        seen = content_hashes(paths, progress=progress)
        changed = [path for path, a, b in zip(paths, seen, record.training.held_out, strict=True) if a != b]
        if changed:
            raise BadInputError(
                f"{run}: {len(changed)} of {len(paths)} held-out images have other content than when the run was "
                f"trained: {_named(changed)}. Put the original data back or say where it lies ({option} ROOT), or "
                "train again."
            )
    elif data is not None and open_dataset(root).fingerprint() != record.training.fingerprint:
        raise BadInputError(
            f"{root} holds other training images than {run} was trained on (their fingerprint differs). Say where the "
            f"original data lies ({option} ROOT), or train again."
        )
    return paths


def data_root(record: CheckpointRecord, data: Path | None) -> Path:
    """The folder that the images of a run are relative to; ``data`` as in ``held_out_images``."""
    if data is None:
        return Path(record.root)
    below = data / record.training.category
    is_above = not any((data / name).is_file() for name in record.holdout) and below.is_dir()
    return below if is_above else data


def _named(paths: Sequence[Path]) -> str:
    """The first few paths, and how many more."""
    named = ", ".join(map(str, paths[:_NUM_NAMED]))
    return f"{named} and {len(paths) - _NUM_NAMED} more" if len(paths) > _NUM_NAMED else named
