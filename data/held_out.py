"""The held-out images of a finished run: located, and checked against the run's record; without PyTorch."""

from __future__ import annotations

from pathlib import Path

from ..bundle.runs.record import RunRecord
from ..core.errors import BadInputError
from ..core.progress import Progress, silent
from ..core.table import first_few
from .content import content_hashes
from .dataset import open_dataset
from .files import files_read


def held_out_images(
    record: RunRecord,
    run: Path,
    *,
    data: Path | None = None,
    option: str = "--data",
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Locate the held-out images of a run, and check that they are the ones that it held out.

    Args:
        record: record of the run.
        run: folder of the run, for messages.
        data: where the data set lies now, the category's folder or the one above it; None for where it lay.
        option: what ``data`` is called on the command line.
        progress: called after each image.

    Returns:
        Their paths, in the record's order.

    Raises:
        BadInputError: images are gone, have other content than when the run was trained, or cannot be read.
    """
    root = data_root(record, data)
    if data is not None and not record.root:
        raise BadInputError(
            f"{run} was trained by an older release, which kept its images by absolute path: {data} ({option}) cannot "
            "stand in for their folder. Put the data back, or train again."
        )
    paths = tuple(root / name for name in record.holdout)
    gone = [path for path in paths if not all(file.is_file() for file in files_read(path, record.reads))]
    if gone:
        raise BadInputError(
            f"{run}: {len(gone)} of {len(paths)} held-out images are not where they were: {first_few(gone)}. Put the "
            f"data back, or say where it lies now: {option} ROOT."
        )
    if record.training.held_out:
        seen = content_hashes(paths, record.reads, progress=progress)
        changed = [path for path, a, b in zip(paths, seen, record.training.held_out, strict=True) if a != b]
        if changed:
            raise BadInputError(
                f"{run}: {len(changed)} of {len(paths)} held-out images have other content than when the run was "
                f"trained: {first_few(changed)}. Put the original data back or say where it lies ({option} ROOT), or "
                "train again."
            )
    elif data is not None and open_dataset(root).fingerprint(record.reads) != record.training.fingerprint:
        raise BadInputError(
            f"{root} holds other training images than {run} was trained on (their fingerprint differs). Say where the "
            f"original data lies ({option} ROOT), or train again."
        )
    return paths


def data_root(record: RunRecord, data: Path | None) -> Path:
    """The folder that the images of a run are relative to; ``data`` as in ``held_out_images``."""
    if data is None:
        return Path(record.root)
    below = data / record.training.category
    is_above = not any((data / name).is_file() for name in record.holdout) and below.is_dir()
    return below if is_above else data
